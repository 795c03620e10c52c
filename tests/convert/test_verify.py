import dataclasses
import importlib.util
import sys

import jax
import numpy as np
import pytest
import torch

import convert
from convert.conversion import from_state_dict
from convert.sam import reference as original_code
from convert.sam.reference import build_original
from convert.verify import IOU_BOUND, RELATIVE_BOUND, StageError, compare, format_table, verify
from sam_jax.configs import TEST
from sam_jax.errors import CheckpointError, InputError


@pytest.fixture(scope="module")
def variables(state):
    return from_state_dict(TEST, state)


@pytest.fixture(scope="module")
def errors(original, variables):
    return compare(original, TEST, variables)


def test_every_stage_of_the_same_weights_is_within_its_bound(errors):
    assert [error.stage for error in errors if not error.passed] == []
    spread = [error.reference_std for error in errors if "IoU" not in error.stage]
    assert min(spread) > 0.1, "a reference that says nothing"


def test_every_stage_is_there(errors):
    stages = [error.stage for error in errors]
    assert stages[:4] == ["patch embedding", "block 0", "block 1", "neck"]
    rest = [
        "sparse prompt embeddings",
        "dense prompt embeddings",
        "decoder layer 0, tokens",
        "decoder layer 0, image",
        "decoder layer 1, tokens",
        "decoder layer 1, image",
        "final attention, tokens",
        "upscaled embedding",
        "multimask, logits",
        "multimask, predicted IoU",
        "single mask, logits",
        "single mask, predicted IoU",
    ]
    assert stages[4:] == [f"{kind}: {stage}" for kind in ("points", "all kinds") for stage in rest]


@pytest.mark.parametrize(
    "path, first",
    [
        (("image_encoder", "patch_embed", "bias"), "patch embedding"),
        (("image_encoder", "blocks_1", "attn", "rel_pos_h"), "block 1"),
        (("prompt_encoder", "not_a_point_embed"), "points: sparse prompt embeddings"),
        (("prompt_encoder", "mask_downscaling", "conv3", "bias"), "all kinds: dense prompt"),
        (
            ("mask_decoder", "transformer", "layers_1", "mlp", "lin1", "bias"),
            "points: decoder layer 1, tokens",
        ),
        (("mask_decoder", "iou_prediction_head", "layers_2", "bias"), "points: multimask, pred"),
    ],
)
def test_a_wrong_value_fails_from_its_own_stage_on(original, variables, path, first):
    wrong = jax.tree.map(np.copy, variables)
    node = wrong["params"]
    for key in path[:-1]:
        node = node[key]
    # Not a constant, which softmax or LayerNorm may take away again.
    shape = node[path[-1]].shape
    node[path[-1]] += 0.1 * np.random.default_rng(0).standard_normal(shape, np.float32)
    failed = [error.stage for error in compare(original, TEST, wrong) if not error.passed]
    assert failed[0].startswith(first)


def test_a_file_and_its_checkpoint_are_verified(pth, tmp_path):
    convert.convert_checkpoint(pth, tmp_path / "native")
    assert all(error.passed for error in verify(pth, tmp_path / "native"))


def test_the_original_gets_the_files_own_weights(pth, state, tmp_path):
    """A checkpoint of something else fails against the file, instead of against itself."""
    convert.convert_checkpoint(pth, tmp_path / "native")
    other = {name: torch.from_numpy(value) for name, value in state.items()}
    changed = other["image_encoder.neck.0.weight"]
    other["image_encoder.neck.0.weight"] = changed + 0.1 * torch.randn(changed.shape)
    torch.save({"model": other}, tmp_path / "other.pth")
    errors = verify(tmp_path / "other.pth", tmp_path / "native")
    failed = [error.stage for error in errors if not error.passed]
    assert failed[0] == "neck"


def test_a_file_is_verified_by_the_weights_that_were_taken_of_it(state, tmp_path):
    tensors = {name: torch.from_numpy(value) for name, value in state.items()}
    averaged = {name: value / 2 for name, value in tensors.items()}
    behind = {f"module.{name}": value for name, value in tensors.items()}
    torch.save({"model": tensors, "ema": averaged, "net": behind}, tmp_path / "run.pth")
    for place in ("model", "ema", "net"):
        path = tmp_path / place
        convert.convert_checkpoint(tmp_path / "run.pth", path, state_dict=place)
        assert all(error.passed for error in verify(tmp_path / "run.pth", path))


def test_a_hugging_face_file_is_verified_by_its_values(state, variables, tmp_path):
    from safetensors.numpy import save_file

    from convert.conversion import to_state_dict

    tensors = to_state_dict(TEST, variables, "huggingface")
    tensors = {name: np.ascontiguousarray(value) for name, value in tensors.items()}
    save_file(tensors, tmp_path / "model.safetensors")
    convert.convert_checkpoint(tmp_path / "model.safetensors", tmp_path / "native")
    errors = verify(tmp_path / "model.safetensors", tmp_path / "native")
    assert errors and all(error.passed for error in errors)


def test_missing_files_are_errors_of_one_line(pth, tmp_path):
    with pytest.raises(CheckpointError, match="no checkpoint at"):
        verify(pth, tmp_path / "missing")


def test_the_table_says_what_failed():
    good = StageError("neck", 1e-6, 0.5, 2e-6, RELATIVE_BOUND)
    bad = dataclasses.replace(good, stage="points: logits", max_abs=0.1, relative=0.2)
    table = format_table([good, bad]).split("\n")
    assert table[1].startswith("neck") and table[1].endswith("ok")
    assert table[2].startswith("points: logits") and table[2].endswith("FAILED")
    assert table[-1] == "2 stages: 1 beyond their bounds"
    assert len({len(line.split("  ")[0]) for line in table[1:3]}) <= 2
    assert format_table([good]).endswith("1 stages: all within their bounds")


def test_predicted_iou_is_judged_as_it_is_and_nan_never_passes():
    iou = StageError("points: multimask, predicted IoU", 2e-5, 1e-3, 2e-2, IOU_BOUND)
    assert iou.passed
    assert not dataclasses.replace(iou, stage="points: multimask, logits").passed
    nan = float("nan")
    assert not dataclasses.replace(iou, max_abs=nan, relative=nan).passed


def test_the_originals_package_is_not_left_half_imported():
    before = {name for name in sys.modules if name.split(".")[0] == "segment_anything"}
    original_code._modeling.cache_clear()
    build_original(TEST)
    after = {name for name in sys.modules if name.split(".")[0] == "segment_anything"}
    assert after - before <= {"segment_anything.modeling"} if before else after == before


@pytest.mark.parametrize("missing", ["torch", "segment_anything"])
def test_what_to_install_is_said(monkeypatch, missing):
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *_: None if name == missing else find_spec(name)
    )
    original_code._modeling.cache_clear()
    with pytest.raises(InputError, match="pip install torch segment-anything"):
        build_original(TEST)
    original_code._modeling.cache_clear()


def test_the_original_takes_square_models_only():
    vit = dataclasses.replace(TEST.image_encoder, table_size_hw=(8, 6))
    with pytest.raises(InputError, match="8x6"):
        build_original(dataclasses.replace(TEST, image_encoder=vit))
