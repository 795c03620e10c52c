"""The one private name of JAX in use does what it is used for, in every JAX that is supported."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
PROCESS = """
import json, sys
import jax
from sam_jax.folder_runs import process_numbers
port, index = sys.argv[1:]
jax.distributed.initialize(f"localhost:{port}", 2, int(index))
joined = process_numbers.joined()
jax.distributed.shutdown()
process_numbers.forget()
numbers = jax.process_index(), jax.process_count(), len(jax.devices()), jax.devices()[0].id
print(json.dumps([joined, numbers, jax.distributed.is_initialized()]))
"""


def test_a_process_knows_its_number_and_is_alone_again_after():
    with socket.create_server(("localhost", 0)) as server:
        port = str(server.getsockname()[1])
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"}
    environment.pop("XLA_FLAGS", None)
    words = [[sys.executable, "-c", PROCESS, port, str(index)] for index in range(2)]
    processes = [
        subprocess.Popen(each, stdout=subprocess.PIPE, text=True, env=environment) for each in words
    ]
    said = [process.communicate(timeout=120)[0] for process in processes]
    alone = [0, 1, 1, 0]
    assert [json.loads(line) for line in said] == [[[i, 2], alone, False] for i in range(2)]
