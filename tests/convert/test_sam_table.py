import jax
import numpy as np
import pytest
import torch
from flax.traverse_util import flatten_dict
from small_vit import SMALL_VIT
from transformers import SamConfig as HuggingFaceConfig
from transformers import SamModel

from convert.conversion import from_state_dict, to_state_dict
from convert.sam.reference import build_original
from convert.sam.table import entries
from convert.tables import HUGGING_FACE, NAMINGS, OFFICIAL, Layout, to_native, to_torch
from sam_jax.configs import CONFIGS, TEST, TINY, VIT_B, VIT_H, VIT_L, SamConfig
from sam_jax.errors import CheckpointError, InputError
from sam_jax.models.sam.sam import variable_shapes

VISION, PROMPT, DECODER = "vision_config", "prompt_encoder_config", "mask_decoder_config"


def huggingface_config(config: SamConfig) -> HuggingFaceConfig:
    vit = config.image_encoder
    return HuggingFaceConfig(
        vision_config={
            "hidden_size": vit.embed_dim,
            "output_channels": config.embed_dim,
            "num_hidden_layers": vit.depth,
            "num_attention_heads": vit.num_heads,
            "image_size": config.image_size,
            "patch_size": vit.patch_size,
            "mlp_dim": vit.mlp_dim,
            "window_size": vit.window_size,
            "global_attn_indexes": list(vit.global_attention_indexes),
            "num_pos_feats": config.embed_dim // 2,
        },
        prompt_encoder_config={
            "hidden_size": config.embed_dim,
            "image_size": config.image_size,
            "patch_size": vit.patch_size,
            "image_embedding_size": vit.table_size_hw[0],
        },
        mask_decoder_config={
            "hidden_size": config.embed_dim,
            "num_attention_heads": config.decoder_num_heads,
            "mlp_dim": config.decoder_mlp_dim,
            "iou_head_hidden_dim": config.iou_head_hidden_dim,
        },
    )


@pytest.fixture(scope="module")
def huggingface():
    """Hugging Face's own model at the test size."""
    torch.manual_seed(1)
    model = SamModel(huggingface_config(TEST)).eval()
    for parameter in model.parameters():
        parameter.data.add_(0.1 * torch.randn(parameter.shape))
    return model


def random_variables(config):
    rng = np.random.default_rng(0)
    return jax.tree.map(
        lambda leaf: rng.standard_normal(leaf.shape, np.float32), variable_shapes(config)
    )


@pytest.mark.parametrize(
    "config", [VIT_B, VIT_L, VIT_H, TEST, SMALL_VIT], ids=lambda config: config.name
)
def test_the_table_has_every_array_of_the_model_once(config):
    natives = [entry.native for entry in entries(config)]
    assert len(set(natives)) == len(natives)
    assert set(natives) == flatten_dict(variable_shapes(config), sep="/").keys()


def test_an_encoder_that_the_original_lacks_has_no_table():
    with pytest.raises(
        CheckpointError, match="^tiny has an image encoder of our own, which"
    ) as error:
        entries(TINY)
    assert "\n" not in str(error.value)
    with pytest.raises(InputError, match="tiny has an image encoder of our own"):
        build_original(TINY)
    plain = {name for name, config in CONFIGS.items() if not config.has_finer_features}
    assert plain == CONFIGS.keys() - {"tiny"}


@pytest.mark.parametrize("naming", NAMINGS)
def test_no_two_arrays_have_the_same_name(naming):
    names = [n for e in entries(CONFIGS["vit_b"]) for aliases in e.names[naming] for n in aliases]
    assert len(set(names)) == len(names)


def test_the_official_names_are_the_originals(original):
    names = {n for e in entries(TEST) for aliases in e.names[OFFICIAL] for n in aliases}
    assert names == original.state_dict().keys()


def test_hugging_faces_names_are_transformers(huggingface):
    names = {n for e in entries(TEST) for aliases in e.names[HUGGING_FACE] for n in aliases}
    assert names == huggingface.state_dict().keys()


@pytest.mark.parametrize("naming", NAMINGS)
@pytest.mark.parametrize("config", [TEST, SMALL_VIT], ids=["test", "small_vit"])
def test_there_and_back_is_the_same_bit_for_bit(config, naming):
    variables = random_variables(config)
    back = from_state_dict(config, to_state_dict(config, variables, naming), naming)
    assert jax.tree.structure(back) == jax.tree.structure(variables)
    assert all(jax.tree.leaves(jax.tree.map(np.array_equal, back, variables)))


def test_both_namings_give_the_originals_values(original, state, huggingface):
    """The same values under either naming, loaded into either package's model."""
    variables = from_state_dict(TEST, state)
    tensors = {
        name: torch.from_numpy(np.array(value))
        for name, value in to_state_dict(TEST, variables, HUGGING_FACE).items()
    }
    for name, value in to_state_dict(TEST, variables).items():
        assert np.array_equal(value, state[name]), name
    missing, unexpected = huggingface.load_state_dict(tensors, strict=False)
    assert missing == ["prompt_encoder.shared_embedding.positional_embedding"]  # tied
    assert unexpected == []
    images = torch.randn(1, 3, TEST.image_size, TEST.image_size)
    with torch.no_grad():
        expected = original.image_encoder(images)
        found = huggingface.get_image_embeddings(images)
    if not isinstance(found, torch.Tensor):
        found = found.last_hidden_state
    assert torch.allclose(found, expected, atol=1e-4)


@pytest.mark.parametrize(
    "layout, shape",
    [
        (Layout(), (3,)),
        (Layout((1, 0)), (3, 4)),
        (Layout((2, 3, 1, 0)), (3, 4, 5, 6)),
        (Layout((0, 2, 3, 1)), (3, 4, 5, 6)),
        (Layout(ones=(0,)), (1, 4, 5)),
    ],
)
def test_a_layout_and_its_shapes_agree_both_ways(layout, shape):
    tensor = np.arange(np.prod(shape)).reshape(shape)
    native = layout.to_native(tensor)
    assert layout.native_shape(shape) == native.shape
    assert layout.torch_shape(native.shape) == shape
    assert np.array_equal(layout.to_torch(native), tensor)


def test_shapes_of_another_rank_have_no_layout():
    assert Layout((1, 0)).native_shape((3,)) is None
    assert Layout(ones=(0,)).native_shape((2, 3)) is None
    assert Layout(ones=(0,)).native_shape(()) is None


def report_of(tensors, naming=OFFICIAL):
    shapes = flatten_dict(variable_shapes(TEST), sep="/")
    with pytest.raises(CheckpointError) as error:
        to_native("Title:", entries(TEST), naming, tensors, shapes)
    return str(error.value).split("\n")


def test_one_report_lists_everything_that_is_wrong(state):
    tensors = dict(state)
    del tensors["image_encoder.pos_embed"]
    del tensors["mask_decoder.output_hypernetworks_mlps.2.layers.1.bias"]
    tensors["extra.weight"] = np.ones(3, np.float32)
    tensors["mask_decoder.iou_token.weight"] = np.ones((1, 31), np.float32)
    tensors["image_encoder.neck.0.weight"] = np.ones((32, 32), np.float32)
    tensors["prompt_encoder.no_mask_embed.weight"] = np.ones((1, 32), np.int64)
    assert report_of(tensors) == [
        "Title:",
        "  missing: image_encoder.pos_embed",
        "  missing: mask_decoder.output_hypernetworks_mlps.2.layers.1.bias",
        "  unexpected: extra.weight",
        "  wrong shape: image_encoder.neck.0.weight is (32, 32), not (32, 32, 1, 1)",
        "  wrong type: prompt_encoder.no_mask_embed.weight is int64, not a floating-point type",
        "  wrong shape: mask_decoder.iou_token.weight is (1, 31), not (1, 32)",
    ]


def test_a_tensor_with_two_names_may_stand_once_or_twice_but_only_with_one_value(state):
    variables = from_state_dict(TEST, state)
    tensors = to_state_dict(TEST, variables, HUGGING_FACE)
    one, other = (
        "shared_image_embedding.positional_embedding",
        "prompt_encoder.shared_embedding.positional_embedding",
    )
    matrix = tensors[one]
    rest = {name: value for name, value in tensors.items() if name != one}
    for given in ({one: matrix}, {other: matrix}, {one: matrix, other: matrix.copy()}):
        back = from_state_dict(TEST, {**rest, **given}, HUGGING_FACE)
        found = back["constants"]["prompt_encoder"]["positional_encoding_gaussian_matrix"]
        assert np.array_equal(found, matrix)
    assert report_of(rest, HUGGING_FACE) == ["Title:", f"  missing: {one}"]
    twice = {**rest, one: matrix, other: matrix + 1}
    assert report_of(twice, HUGGING_FACE) == [
        "Title:",
        f"  must be equal, but differ: {one}, {other}",
    ]


@pytest.mark.parametrize("dtype", [np.float16, np.float64, "bfloat16"])
def test_other_precisions_become_float32(state, dtype):
    dtype = np.dtype(jax.numpy.bfloat16) if dtype == "bfloat16" else np.dtype(dtype)
    given = {name: value.astype(dtype) for name, value in state.items()}
    variables = from_state_dict(TEST, given)
    for name, value in to_state_dict(TEST, variables).items():
        assert value.dtype == np.float32
        assert np.array_equal(value, given[name].astype(np.float32))


def test_converted_arrays_do_not_depend_on_the_tensors(state):
    given = {name: value.copy() for name, value in state.items()}
    variables = from_state_dict(TEST, given)
    before = jax.tree.map(np.copy, variables)
    for value in given.values():
        value[...] = 7
    assert all(jax.tree.leaves(jax.tree.map(np.array_equal, before, variables)))


def test_a_stack_is_taken_apart_in_order(state):
    variables = from_state_dict(TEST, state)
    shapes = flatten_dict(variables, sep="/")
    tensors = to_torch(entries(TEST), OFFICIAL, shapes)
    for i in range(4):
        name = f"prompt_encoder.point_embeddings.{i}.weight"
        assert np.array_equal(tensors[name][0], shapes["params/prompt_encoder/point_embeddings"][i])
        assert np.array_equal(tensors[name], state[name])
