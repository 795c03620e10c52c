"""Files of SAM 2 are converted strictly, in both namings, and back, and are verified."""

from dataclasses import replace

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("sam2")

from flax.traverse_util import flatten_dict  # noqa: E402

from convert import conversion as convert  # noqa: E402
from convert.sam2 import table as sam2  # noqa: E402
from convert.sam2.variants import infer_sam2_config  # noqa: E402
from convert.tables import HUGGING_FACE, OFFICIAL  # noqa: E402
from convert.verify import verify  # noqa: E402
from sam_jax.checkpoints.native import load_checkpoint  # noqa: E402
from sam_jax.errors import CheckpointError  # noqa: E402
from sam_jax.models.families import family_of  # noqa: E402
from sam_jax.models.sam2.config import (  # noqa: E402
    SAM2_1_BASE_PLUS,
    SAM2_1_TINY,
    SAM2_CONFIGS,
    SAM2_TEST,
    SAM2_TINY,
)
from sam_jax.video.tracker import Tracker  # noqa: E402
from tests.parity import original_sam2  # noqa: E402


@pytest.fixture(scope="module")
def original():
    return original_sam2.build(SAM2_TEST, seed=3)


@pytest.fixture(scope="module")
def official(original, tmp_path_factory):
    path = tmp_path_factory.mktemp("official") / "sam2.pt"
    torch.save({"model": original.state_dict()}, path)
    return path


@pytest.fixture(scope="module")
def native(official, tmp_path_factory):
    path = tmp_path_factory.mktemp("native") / "checkpoint"
    convert.convert_checkpoint(official, path, config=SAM2_TEST)
    return path


def shapes_of(config, naming):
    """Names and shapes as a file of this naming has them."""
    flat = flatten_dict(family_of(config).variable_shapes(config), sep="/")
    found = {}
    for entry in sam2.entries(config):
        for aliases in entry.names[naming]:
            found.update(dict.fromkeys(aliases, entry.tensor_shape(flat[entry.native].shape)))
    return found


def test_an_official_file_becomes_a_checkpoint_and_a_file_again(original, native, tmp_path):
    loaded = load_checkpoint(native)
    assert loaded.config == SAM2_TEST
    assert loaded.source["naming"] == OFFICIAL
    info = convert.export_checkpoint(native, tmp_path / "back.pt")
    assert info.fingerprint == loaded.fingerprint
    back = torch.load(tmp_path / "back.pt", weights_only=True)
    assert back.keys() == {"model"}
    expected = original.state_dict()
    assert back["model"].keys() == expected.keys()
    for name, tensor in expected.items():
        assert torch.equal(back["model"][name], tensor), name
    original.load_state_dict(back["model"], strict=True)
    # Our own export says what it is.
    config, _, naming, _ = convert.read_source(tmp_path / "back.pt")
    assert (config, naming) == (SAM2_TEST, OFFICIAL)
    assert Tracker.load(native).config == SAM2_TEST


def test_hugging_faces_naming_goes_both_ways(native, tmp_path):
    safetensors = pytest.importorskip("safetensors.numpy")
    loaded = load_checkpoint(native)
    tensors = convert.to_state_dict(SAM2_TEST, loaded.params, HUGGING_FACE)
    assert tensors["prompt_encoder.point_embed.weight"].shape == (4, SAM2_TEST.embed_dim)
    whole = {name: np.ascontiguousarray(array) for name, array in tensors.items()}
    # Hugging Face stores the random frequencies twice.
    twice = "prompt_encoder.shared_embedding.positional_embedding"
    whole[twice] = whole["shared_image_embedding.positional_embedding"]
    safetensors.save_file(whole, tmp_path / "model.safetensors")
    path = tmp_path / "native"
    info = convert.convert_checkpoint(tmp_path, path, config=SAM2_TEST)
    assert info.fingerprint == loaded.fingerprint
    assert info.source["naming"] == HUGGING_FACE


def test_the_table_has_every_tensor_of_hugging_faces_model():
    transformers = pytest.importorskip("transformers")
    with torch.device("meta"):
        model = transformers.Sam2VideoModel(transformers.Sam2VideoConfig())
    theirs = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    points = theirs.pop("prompt_encoder.point_embed.weight")
    ours = shapes_of(SAM2_1_TINY, HUGGING_FACE)
    rows = [name for name in ours if name.startswith("prompt_encoder.point_embed.")]
    assert (len(rows), *ours[rows[0]][1:]) == points
    assert {name: shape for name, shape in ours.items() if name not in rows} == theirs


def test_everything_that_does_not_fit_is_listed(original, tmp_path):
    state = dict(original.state_dict())
    del state["no_obj_ptr"]
    state["memory_encoder.out_proj.weight"] = torch.zeros(3, 3, 1, 1)
    state["memory_encoder.extra"] = torch.zeros(2)
    torch.save({"model": state}, tmp_path / "bad.pt")
    with pytest.raises(CheckpointError) as error:
        convert.read_source(tmp_path / "bad.pt", SAM2_TEST)
    for line in (
        "missing: no_obj_ptr",
        "unexpected: memory_encoder.extra",
        "wrong shape: memory_encoder.out_proj.weight is (3, 3, 1, 1)",
    ):
        assert line in str(error.value)


@pytest.mark.parametrize("naming", [OFFICIAL, HUGGING_FACE])
@pytest.mark.parametrize("config", [SAM2_1_TINY, SAM2_TINY, SAM2_1_BASE_PLUS])
def test_the_released_models_are_told_by_their_shapes(config, naming):
    shapes = shapes_of(config, naming)
    assert infer_sam2_config(shapes, naming) == config
    # One tensor that is missing is reported later, as that tensor.
    shapes.pop(next(name for name in shapes if "tpos" in name or "temporal" in name))
    assert infer_sam2_config(shapes, naming) == config


def test_names_are_known():
    assert all(SAM2_CONFIGS[name].name == name for name in SAM2_CONFIGS)


def test_unknown_sizes_are_refused():
    shapes = {"image_encoder.trunk.patch_embed.proj.bias": (50,)}
    shapes |= {f"image_encoder.trunk.blocks.{i}.norm1.weight": (50,) for i in range(9)}
    with pytest.raises(CheckpointError, match="9 blocks from 50 channels, whose windows"):
        infer_sam2_config(shapes, OFFICIAL)


def test_verify_finds_every_stage_equal_and_a_wrong_one(official, native, tmp_path):
    errors = verify(official, native)
    assert all(error.passed for error in errors)
    stages = {error.stage for error in errors}
    assert {"patch embedding", "block 4", "neck: stride 16", "memory attention"} <= stages
    assert "points and masks: logits" in stages and "memory encoder" in stages
    tensors = torch.load(official, weights_only=True)["model"]
    tensors = {**tensors, "memory_encoder.fuser.layers.1.gamma": torch.zeros(SAM2_TEST.embed_dim)}
    torch.save({"model": tensors}, tmp_path / "other.pt")
    failed = [error.stage for error in verify(tmp_path / "other.pt", native) if not error.passed]
    assert failed == ["memory encoder"]


def test_a_2_0_file_has_no_tensors_of_2_1(tmp_path):
    config = replace(SAM2_TEST, name="2.0", occlusion_embedding=False, pointer_times=False)
    model = original_sam2.build(config)
    torch.save({"model": model.state_dict()}, tmp_path / "old.pt")
    found, _, _, _ = convert.read_source(tmp_path / "old.pt", config)
    assert found == config
    with pytest.raises(CheckpointError, match="missing: no_obj_embed_spatial"):
        convert.read_source(tmp_path / "old.pt", SAM2_TEST)
