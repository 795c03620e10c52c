import dataclasses
import json
import math
from dataclasses import replace

import jax
import numpy as np
import pytest

import sam_jax
from sam_jax.configs import (
    CONFIGS,
    MAE_CONFIGS,
    MAE_VIT_B,
    TEST,
    TINY,
    VIT_B,
    VIT_H,
    VIT_L,
    HybridEncoderConfig,
    check_mae_config,
    config_from_json,
    config_to_json,
)
from sam_jax.errors import CheckpointError, InputError
from sam_jax.models.sam.sam import variable_shapes


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_a_configuration_survives_json(config):
    assert config_from_json(json.loads(json.dumps(config_to_json(config)))) == config


def test_every_preset_is_a_public_name():
    assert all(getattr(sam_jax, name.upper()) is config for name, config in CONFIGS.items())


def without(values, key):
    return {k: v for k, v in values.items() if k != key}


def encoder_json(**changes):
    """A hybrid encoder's configuration with other values; None takes one away."""
    values = config_to_json(TINY)
    encoder = {**values["image_encoder"], **changes}
    encoder = {k: v for k, v in encoder.items() if v is not None}
    return {**values, "image_encoder": encoder}


@pytest.mark.parametrize(
    "values, says",
    [
        ([], "JSON object"),
        (without(config_to_json(VIT_B), "embed_dim"), "missing keys ['embed_dim']"),
        ({**config_to_json(VIT_B), "color": 1}, "unknown keys ['color']"),
        ({**config_to_json(VIT_B), "embed_dim": "256"}, "embed_dim must be int"),
        ({**config_to_json(VIT_B), "embed_dim": True}, "embed_dim must be int"),
        ({**config_to_json(VIT_B), "pixel_mean": 3}, "pixel_mean must be a list"),
        ({**config_to_json(VIT_B), "pixel_mean": [1, 2, None]}, "pixel_mean[2] must be float"),
        ({**config_to_json(VIT_B), "image_encoder": {}}, "image_encoder: missing keys"),
        ({**config_to_json(TINY), "image_encoder": 3}, "image_encoder must be a JSON object"),
        (encoder_json(patch_size=8), "unknown keys ['stem_dims']"),
        (encoder_json(window_size=8), "missing keys [], unknown keys ['window_size']"),
        (encoder_json(depth=None), "missing keys ['depth'], unknown keys []"),
        (encoder_json(stem_dims=[16, 48]), "stem_dims must be a list of 3, not [16, 48]"),
        (encoder_json(stem_dims=[16, 48, "96"]), "stem_dims[2] must be int, not '96'"),
        (encoder_json(stem_dims=16), "stem_dims must be a list, not 16"),
    ],
)
def test_json_that_is_no_configuration_is_refused_with_the_reason(values, says):
    with pytest.raises(CheckpointError) as error:
        config_from_json(values)
    assert says in str(error.value)


@pytest.mark.parametrize(
    "config, millions",
    # The original's own counts, its one buffer not included.
    [(VIT_B, 93.735472), (VIT_L, 312.342832), (VIT_H, 641.090608)],
    ids=["vit_b", "vit_l", "vit_h"],
)
def test_presets_have_the_originals_number_of_parameters(config, millions):
    shapes = variable_shapes(config)["params"]
    assert sum(np.prod(leaf.shape) for leaf in jax.tree.leaves(shapes)) == round(millions * 1e6)


def test_mask_prompts_are_a_quarter_of_the_input():
    assert VIT_B.mask_input_size == 256 and TINY.mask_input_size == 128
    assert dataclasses.replace(TEST, image_size=96).mask_input_size == 24


def test_only_a_hybrid_encoder_has_finer_features_beside_the_embedding():
    for config in CONFIGS.values():
        hybrid = isinstance(config.image_encoder, HybridEncoderConfig)
        assert config.has_finer_features == hybrid == (config is TINY)
        assert len(config.feature_shapes(4)) == (3 if hybrid else 1)
    assert TINY.feature_shapes(32) == ((32, 32, 96), (64, 64, 24), (128, 128, 12))


@pytest.mark.parametrize("config", MAE_CONFIGS.values(), ids=MAE_CONFIGS)
def test_masked_autoencoders_are_accepted(config):
    check_mae_config(config)


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"depth": 0}, "depth must be at least 1, not 0"),
        ({"image_size": 225}, "image_size must be a multiple of patch_size"),
        ({"num_heads": 5}, "num_heads must divide embed_dim"),
        ({"decoder_num_heads": 5}, "decoder_num_heads must divide decoder_embed_dim"),
        ({"embed_dim": 6, "num_heads": 3}, "multiples of 4"),
        ({"mask_ratio": 0.0}, "mask_ratio must leave some"),
        ({"mask_ratio": 0.999}, "mask_ratio must leave some"),
        ({"mask_ratio": math.nan}, "mask_ratio must leave some"),
        ({"pixel_mean": (0.0, math.nan, 0.0)}, "pixel_mean must be three finite"),
        ({"pixel_std": (1.0, 0.0, 1.0)}, "pixel_std must be three positive"),
    ],
)
def test_what_is_no_masked_autoencoder_is_refused(changes, message):
    with pytest.raises(InputError, match=message):
        check_mae_config(replace(MAE_VIT_B, **changes))


@pytest.mark.parametrize("patches, ratio, visible", [(196, 0.75, 49), (256, 0.75, 64), (7, 0.5, 3)])
def test_visible_patches_are_rounded_down(patches, ratio, visible):
    assert replace(MAE_VIT_B, mask_ratio=ratio).visible(patches) == visible
