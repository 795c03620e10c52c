"""The scripts for pods and clusters start what they should, with options that there are."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from sam_jax.cli.main import main
from sam_jax.folder_runs.meeting import Hosts

ROOT = Path(__file__).parents[2]
SCRIPTS = ROOT / "examples" / "many_hosts"
TPU, GPU = SCRIPTS / "tpu_worker.sh", SCRIPTS / "gpu_cluster.sbatch"
pytestmark = pytest.mark.skipif(shutil.which("bash") is None, reason="no bash")


@pytest.fixture
def programs(folder, monkeypatch):
    """Stands in for programs that a script calls; gives what `sam-jax` was called with."""
    Path("bin").mkdir()
    monkeypatch.setenv("PATH", f"{folder / 'bin'}:{os.environ['PATH']}")
    code = f"""#!{sys.executable}
import json, os, sys
text = json.dumps([sys.argv[1:], dict(os.environ)])
open(f"call{{os.getpid()}}", "w").write(text)
sys.exit("--process-id" in sys.argv and int(sys.argv[-1]) == 6)
"""
    write("sam-jax", code)
    return lambda: [json.loads(path.read_text()) for path in sorted(Path().glob("call*"))]


def write(name, code):
    path = Path("bin", name)
    path.write_text(code)
    path.chmod(0o755)


def commands(path):
    """The `sam-jax` commands of a file, comments included, as words."""
    text = path.read_text().replace("\n#", "\n").replace("\\\n", " ").replace('"', " ")
    for line in text.splitlines():
        for found in re.findall(
            r"(?:sam-jax|tpu_worker\.sh|gpu_cluster\.sbatch) ([a-z]+ .*)", line
        ):
            yield shlex.split(found.replace(";", " ; ").replace("&", " & "), comments=True)


def parsed(words):
    """The values of a command's options; what does not exist or fit is refused."""
    name, *rest = words
    return main.commands[name].make_context(name, rest).params


@pytest.mark.parametrize("path", [TPU, GPU, ROOT / "docs" / "many_hosts.md"])
def test_every_option_that_is_written_down_exists(path):
    found = [words for words in commands(path) if words[0] in main.commands]
    assert len(found) >= 2
    for name, *rest in found:
        options = {option for each in main.commands[name].params for option in each.opts}
        assert {word for word in rest if word.startswith("--")} <= options, rest


def test_on_a_tpu_worker_each_chip_has_a_process(programs):
    values = {"agent-worker-number": 1, "worker-network-endpoints": "x:1:10.0.0.1,x:2:10.0.0.2"}
    cases = "\n".join(f"  */{key}) echo '{value}' ;;" for key, value in values.items())
    write("curl", f'#!/bin/bash\ncase "${{@: -1}}" in\n{cases}\n  *) exit 22 ;;\nesac\n')
    words = next(words for words in commands(TPU) if words[0] == "generate")
    done = subprocess.run(["bash", TPU, *words], capture_output=True, text=True, check=False)
    calls = programs()
    assert len(calls) == 4, done.stderr
    hosts = {}
    for args, environment in calls:
        assert args[: len(words)] == words and parsed(args)["distributed"]
        values = parsed(args)
        names = ("coordinator_address", "num_processes", "process_id", "initialization_timeout")
        found = Hosts(*(values[name] for name in names))
        assert (found.coordinator_address, found.num_processes) == ("10.0.0.1:8490", 8)
        hosts[found.process_id] = environment["TPU_VISIBLE_CHIPS"], environment["TPU_PROCESS_PORT"]
    assert hosts == {4 + chip: (str(chip), str(8471 + chip)) for chip in range(4)}
    # That of number 6 failed: the others are waited for, and the script fails.
    assert done.returncode == 1


def test_without_metadata_nothing_is_started(programs):
    write("curl", "#!/bin/bash\nexit 22\n")
    done = subprocess.run(["bash", TPU, "generate", "photos"], check=False)
    assert done.returncode == 1 and not programs()


def test_slurm_starts_the_command_as_it_is_given(programs):
    code = '#!/bin/bash\nwhile [[ "$1" == --* ]]; do shift; done\n"$@"\n'
    write("srun", code)
    words = next(words for words in commands(GPU) if words[0] == "generate")
    subprocess.run(["bash", GPU, *words], check=True)
    ((args, _),) = programs()
    assert args == [*words, "--distributed"] and parsed(args)["distributed"]
