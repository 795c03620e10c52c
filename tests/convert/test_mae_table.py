from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from flax.traverse_util import flatten_dict
from transformers import ViTMAEConfig, ViTMAEForPreTraining

from convert.mae.table import (
    entries,
    from_state_dict,
    infer_config,
    read_mae,
    to_state_dict,
)
from convert.tables import HUGGING_FACE, NAMINGS, OFFICIAL
from sam_jax.configs import MAE_CONFIGS, MAE_TEST, MAE_VIT_H, MaeConfig
from sam_jax.errors import CheckpointError
from sam_jax.models.mae.mae import MaskedAutoencoder

# As the original writes them for two blocks and one (models_mae.py); `mae_pretrain_*.pth` has the
# first list alone, `mae_visualize_*.pth` both.
BLOCK = "norm1 attn.qkv attn.proj norm2 mlp.fc1 mlp.fc2".split()
KINDS = ("weight", "bias")
ENCODER_NAMES = {
    "cls_token",
    "pos_embed",
    *(f"{name}.{kind}" for name in ("patch_embed.proj", "norm") for kind in KINDS),
    *(f"blocks.{i}.{name}.{kind}" for i in range(2) for name in BLOCK for kind in KINDS),
}
DECODER_NAMES = {
    "mask_token",
    "decoder_pos_embed",
    *(f"decoder_{n}.{kind}" for n in ("embed", "norm", "pred") for kind in KINDS),
    *(f"decoder_blocks.0.{name}.{kind}" for name in BLOCK for kind in KINDS),
}
# Names of transformers 5, and those of the files that were published before.
PUBLISHED = (
    ("vit.layers.", "vit.encoder.layer."),
    (".attention.q_proj.", ".attention.attention.query."),
    (".attention.k_proj.", ".attention.attention.key."),
    (".attention.v_proj.", ".attention.attention.value."),
    (".attention.o_proj.", ".attention.output.dense."),
    (".mlp.fc1.", ".intermediate.dense."),
    (".mlp.fc2.", ".output.dense."),
)


def shapes_of(config: MaeConfig):
    side, patches = config.image_size, config.grid_size**2
    return jax.eval_shape(
        MaskedAutoencoder(config).init,
        jax.random.key(0),
        jax.ShapeDtypeStruct((1, side, side, 3), jnp.float32),
        jax.ShapeDtypeStruct((1, patches), jnp.float32),
    )


@pytest.fixture(scope="module")
def variables():
    rng = np.random.default_rng(0)
    return jax.tree.map(lambda x: rng.standard_normal(x.shape, np.float32), shapes_of(MAE_TEST))


def encoder_of(variables):
    return {"params": {"image_encoder": variables["params"]["image_encoder"]}}


def assert_equal(found, expected):
    assert jax.tree.structure(found) == jax.tree.structure(expected)
    assert all(jax.tree.leaves(jax.tree.map(np.array_equal, found, expected)))


@pytest.mark.parametrize("config", MAE_CONFIGS.values(), ids=MAE_CONFIGS)
def test_the_table_has_every_array_of_the_model_once(config):
    natives = [entry.native for entry in entries(config)]
    assert len(set(natives)) == len(natives)
    assert set(natives) == flatten_dict(shapes_of(config), sep="/").keys()


def test_the_official_names_are_the_originals(variables):
    assert to_state_dict(MAE_TEST, variables).keys() == ENCODER_NAMES | DECODER_NAMES
    assert to_state_dict(MAE_TEST, encoder_of(variables)).keys() == ENCODER_NAMES


def test_hugging_faces_model_takes_the_exported_tensors(variables):
    tensors = {
        name: torch.from_numpy(np.array(value))
        for name, value in to_state_dict(MAE_TEST, variables, HUGGING_FACE).items()
    }
    config = MAE_TEST
    model = ViTMAEForPreTraining(
        ViTMAEConfig(
            hidden_size=config.embed_dim,
            num_hidden_layers=config.depth,
            num_attention_heads=config.num_heads,
            intermediate_size=config.mlp_dim,
            image_size=config.image_size,
            decoder_hidden_size=config.decoder_embed_dim,
            decoder_num_hidden_layers=config.decoder_depth,
            decoder_num_attention_heads=config.decoder_num_heads,
            decoder_intermediate_size=config.decoder_mlp_dim,
        )
    )
    assert model.state_dict().keys() == tensors.keys()
    # Refuses other shapes.
    model.load_state_dict(tensors)


@pytest.mark.parametrize("naming", NAMINGS)
def test_there_and_back_is_the_same_bit_for_bit(variables, naming):
    for tree in (variables, encoder_of(variables)):
        tensors = to_state_dict(MAE_TEST, tree, naming)
        assert_equal(from_state_dict(MAE_TEST, tensors, naming), tree)


def test_files_with_hugging_faces_earlier_names_give_the_same(variables):
    tensors = {}
    for name, value in to_state_dict(MAE_TEST, variables, HUGGING_FACE).items():
        for new, published in PUBLISHED:
            name = name.replace(new, published)
        tensors[name] = value
    assert "decoder.decoder_layers.0.attention.attention.query.weight" in tensors
    assert "vit.encoder.layer.1.output.dense.bias" in tensors
    assert_equal(from_state_dict(MAE_TEST, tensors, HUGGING_FACE), variables)


@pytest.mark.parametrize("whole", [True, False])
def test_a_file_is_read_by_its_shapes(variables, tmp_path, whole):
    tree = variables if whole else encoder_of(variables)
    tensors = to_state_dict(MAE_TEST, tree)
    path = tmp_path / "mae_pretrain_vit_test.pth"
    torch.save({"model": {n: torch.from_numpy(np.array(x)) for n, x in tensors.items()}}, path)
    config, found, naming = read_mae(path)
    assert (config, naming) == (MAE_TEST, OFFICIAL)
    assert_equal(found, tree)


def test_larger_images_are_told_from_the_position_table():
    tensors = {
        "cls_token": np.zeros((1, 1, 1280)),
        "pos_embed": np.zeros((1, 18 * 18 + 1, 1280)),
        "patch_embed.proj.weight": np.zeros((1280, 3, 14, 14)),
        **{f"blocks.{i}.norm1.weight": np.zeros(1280) for i in range(32)},
    }
    assert infer_config(tensors, OFFICIAL) == replace(MAE_VIT_H, image_size=252)
    del tensors["blocks.31.norm1.weight"]
    with pytest.raises(CheckpointError, match="31 blocks.*give the configuration"):
        infer_config(tensors, OFFICIAL)


def test_one_report_lists_everything_that_is_wrong(variables):
    tensors = to_state_dict(MAE_TEST, variables)
    del tensors["norm.bias"]
    tensors["head.weight"] = np.zeros((1000, 32), np.float32)
    tensors["mask_token"] = np.zeros((1, 1, 3), np.float32)
    with pytest.raises(CheckpointError) as error:
        from_state_dict(MAE_TEST, tensors)
    assert str(error.value).split("\n")[1:] == [
        "  missing: norm.bias",
        "  unexpected: head.weight",
        "  wrong shape: mask_token is (1, 1, 3), not (1, 1, 16)",
    ]


@pytest.mark.parametrize("name", ["pos_embed", "decoder_pos_embed"])
def test_positions_that_are_not_the_fixed_ones_are_refused(variables, name):
    tensors = to_state_dict(MAE_TEST, variables)
    tensors[name] = tensors[name] + 0.01
    with pytest.raises(CheckpointError, match=f"{name} is not the fixed table"):
        from_state_dict(MAE_TEST, tensors)
    tensors[name] = tensors[name][:, :-1]
    with pytest.raises(CheckpointError, match=f"wrong shape: {name}"):
        from_state_dict(MAE_TEST, tensors)


def test_files_of_other_models_are_refused(tmp_path):
    path = tmp_path / "other.pth"
    torch.save({"image_encoder.pos_embed": torch.zeros(3)}, path)
    with pytest.raises(CheckpointError, match="holds no masked autoencoder"):
        read_mae(path)
