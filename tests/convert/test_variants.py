import re
from dataclasses import replace

import pytest
import torch
from small_vit import SMALL_VIT

from convert.sam.reference import build_original
from convert.sam.table import detect_naming, entries
from convert.sam.variants import infer_config
from convert.tables import HUGGING_FACE, NAMINGS, OFFICIAL
from sam_jax.configs import CONFIGS, TEST, VIT_B, VIT_H, VIT_L
from sam_jax.errors import CheckpointError
from sam_jax.models.sam.sam import variable_shapes


def shapes_of(config, naming=OFFICIAL):
    """What a file of this configuration has, without its values."""
    tree = variable_shapes(config)
    shapes = {}
    for entry in entries(config):
        leaf = tree
        for key in entry.native.split("/"):
            leaf = leaf[key]
        for aliases in entry.names[naming]:
            shapes[aliases[0]] = entry.tensor_shape(leaf.shape)
    return shapes


@pytest.mark.parametrize("config", [VIT_B, VIT_L, VIT_H], ids=lambda config: config.name)
def test_the_originals_own_variants_are_told_from_their_shapes(config):
    with torch.device("meta"):
        model = build_original(config)
    shapes = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    assert infer_config(shapes, OFFICIAL) == config


@pytest.mark.parametrize("naming", NAMINGS)
@pytest.mark.parametrize("config", [VIT_B, VIT_L, VIT_H, TEST], ids=lambda config: config.name)
def test_every_preset_is_told_from_its_shapes_in_either_naming(config, naming):
    shapes = shapes_of(config, naming)
    assert detect_naming(shapes) == naming
    assert infer_config(shapes, naming) == config


def encoder(config=TEST, **changes):
    return replace(config, image_encoder=replace(config.image_encoder, **changes))


@pytest.mark.parametrize(
    "config",
    [
        encoder(depth=5, global_attention_indexes=(0, 3)),
        encoder(embed_dim=48, num_heads=6, mlp_dim=100),
        encoder(window_size=5),
        replace(encoder(patch_size=8), image_size=64),
        replace(encoder(table_size_hw=(6, 6)), image_size=96),
        replace(encoder(table_size_hw=(5, 9)), image_size=144),
        encoder(global_attention_indexes=()),
        replace(TEST, decoder_depth=3, decoder_mlp_dim=48, num_multimask_outputs=5),
        replace(TEST, iou_head_depth=4, iou_head_hidden_dim=24),
        replace(TEST, iou_head_depth=2),
        replace(TEST, embed_dim=64, mask_in_channels=8, attention_downsample_rate=4),
        encoder(VIT_B, depth=7, global_attention_indexes=(1, 6)),
    ],
)
def test_other_shapes_are_told_too(config):
    for naming in NAMINGS:
        found = infer_config(shapes_of(config, naming), naming, config.decoder_num_heads)
        assert found == replace(config, name="custom")


def test_without_windows_the_windows_size_is_the_usual_one():
    config = encoder(global_attention_indexes=(0, 1))
    found = infer_config(shapes_of(config), OFFICIAL)
    assert found.image_encoder == replace(config.image_encoder, window_size=14)


@pytest.mark.parametrize(
    "dim, rate, given, heads",
    # The original's 8, or what is left of them; what the file comes with counts more.
    [(256, 2, None, 8), (64, 4, None, 8), (24, 2, None, 4), (40, 2, None, 4), (256, 2, 16, 16)],
)
def test_heads_of_an_unknown_decoder_follow_the_rule(dim, rate, given, heads):
    config = replace(
        TEST, embed_dim=dim, attention_downsample_rate=rate, decoder_num_heads=1, decoder_mlp_dim=9
    )
    assert infer_config(shapes_of(config), OFFICIAL, given).decoder_num_heads == heads


def test_the_files_own_number_of_heads_beats_the_presets():
    found = infer_config(shapes_of(TEST, HUGGING_FACE), HUGGING_FACE, 4)
    assert found == replace(TEST, name="custom", decoder_num_heads=4)


@pytest.mark.parametrize("config", [VIT_B, SMALL_VIT], ids=["vit_b", "small_vit"])
def test_any_one_missing_or_misshapen_tensor_leaves_the_variant_as_it_is(config, monkeypatch):
    """The report then names that tensor, and not all the others."""
    monkeypatch.setitem(CONFIGS, "small_vit", SMALL_VIT)
    shapes = shapes_of(config)
    several = re.compile(r"\.(?!0\.)\d+\.")  # one block or layer stands for all of them
    for name in [n for n in shapes if not several.search(n)] + ["mask_decoder.mask_tokens.weight"]:
        rest = {n: shape for n, shape in shapes.items() if n != name}
        # What only this tensor tells is the original's, and for other models is not known.
        alone = name == "image_encoder.patch_embed.proj.weight" and config is not VIT_B
        if not alone:
            assert infer_config(rest, OFFICIAL) == config, name
        changed = {**shapes, name: (*shapes[name][:-1], shapes[name][-1] + 2)}
        assert infer_config(changed, OFFICIAL) == config, name


def test_stray_blocks_and_layers_do_not_count():
    shapes = {
        **shapes_of(VIT_B),
        "image_encoder.blocks.12.norm1.weight": (768,),
        "image_encoder.blocks.999999.norm1.weight": (768,),
        "mask_decoder.transformer.layers.99.norm1.weight": (256,),
    }
    assert infer_config(shapes, OFFICIAL) == VIT_B


def test_shapes_of_no_model_are_refused():
    many = {f"image_encoder.blocks.{i}.norm1.weight": (8,) for i in range(0, 1000, 10)}
    with pytest.raises(CheckpointError, match="has 991 of image_encoder.blocks"):
        infer_config(many, OFFICIAL)
    wide = {"image_encoder.patch_embed.proj.bias": (1 << 40,)}
    with pytest.raises(CheckpointError, match="embed_dim must be between"):
        infer_config(wide, OFFICIAL)


@pytest.mark.parametrize(
    "names, says",
    [
        (["image_encoder.trunk.pos_embed", "image_encoder.neck.0"], "family SAM 2"),
        (["memory_attention.layers.0.norm1.weight"], "family SAM 2"),
        (["vision_encoder.backbone.pos_embed"], "family SAM 2"),
        (["fc.weight", "encoder.image_encoder."], "no Segment Anything model"),
        ([], "no Segment Anything model"),
    ],
)
def test_other_families_are_recognised(names, says):
    with pytest.raises(CheckpointError, match=says):
        detect_naming(names)
