"""The command itself: quick help, errors as one line, defects not hidden, progress."""

import errno
import io
import logging
import os
import subprocess
import sys
import warnings
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from sam_jax.cli import main as main_module
from sam_jax.cli import segment as segment_module
from sam_jax.cli.main import main, quiet_libraries, user_message
from sam_jax.cli.progress import ProgressBar
from sam_jax.errors import InputError
from sam_jax.version import __version__

ROOT = Path(__file__).parents[2]


def process(code, **options):
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"}
    return subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env=environment,
        check=False,
        **options,
    )


def test_help_and_version_answer_without_jax(run):
    code = (
        "import sys; from sam_jax.cli.main import main; import click\n"
        "try: main(['segment', '--help'])\n"
        "except SystemExit as end: assert end.code == 0\n"
        "print({'jax', 'numpy', 'flax', 'PIL'} & set(sys.modules))"
    )
    done = process(code)
    assert done.stdout.endswith("set()\n"), done.stdout + done.stderr
    assert run("--version").stdout == f"sam-jax {__version__}\n"


def test_every_command_of_the_contract_is_there_and_no_stub(run):
    expected = {"segment", "generate", "encode", "convert", "download", "info", "bench"}
    expected |= {"train", "pretrain", "merge", "evaluate", "evaluate-video", "track"}
    assert set(main.commands) == expected
    assert run().stdout == run("--help").stdout
    for name in main.commands:
        assert name in run().stdout
        assert run(name, "-h").stdout.startswith("Usage: ")


def test_a_real_process_says_nothing_but_its_results(checkpoint):
    code = "from sam_jax.cli.main import main; main()"
    arguments = ["segment", "photo.png", "--point", "30,20", "--checkpoint", str(checkpoint)]
    done = process(f"import sys; sys.argv[1:] = {arguments!r}; {code}")
    assert (done.returncode, done.stderr) == (0, "")
    assert len(done.stdout.splitlines()) == 5


def test_a_closed_pipe_is_no_error():
    code = (
        "import os, sys; os.close(1); os.dup2(os.open(os.devnull, os.O_RDONLY), 1)\n"
        "r, w = os.pipe(); os.dup2(w, 1); os.close(w); os.close(r)\n"
        "from sam_jax.cli.main import main; main(['--help'])"
    )
    assert process(code).stderr == ""


@pytest.mark.parametrize(
    "arguments, reason",
    [
        (["nothing"], "No such command 'nothing'"),
        (["--nothing"], "No such option"),
        (["segment"], "Missing argument 'IMAGE'"),
        (["segment", "a", "--dtype", "int8"], "'int8' is not one of"),
    ],
)
def test_mistyped_commands_are_one_line_with_a_hint(run, arguments, reason):
    line = run.refused(*arguments)
    assert reason in line and "--help)" in line


def invoke_with(monkeypatch, error):
    def fail(*_args, **_kwargs):
        raise error

    monkeypatch.setattr(segment_module, "find_checkpoint", fail)
    return CliRunner().invoke(main, ["segment", "photo.png", "--point", "1,2"])


class JaxRuntimeError(RuntimeError):
    """Named like JAX's."""


@pytest.mark.parametrize(
    "error, reason",
    [
        (InputError("the reason"), "the reason"),
        (PermissionError(errno.EACCES, "Permission denied", "x.png"), "x.png: Permission denied"),
        (OSError("odd"), "odd"),
        (MemoryError(), "out of memory"),
        (JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory\nwhile"), "device ran out of memory"),
        (RuntimeError("Unable to initialize backend 'cuda':\nno"), "backend 'cuda': no; check JAX"),
        (click.ClickException("two\nlines"), "two lines"),
    ],
)
def test_what_a_user_can_mend_is_one_line(monkeypatch, error, reason):
    result = invoke_with(monkeypatch, error)
    assert result.exit_code == 2 and result.stdout == ""
    (line,) = result.stderr.splitlines()
    assert line.startswith("error: ") and reason in line


OUT_OF_MEMORY = [MemoryError(), JaxRuntimeError("RESOURCE_EXHAUSTED: 3 GB")]


@pytest.mark.parametrize("error", OUT_OF_MEMORY, ids=["machine", "device"])
@pytest.mark.parametrize(
    "command, named, others",
    [
        (
            "train",
            ["data.batch_size", "data.max_masks", "model.remat"],
            ["--dtype", "--checkpoint"],
        ),
        ("pretrain", ["data.batch_size", "model.remat"], ["--dtype", "data.max_masks"]),
        ("generate", ["--points-per-batch", "--dtype bfloat16", "--checkpoint"], ["data."]),
        ("segment", ["--dtype bfloat16", "--checkpoint"], ["--points-per-batch"]),
        ("encode", ["--batch-size", "--dtype bfloat16"], ["--points-per-batch"]),
        ("track", ["--dtype bfloat16", "objects"], ["--points-per-batch"]),
        ("convert", ["machine"], ["--dtype"]),
    ],
)
def test_out_of_memory_names_what_the_command_can_change(error, command, named, others):
    line = user_message(error, command, ["photo.png"])
    assert all(word in line for word in named), line
    assert not any(word in line for word in others), line
    assert "the CPU" not in line and "\n" not in line
    options = {option for c in [main.commands[command]] for p in c.params for option in p.opts}
    assert {word for word in line.replace(")", " ").split() if word[:2] == "--"} <= {
        *options,
        *(f"{option}," for option in options),
    }
    assert "bfloat16" not in user_message(error, command, ["photo.png", "--dtype", "bfloat16"])


def test_the_cpu_is_offered_to_other_devices_alone(monkeypatch):
    monkeypatch.setattr("jax.default_backend", lambda: "gpu")
    assert user_message(MemoryError(), "segment").endswith("or the CPU (JAX_PLATFORMS=cpu)")


@pytest.mark.parametrize("error", [ValueError("ours"), JaxRuntimeError("INTERNAL"), KeyError("x")])
def test_a_defect_is_not_hidden(monkeypatch, error):
    assert user_message(error) is None
    assert invoke_with(monkeypatch, error).exception is error


def test_an_interruption_ends_with_130(monkeypatch):
    result = invoke_with(monkeypatch, KeyboardInterrupt())
    assert result.exit_code == main_module.INTERRUPTED == 130
    assert result.stderr.strip() == ""


def test_logs_and_foreign_warnings_are_silenced_and_ours_shown_once(capsys):
    ours = {"__name__": "sam_jax.preprocess", "warnings": warnings}
    with quiet_libraries():
        logging.getLogger("absl").warning("noise")
        warnings.warn("foreign", UserWarning, stacklevel=1)
        warnings.warn("old", DeprecationWarning, stacklevel=1)
        for _ in range(2):
            exec("warnings.warn('look\\nhere', UserWarning)", ours)
    assert capsys.readouterr().err == "warning: look here\n"
    assert logging.root.manager.disable == 0


def test_elsewhere_than_on_a_terminal_progress_is_a_few_lines(capsys):
    with ProgressBar("encoding", "images", 1000) as bar:
        for done in range(1001):
            bar.update(done)
        bar.note("done")
    lines = capsys.readouterr().err.splitlines()
    assert lines == [f"encoding: {n} of 1000 images" for n in range(100, 1001, 100)] + ["done"]


def test_bytes_of_unknown_total_are_told_too(capsys):
    with ProgressBar("downloading", "B") as bar:
        for done in range(0, 350_000_000, 7_000_000):
            bar.update(done, None)
    lines = capsys.readouterr().err.splitlines()
    assert [line.split(": ")[1] for line in lines] == ["105.0 MB", "203.0 MB", "301.0 MB"]


def test_on_a_terminal_progress_is_a_bar_that_may_go_back(monkeypatch):
    terminal = io.StringIO()
    terminal.isatty = lambda: True
    monkeypatch.setattr(sys, "stderr", terminal)
    with ProgressBar("downloading", "B") as bar:
        bar.update(0, 4_000_000)
        bar.update(3_000_000, 4_000_000)
        bar.note("the connection was cut")
        bar.update(0, 4_000_000)
        bar.update(4_000_000, 4_000_000)
    text = terminal.getvalue()
    assert "downloading: 100%" in text and "4.00M/4.00M" in text
    assert "the connection was cut" in text
