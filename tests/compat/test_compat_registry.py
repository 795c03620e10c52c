"""What the registry builds a model from, what it refuses, and what it needs to be installed."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import numpy as np
import original
import pytest
import torch
from same_results import assert_same

from convert import convert_checkpoint
from sam_jax import compat
from sam_jax.configs import CONFIGS, TEST, VIT_B
from sam_jax.errors import InputError

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch) -> Path:
    """An empty cache folder in place of the user's."""
    monkeypatch.setenv("SAM_JAX_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def vit_b_in_miniature(monkeypatch):
    """Lets the file that the tests can afford pass for vit_b."""
    monkeypatch.setitem(CONFIGS, "vit_b", replace(TEST, name="vit_b"))


def test_the_originals_names_and_tiny_are_there(theirs):
    assert set(compat.sam_model_registry) >= set(theirs.sam_model_registry) - {"small"}
    assert "tiny" in compat.sam_model_registry
    assert compat.sam_model_registry["default"] is compat.build_sam is compat.build_sam_vit_h
    assert compat.sam_model_registry["vit_h"] is compat.build_sam_vit_h
    assert compat.sam_model_registry["vit_l"] is compat.build_sam_vit_l
    assert compat.sam_model_registry["vit_b"] is compat.build_sam_vit_b


def test_a_pth_its_checkpoint_and_a_stored_download_are_one_model(
    vit_b_in_miniature, pth, cache, tmp_path
):
    build = compat.sam_model_registry["vit_b"]
    from_file = build(checkpoint=str(pth))
    convert_checkpoint(pth, tmp_path / "native")
    (cache / "checkpoints").mkdir(parents=True)
    convert_checkpoint(pth, cache / "checkpoints" / "vit_b")
    for model in (build(tmp_path / "native"), build()):
        # It covers the architecture and every parameter.
        assert model.segmenter.fingerprint == from_file.segmenter.fingerprint


def test_options_reach_the_segmenter(pth):
    assert compat.load_sam(pth, dtype="bfloat16").segmenter.config == TEST
    with pytest.raises(InputError, match="float16 is neither float32 nor bfloat16"):
        compat.load_sam(pth, dtype="float16")


def test_the_small_model_of_the_package_needs_no_checkpoint():
    model = compat.sam_model_registry["tiny"]()
    assert model.segmenter.config == CONFIGS["tiny"]
    assert model.image_encoder.img_size == 256


@pytest.mark.parametrize("name", ["vit_b", "vit_l", "vit_h", "default"])
def test_without_a_checkpoint_or_a_download_there_is_no_model(name):
    stored = "vit_h" if name == "default" else name
    with pytest.raises(InputError, match=f"run: sam-jax download {stored}$"):
        compat.sam_model_registry[name]()


@pytest.mark.parametrize("name", ["vit_b", "default", "tiny"])
def test_a_file_of_another_variant_is_refused_by_both_names(pth, name):
    stored = "vit_h" if name == "default" else name
    with pytest.raises(InputError, match=rf"holds a test \(.*, not {stored} \(.*load_sam") as error:
        compat.sam_model_registry[name](checkpoint=pth)
    assert str(pth) in str(error.value) and "\n" not in str(error.value)


def test_a_file_of_another_official_variant_says_which_name_to_use(
    vit_b_in_miniature, pth, monkeypatch
):
    monkeypatch.delitem(CONFIGS, "test")  # so that its shapes are those of vit_b alone
    with pytest.raises(InputError, match=r'holds a vit_b \(.*with sam_model_registry\["vit_b"\]'):
        compat.sam_model_registry["vit_l"](checkpoint=pth)


def test_what_is_no_checkpoint_is_refused(tmp_path):
    (tmp_path / "empty.pth").write_bytes(b"")
    (tmp_path / "folder").mkdir()
    for name in ("nothing.pth", "empty.pth", "folder"):
        with pytest.raises(InputError, match=name):
            compat.sam_model_registry["vit_b"](checkpoint=tmp_path / name)


def test_names_are_taken_for_a_checkpoint_and_come_first(cache, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert compat.sam_model_registry["tiny"]("tiny").segmenter.config == CONFIGS["tiny"]
    (tmp_path / "tiny").mkdir()
    with pytest.warns(UserWarning, match="write ./tiny"):
        assert compat.load_sam("tiny").segmenter.config == CONFIGS["tiny"]
    with pytest.raises(InputError, match="lie in .*run: sam-jax download vit_b$"):
        compat.sam_model_registry["vit_b"](checkpoint="vit_b")
    with pytest.raises(InputError, match="'vit_x' is neither"):
        compat.load_sam("vit_x")


def test_values_that_are_not_finite_are_refused_as_convert_refuses_them(pth, tmp_path):
    state = torch.load(pth)
    state["mask_decoder.iou_token.weight"][0, 0] = float("nan")
    torch.save(state, tmp_path / "nan.pth")
    lines = []
    for read in (
        compat.load_sam,
        lambda path: compat.sam_model_registry["vit_b"](checkpoint=path),
        lambda path: convert_checkpoint(path, tmp_path / "native"),
    ):
        with pytest.raises(InputError) as error:
            read(tmp_path / "nan.pth")
        lines.append(str(error.value))
    assert lines[0] == lines[1] == lines[2]
    assert "not finite: params/mask_decoder/iou_token" in lines[0] and "\n" not in lines[0]


def test_what_training_saved_is_read_as_it_is(pth, tmp_path):
    state = {f"module.{name}": value for name, value in torch.load(pth).items()}
    torch.save({"model_state_dict": state, "epoch": 3}, tmp_path / "run.pth")
    expected = compat.load_sam(pth).segmenter.fingerprint
    assert compat.load_sam(tmp_path / "run.pth").segmenter.fingerprint == expected


def test_a_module_that_hides_the_converter_is_named(pth, monkeypatch):
    somebody_elses = ModuleType("convert")
    somebody_elses.__file__ = "/home/me/convert.py"
    monkeypatch.setitem(sys.modules, "convert", somebody_elses)
    with pytest.raises(InputError, match="/home/me/convert.py hides"):
        compat.load_sam(pth)


def test_nothing_of_the_originals_surroundings_is_needed(pth, tmp_path):
    """An official file to a mask and to records, with PyTorch, OpenCV and the rest out of reach."""
    code = f"""
import sys
for name in ("torch", "torchvision", "segment_anything", "cv2", "pycocotools", "supervision"):
    sys.modules[name] = None
import numpy as np
from sam_jax import compat
assert "convert" not in sys.modules
sam = compat.load_sam({str(pth)!r}).to("cpu").eval()
image = np.random.default_rng(0).integers(0, 256, (30, 40, 3), dtype=np.uint8)
predictor = compat.SamPredictor(sam)
predictor.set_image(image)
masks, iou, low_res = predictor.predict(np.array([[20, 10]]), np.array([1]))
generator = compat.SamAutomaticMaskGenerator(
    sam, 2, pred_iou_thresh=0.0, stability_score_thresh=0.0, min_mask_region_area=9,
    output_mode="coco_rle",
)
print(masks.shape, masks.dtype, len(generator.generate(image)) > 0)
"""
    environment = {
        "PYTHONPATH": str(ROOT),
        "PATH": "",
        "JAX_PLATFORMS": "cpu",
        # Compiling is most of it, and what runs here is small.
        "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",
    }
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.strip() == "(3, 30, 40) bool True", done.stderr


@pytest.mark.slow
def test_vit_b_by_the_originals_own_call(theirs, tmp_path, chelsea):
    path = tmp_path / "sam_vit_b.pth"
    torch.save(original.build(VIT_B, seed=1).state_dict(), path)
    results = []
    for api in (compat, theirs):
        predictor = api.SamPredictor(api.sam_model_registry["vit_b"](checkpoint=str(path)))
        predictor.set_image(chelsea)
        results.append(predictor.predict(np.array([[200, 100]]), np.array([1])))
    assert_same(*results)
