"""What XLA's TPU compiler makes of the paper's training steps, on a machine without a TPU.

    pip install "sam-jax[tpu]"
    python benchmarks/tpu_training.py [--recipes vit_b,vit_l,vit_h] [--topology v5p:4x4x4]

Lowers and compiles one whole update of each recipe, from shapes alone, for a described pod, and
prints a Markdown table: memory of one chip, and what the compiler counts for one chip (a loop's
body is counted once, and the passes of interactive training are a loop).
"""

import argparse
import os
import sys
import time
from functools import partial
from typing import Any

from tpu_compile import ENVIRONMENT, names_of, positive

RECIPES = ("vit_b", "vit_l", "vit_h")
HEADINGS = (
    "recipe",
    "chips",
    "images a chip",
    "arguments, MB",
    "temporaries, MB",
    "all, GB of a chip",
    "GFLOP a chip, loops once",
    "compiled in, s",
)


def compile_update(recipe: str, topology: str, model_devices: int) -> tuple[Any, int, int]:
    """The recipe's update, compiled; the chips, and the images of each along `data`."""
    import jax
    import jax.numpy as jnp
    from jax.experimental import topologies

    from sam_jax.data.batches import TrainingBatch
    from sam_jax.models.sam.sam import Sam, variable_shapes
    from sam_jax.sharding import DATA, MODEL, make_mesh, split_heads
    from sam_jax.train.config import config_from_values, read_values
    from sam_jax.train.loop.optimizer import make_optimizer
    from sam_jax.train.loop.placement import batch_sharding, compile_update, state_shardings
    from sam_jax.train.loop.step import initial_state, make_update
    from sam_jax.train.loop.tasks import interactive_loss

    config = config_from_values(read_values(recipe, ["data.path=unused"]))
    architecture = config.sam
    described = topologies.get_topology_desc(platform="tpu", topology_name=topology)
    mesh = make_mesh(model=model_devices, devices=described.devices)
    # Forced, as the platform that would choose is the CPU here.
    model = Sam(
        architecture,
        dtype=jnp.dtype(config.model.dtype),
        remat=config.model.remat,
        attention="tpu",
        drop_path=config.model.drop_path,
        decoder_dropout=config.model.decoder_dropout,
        model_axis=MODEL if model_devices > 1 else None,
    )
    variables = jax.eval_shape(partial(split_heads, architecture), variable_shapes(architecture))
    depth = architecture.image_encoder.depth
    optimizer = make_optimizer(config.optimizer, variables["params"], depth)
    update = make_update(interactive_loss(model, config.interaction), optimizer, mesh)
    state = jax.eval_shape(lambda v: initial_state(v, optimizer, 0), variables)
    count, side, masks = config.data.batch_size, architecture.image_size, config.data.max_masks
    shape = jax.ShapeDtypeStruct
    batch = TrainingBatch(
        images=shape((count, side, side, 3), jnp.uint8),
        sizes_hw=shape((count, 2), jnp.int32),
        masks=shape((count, masks, side, side // 8), jnp.uint8),
        weights=shape((count, masks), jnp.float32),
    )

    def placed(x: Any, sharding: Any) -> Any:
        return shape(x.shape, x.dtype, sharding=sharding)

    arguments = (
        jax.tree.map(placed, state, state_shardings(state, mesh)),
        jax.tree.map(lambda x: placed(x, batch_sharding(mesh)), batch),
    )
    compiled = compile_update(update, state, mesh).lower(*arguments).compile()
    return compiled, mesh.size, count // mesh.shape[DATA]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--recipes", type=names_of(RECIPES), default=list(RECIPES))
    parser.add_argument("--topology", default="v5p:4x4x4")
    parser.add_argument("--model", type=positive, default=1, help="chips that share an image")
    arguments = parser.parse_args()
    os.environ.update(ENVIRONMENT)
    try:
        import libtpu  # noqa: F401
    except ImportError:
        sys.exit('no TPU compiler: pip install "sam-jax[tpu]" (or "libtpu") in this environment')
    print(f"| {' | '.join(HEADINGS)} |")
    print("|" + "---|" * len(HEADINGS))
    for recipe in arguments.recipes:
        started = time.perf_counter()
        compiled, chips, images = compile_update(recipe, arguments.topology, arguments.model)
        memory, cost = compiled.memory_analysis(), compiled.cost_analysis()
        whole = memory.argument_size_in_bytes + memory.temp_size_in_bytes
        whole += memory.output_size_in_bytes - memory.alias_size_in_bytes
        cells = [recipe, str(chips), str(images)]
        cells += [f"{memory.argument_size_in_bytes / 1e6:,.0f}"]
        cells += [f"{memory.temp_size_in_bytes / 1e6:,.0f}", f"{whole / 1e9:.1f}"]
        cells += [f"{cost['flops'] / 1e9:,.0f}"]
        cells += [f"{time.perf_counter() - started:.0f}"]
        print(f"| {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
