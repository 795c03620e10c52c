"""What XLA's TPU compiler makes of tracking, on a machine without a TPU.

    pip install "sam-jax[tpu]"
    python benchmarks/tpu_video.py [--models sam2.1_tiny,sam2.1_base_plus] [--objects 1,4,16]

The programs of one step of `Tracker`: a frame encoded, and all objects followed in it with room for
8 frames with prompts and 7 recent ones. Columns are those of `benchmarks/tpu_compile.py`; all are
of one frame, and the body of a loop over memories is counted once.
"""

import argparse
import os
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

from tpu_compile import ENVIRONMENT, HEADINGS, markdown, measure, names_of, tpu_devices  # noqa: E402

MODELS = ("sam2.1_tiny", "sam2.1_small", "sam2.1_base_plus", "sam2.1_large")
DEVICES = ("v5e", "v5p", "v6e")
CONDITIONING, RECENT = 8, 7


def compile_step(name: str, objects: int, device: Any, dtype: str) -> Any:
    """The program compiled for one device; `objects` 0 is the encoder."""
    import jax
    import jax.numpy as jnp

    from sam_jax.models.sam2 import hiera, memory_attention
    from sam_jax.models.sam2.config import SAM2_CONFIGS
    from sam_jax.models.sam2.sam2 import Sam2, variable_shapes
    from sam_jax.ops import depthwise
    from sam_jax.video import programs
    from sam_jax.video.state import empty_bank

    # What chooses by platform would see the machine that compiles.
    for module in (programs, hiera, memory_attention, depthwise):
        module.traced_platform = lambda: "tpu"
    config = SAM2_CONFIGS[name]
    model = Sam2(config, jnp.dtype(dtype))
    sharding = jax.sharding.SingleDeviceSharding(device)

    def placed(tree: Any) -> Any:
        return jax.tree.map(
            lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), tree
        )

    params = placed(variable_shapes(config))
    image = placed(jax.ShapeDtypeStruct((config.image_size, config.image_size, 3), jnp.float32))
    if not objects:
        return programs.encode_frame.lower(model, params, image).compile()
    features = placed(
        jax.eval_shape(lambda p, x: programs.encode_frame(model, p, x), params, image)
    )
    bank = placed(
        jax.eval_shape(lambda: empty_bank(config, objects, CONDITIONING, RECENT, jnp.bfloat16))
    )
    number = placed(jax.ShapeDtypeStruct((), jnp.int32))
    rules = programs.TrackingRules()
    lowered = programs.follow.lower(model, rules, params, bank, features, number, number, number)
    return lowered.compile()


def main() -> None:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--models", type=names_of(MODELS), default=["sam2.1_tiny"])
    parser.add_argument("--devices", type=names_of(DEVICES), default=["v5e", "v5p"])
    parser.add_argument("--objects", default="1,4,16", help="how many are followed")
    parser.add_argument("--dtype", choices=("bfloat16", "float32"), default="bfloat16")
    arguments = parser.parse_args()
    os.environ.update(ENVIRONMENT)
    devices = tpu_devices(arguments.devices)

    import jax

    print(f"| {' | '.join(HEADINGS)} |")
    print("|" + "---|" * len(HEADINGS))
    for name in arguments.models:
        for objects in (0, *map(int, arguments.objects.split(","))):
            for kind, device in devices.items():
                program = f"follow {objects}" if objects else "encode frame"
                row = {"program": program, "model": name, "dtype": arguments.dtype}
                row |= {"batch": 1, "device": kind}
                try:
                    compiled = compile_step(name, objects, device, arguments.dtype)
                    row |= measure(compiled, kind, 1)
                except jax.errors.JaxRuntimeError as error:
                    row["failure"] = str(error).splitlines()[0][:100]
                print(markdown(row), flush=True)


if __name__ == "__main__":
    main()
