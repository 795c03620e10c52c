"""A run that compiles at once and can be made to die: python toy_run.py FOLDER [SPEC].

SPEC: "step:N" dies by SIGKILL before batch N is drawn, "call:METHOD:N" as the N-th call of a method
of `RunCheckpoints` returns, "bad:N" makes batch N infinite, "term:N" is sent SIGTERM at batch N.
"""

import os
import signal
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import tensorboardX  # noqa: F401  # which a run imports when it begins: not in every fork

from sam_jax.errors import InputError
from sam_jax.sharding import make_mesh
from sam_jax.train.loop.loop import Job, run_folder, run_job
from sam_jax.train.loop.optimizer import OptimizerOptions
from sam_jax.train.loop.run_checkpoints import RunCheckpoints
from sam_jax.train.loop.state import Summed
from sam_jax.train.options import RunOptions

STEPS, EVERY, BATCH = 23, 5, 4


class ToyBatches:
    def __init__(self, spec):
        self.drawn, self.spec = 0, spec

    def __next__(self):
        self.drawn += 1
        if self.spec == f"step:{self.drawn}":
            os.kill(os.getpid(), signal.SIGKILL)
        if self.spec == f"term:{self.drawn}":
            os.kill(os.getpid(), signal.SIGTERM)
        values = np.random.default_rng(self.drawn).normal(size=(BATCH, 128)).astype(np.float32)
        values = values.reshape(jax.process_count(), -1, 128)[jax.process_index()]
        return values * (np.inf if self.spec == f"bad:{self.drawn}" else 1)

    def get_state(self):
        return {"drawn": self.drawn}

    def set_state(self, state):
        self.drawn = state["drawn"]

    def skipped(self):
        return {}

    def close(self):
        print("batches are closed")


def loss(params, constants, batch, keys):
    noise = jax.vmap(lambda key: jax.random.normal(key, (128,)))(keys)
    error = (batch + 0.1 * noise) @ params["layer"]["kernel"] * constants["scale"]["x"] - 1
    return Summed(jnp.square(error).sum(), jnp.float32(len(batch)), {"error": error.sum()})


def variables():
    kernel = jax.random.normal(jax.random.key(1), (128, 256)) * 0.1
    return {"params": {"layer": {"kernel": kernel}}, "scale": {"x": jnp.float32(0.5)}}


def export(variables, path):
    np.save(path.with_suffix(".npy"), variables["params"]["layer"]["kernel"])


def dying(spec):
    """Makes a method's N-th call the process's last."""
    _, name, number = spec.split(":")
    method, calls = getattr(RunCheckpoints, name), []

    def replaced(*args, **kwargs):
        result = method(*args, **kwargs)
        calls.append(name)
        if len(calls) == int(number):
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    setattr(RunCheckpoints, name, replaced)


def main(folder, spec=""):
    if spec.startswith("call:"):
        dying(spec)
    shapes = jax.ShapeDtypeStruct((BATCH, 128), jnp.float32)
    job = Job(variables, loss, ToyBatches(spec), BATCH, 1, export, shapes, ["lower BATCH"])
    optimizer = OptimizerOptions(steps=STEPS, warmup_steps=3, decay_steps=(15,))
    options = RunOptions(checkpoint_every=EVERY, log_every=4)
    folder = Path(folder)

    def changed(earlier, values):
        return [key for key in values if earlier.get(key) != values[key]]

    with run_folder(folder, {"steps": STEPS}, changed) as begin:
        run_job(job, optimizer, options, make_mesh(devices=jax.devices()), folder, begin, print)


def command(*words):
    try:
        main(*words)
    except InputError as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    command(*sys.argv[1:])
