"""The image encoder stage by stage against the original."""

from dataclasses import replace
from functools import partial

import jax.numpy as jnp
import numpy as np
import original
import pytest
import torch
from closeness import assert_close
from quick_compile import quick_jit

from sam_jax.configs import TEST
from sam_jax.models.sam.sam import Sam

# Tokens. The tables are stored for 8x8 and windows are of 3: one grid fits the tables, none fits
# the windows in both directions but the last two; some are flat, odd, smaller or larger.
GRIDS = [(8, 8), (7, 10), (10, 7), (3, 5), (1, 4), (6, 9), (12, 15)]


def images(grid_hw, patch=16, batch=2, seed=0):
    shape = (batch, patch * grid_hw[0], patch * grid_hw[1], 3)
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def original_stages(model, x, grid_hw):
    """Outputs of the patch embedding, every block, every layer of the neck, all NHWC."""
    encoder, found = model.image_encoder, {}
    parts = {"patch_embed": encoder.patch_embed}
    parts |= {f"blocks_{i}": block for i, block in enumerate(encoder.blocks)}
    for name, layer in zip(("conv1", "norm1", "conv2", "norm2"), encoder.neck, strict=True):
        parts[f"neck/{name}"] = layer

    def keep(name):
        channels_last = not name.startswith("neck")
        return lambda module, args, out: found.__setitem__(
            name, out.numpy() if channels_last else out.permute(0, 2, 3, 1).numpy()
        )

    hooks = [part.register_forward_hook(keep(name)) for name, part in parts.items()]
    with original.at_grid(model, grid_hw):
        out = encoder(torch.from_numpy(x).permute(0, 3, 1, 2))
    for hook in hooks:
        hook.remove()
    return found, out.permute(0, 2, 3, 1).numpy()


def our_stages(config, variables, x):
    encode = partial(
        Sam(config).apply,
        method="encode_image",
        capture_intermediates=True,
        mutable=["intermediates"],
    )
    out, state = quick_jit(encode)(variables, jnp.asarray(x))
    tree = state["intermediates"]["image_encoder"]
    found = {}
    for name, part in tree.items():
        if name == "neck":
            found |= {f"neck/{k}": v["__call__"][0] for k, v in part.items() if k != "__call__"}
        elif name != "__call__":
            found[name] = part["__call__"][0]
    return found, out.embedding


@pytest.mark.parametrize("grid_hw", GRIDS)
def test_every_stage_equals_the_originals(small, grid_hw):
    model, variables = small
    x = images(grid_hw)
    expected, expected_out = original_stages(model, x, grid_hw)
    ours, out = our_stages(TEST, variables, x)
    assert ours.keys() == expected.keys()
    assert len(ours) == 1 + TEST.image_encoder.depth + 4
    for name, reference in expected.items():
        assert_close(ours[name], reference, what=name)
    assert_close(out, expected_out, what="embedding")


@pytest.mark.parametrize(
    "changes",
    [
        {"window_size": 4, "depth": 4, "global_attention_indexes": (0, 3)},
        {"window_size": 14, "num_heads": 4, "global_attention_indexes": ()},
        {"depth": 1, "global_attention_indexes": (0,), "embed_dim": 48, "mlp_dim": 120},
    ],
    ids=["windows fit the grid", "windows larger than the grid", "global only"],
)
def test_other_shapes_of_encoder_equal_the_originals(changes):
    config = replace(TEST, image_encoder=replace(TEST.image_encoder, **changes))
    model = original.build(config, seed=2)
    x = images((8, 8), batch=1)
    expected, _ = original_stages(model, x, (8, 8))
    ours, _ = our_stages(config, original.variables(model, config), x)
    assert ours.keys() == expected.keys()
    for name, reference in expected.items():
        assert_close(ours[name], reference, what=name)


def test_a_grid_of_many_blocks_of_queries_equals_the_original(small):
    model, variables = small
    # 1,221 tokens: attention goes block by block, and the last block is part padding.
    grid_hw = (33, 37)
    x = images(grid_hw, batch=1)
    expected, expected_out = original_stages(model, x, grid_hw)
    ours, out = our_stages(TEST, variables, x)
    assert_close(ours["blocks_1"], expected["blocks_1"], what="global block")
    assert_close(out, expected_out, what="embedding")
