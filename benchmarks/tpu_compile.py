"""What XLA's TPU compiler makes of the models, on a machine without a TPU.

    pip install "sam-jax[tpu]"
    python benchmarks/tpu_compile.py [--models vit_b,vit_h] [--devices v5e,v5p,v6e] [--json FILE]

Lowers and compiles the image encoder and the mask decoder (64 prompts) for one chip of each kind,
from shapes alone, with the compiler in `libtpu`, and prints a Markdown table. What the columns are:

* temporaries, arguments, output: bytes in the chip's memory, as the compiler has laid them out.
  A program that would not fit is refused by the compiler, and its row says so.
* FLOPs, bytes accessed: the compiler's count. Pallas kernels enter it with the cost they declare.
  A loop's body is counted once, not as often as it runs; "loops" says how many the program has.
* estimate: `optimal_seconds`, for v5p only: for other chips the compiler's value is not sane.
* cycles: what the compiler's schedule gives each instruction, summed; time at which memory is
  waited for is not in it, Pallas kernels are not either, and bodies of loops count once here too.
"""

import argparse
import functools
import json
import os
import re
import sys
import time
from pathlib import Path
from typing import Any

# One host of each kind, the smallest its topology comes in: the programs are for a single chip.
TOPOLOGIES = {"v5e": "v5e:2x2", "v5p": "v5p:2x2x1", "v6e": "v6e:2x2"}
MODELS = ("vit_b", "vit_l", "vit_h")
PROGRAMS = ("encoder", "decoder")
ESTIMATED = ("v5p",)
PROMPTS = 64
# libtpu asks the machine what it is unless told, and waits for an answer that never comes.
ENVIRONMENT = {
    "TPU_SKIP_MDS_QUERY": "1",
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "TPU_ACCELERATOR_TYPE": "v5litepod-4",
    "JAX_PLATFORMS": "cpu",
}


def encoder_program(model: Any, batch: int) -> tuple[Any, tuple[Any, ...]]:
    """The image encoder, and the shapes of what it is given beside the parameters."""
    import jax
    import jax.numpy as jnp

    side = model.config.image_size
    images = jax.ShapeDtypeStruct((batch, side, side, 3), jnp.float32)
    return functools.partial(model.apply, method="encode_image"), (images,)


def decoder_program(model: Any, batch: int) -> tuple[Any, tuple[Any, ...]]:
    """Prompts to low-resolution logits and scores; one point and its padding each."""
    import jax
    import jax.numpy as jnp

    from sam_jax.models.features import ImageFeatures
    from sam_jax.types import Prompts

    config = model.config
    side = config.image_size // config.image_encoder.patch_size
    shape = jax.ShapeDtypeStruct
    embedding, *finer = (shape((batch, *one), jnp.float32) for one in config.feature_shapes(side))
    features = ImageFeatures(embedding, tuple(finer))
    points = shape((batch, PROMPTS, 2, 2), jnp.float32)
    labels = shape((batch, PROMPTS, 2), jnp.int32)

    def decode(params, features, points, labels):
        return model.apply(
            params, features, Prompts(points=points, labels=labels), True, method="decode"
        )

    return decode, (features, points, labels)


def compile_program(
    program: str, name: str, device: Any, dtype: str, batch: int, attention: str
) -> Any:
    """The program compiled for one device."""
    import jax
    import jax.numpy as jnp

    from sam_jax import Sam
    from sam_jax.configs import CONFIGS
    from sam_jax.models.sam.sam import variable_shapes

    build = {"encoder": encoder_program, "decoder": decoder_program}[program]
    # Forced, as the platform that would choose is the CPU here.
    function, inputs = build(Sam(CONFIGS[name], jnp.dtype(dtype), attention=attention), batch)
    sharding = jax.sharding.SingleDeviceSharding(device)
    arguments = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding),
        (variable_shapes(CONFIGS[name]), *inputs),
    )
    return jax.jit(function).lower(*arguments).compile()


def scheduled_cycles(text: str) -> int:
    """Cycles of all instructions; those inside a fusion carry none of their own."""
    return sum(int(cycles) for cycles in re.findall(r'"estimated_cycles":"(\d+)"', text))


def measure(compiled: Any, kind: str, batch: int) -> dict[str, Any]:
    """One row's numbers: memory of the program, the rest per image."""
    memory, cost, text = compiled.memory_analysis(), compiled.cost_analysis(), compiled.as_text()
    row = {
        "temporaries": memory.temp_size_in_bytes,
        "arguments": memory.argument_size_in_bytes,
        "output": memory.output_size_in_bytes,
        "flops": cost["flops"] / batch,
        "bytes_accessed": cost["bytes accessed"] / batch,
        "cycles": scheduled_cycles(text) / batch,
        "loops": text.count(" while("),
    }
    if kind in ESTIMATED:
        row["optimal_seconds"] = cost["optimal_seconds"] / batch
    return row


HEADINGS = (
    ("program", "model", "type", "batch", "chip")
    + ("temporaries, MB", "arguments, MB", "output, MB")
    + ("GFLOP an image", "GB accessed an image", "estimate, ms an image")
    + ("cycles an image, millions", "loops")
)


def markdown(row: dict[str, Any]) -> str:
    """The row as a line of the table."""
    cells = [row["program"], row["model"], row["dtype"], str(row["batch"]), row["device"]]
    if "failure" in row:
        return f"| {' | '.join(cells)} | {row['failure']} |" + " |" * (len(HEADINGS) - 6)
    cells += [f"{row[name] / 1e6:,.1f}" for name in ("temporaries", "arguments", "output")]
    cells += [f"{row['flops'] / 1e9:,.0f}", f"{row['bytes_accessed'] / 1e9:.2f}"]
    seconds = row.get("optimal_seconds")
    cells += ["" if seconds is None else f"{1e3 * seconds:.2f}"]
    cells += [f"{row['cycles'] / 1e6:.2f}", str(row["loops"])]
    return f"| {' | '.join(cells)} |"


def tpu_devices(kinds: list[str]) -> dict[str, Any]:
    """One described (not present) chip of each kind."""
    try:
        import libtpu  # noqa: F401
    except ImportError:
        sys.exit('no TPU compiler: pip install "sam-jax[tpu]" (or "libtpu") in this environment')
    from jax.experimental import topologies

    return {
        kind: topologies.get_topology_desc(platform="tpu", topology_name=TOPOLOGIES[kind]).devices[
            0
        ]
        for kind in kinds
    }


def names_of(choices: tuple[str, ...]) -> Any:
    """An argument type: names separated by commas."""

    def parse(value: str) -> list[str]:
        names = value.split(",")
        for name in names:
            if name not in choices:
                raise argparse.ArgumentTypeError(f"{name!r} is none of {', '.join(choices)}")
        return names

    return parse


def positive(value: str) -> int:
    """An argument type: 1, 2, ..."""
    if not value.isdecimal() or int(value) < 1:
        raise argparse.ArgumentTypeError(f"{value!r} is no positive number")
    return int(value)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--programs", type=names_of(PROGRAMS), default=list(PROGRAMS))
    parser.add_argument("--models", type=names_of(MODELS), default=list(MODELS))
    parser.add_argument("--devices", type=names_of(tuple(TOPOLOGIES)), default=list(TOPOLOGIES))
    parser.add_argument("--batch", type=positive, default=1, help="images at once")
    parser.add_argument("--dtype", choices=("bfloat16", "float32"), default="bfloat16")
    parser.add_argument("--attention", default="tpu", help="implementation of grid attention")
    parser.add_argument("--json", type=Path, help="also write the numbers, in bytes and seconds")
    parser.add_argument("--text", type=Path, help="also write the compiled programs to this folder")
    arguments = parser.parse_args()
    os.environ.update(ENVIRONMENT)
    devices = tpu_devices(arguments.devices)

    import jax

    from sam_jax.ops.attention import IMPLEMENTATIONS

    if arguments.attention not in IMPLEMENTATIONS:
        parser.error(f"--attention is one of {', '.join(IMPLEMENTATIONS)}")
    rows = []
    print(f"| {' | '.join(HEADINGS)} |")
    print("|" + "---|" * len(HEADINGS))
    for program in arguments.programs:
        # The decoder is the same in every model.
        for name in arguments.models if program == "encoder" else arguments.models[:1]:
            for kind, device in devices.items():
                row = {"program": program, "model": name, "dtype": arguments.dtype}
                row |= {"batch": arguments.batch, "device": kind}
                started = time.perf_counter()
                try:
                    compiled = compile_program(
                        program,
                        name,
                        device,
                        arguments.dtype,
                        arguments.batch,
                        arguments.attention,
                    )
                    row |= measure(compiled, kind, arguments.batch)
                    if arguments.text:
                        arguments.text.mkdir(parents=True, exist_ok=True)
                        file = f"{program}_{name}_{arguments.dtype}_{arguments.batch}_{kind}.txt"
                        (arguments.text / file).write_text(compiled.as_text())
                except jax.errors.JaxRuntimeError as error:
                    row["failure"] = str(error).splitlines()[0][:100]
                row["compile_seconds"] = round(time.perf_counter() - started, 1)
                rows.append(row)
                print(markdown(row), flush=True)
    if arguments.json:
        text = json.dumps({"jax": jax.__version__, "rows": rows}, indent=1)
        aside = arguments.json.with_suffix(".part")
        aside.write_text(text + "\n")
        aside.replace(arguments.json)


if __name__ == "__main__":
    main()
