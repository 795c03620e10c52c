"""What was fine-tuned here goes back to the original code, and computes the same there."""

import jax
import numpy as np
import original
import pytest
import torch
from closeness import IOU_BOUND, MODEL_BOUND, assert_close
from prompt_cases import case
from quick_compile import quick_jit

import convert
from convert.sam.reference import build_original
from sam_jax.adapters.adapter_files import load_adapter, merge_adapter, save_adapter
from sam_jax.adapters.lora import LoraOptions, init_lora
from sam_jax.checkpoints.native import load_checkpoint, save_checkpoint
from sam_jax.configs import TEST
from sam_jax.models.sam.sam import Sam


@pytest.fixture
def tuned(tmp_path):
    """A checkpoint with the original's weights, and an adapter that changes much of it."""
    variables = original.variables(original.build(TEST, seed=1), TEST)
    info = save_checkpoint(tmp_path / "base", TEST, variables)
    other = original.variables(original.build(TEST, seed=2), TEST)
    options = LoraOptions(rank=3, targets=("q", "v"))
    lora = init_lora(jax.random.key(0), variables["params"], options)
    rng = np.random.default_rng(0)
    lora = jax.tree.map(lambda x: 0.3 * rng.standard_normal(x.shape, np.float32), lora)
    trained = {"mask_decoder": other["params"]["mask_decoder"]}
    save_adapter(tmp_path / "adapter", info.fingerprint, trained, lora, options)
    return tmp_path / "base", tmp_path / "adapter"


def originals_answer(model, image, prompts):
    with torch.no_grad():
        embedding = model.image_encoder(torch.from_numpy(image).permute(0, 3, 1, 2))
        sparse, dense = model.prompt_encoder(**prompts)
        logits, iou = model.mask_decoder(
            image_embeddings=embedding,
            image_pe=model.prompt_encoder.get_dense_pe(),
            sparse_prompt_embeddings=sparse,
            dense_prompt_embeddings=dense,
            multimask_output=True,
        )
    return logits.numpy(), iou.numpy()


def test_an_adapter_merged_and_exported_computes_the_same_in_the_original(tuned, tmp_path):
    base, adapter = tuned
    merge_adapter(base, adapter, tmp_path / "merged")
    convert.export_checkpoint(tmp_path / "merged", tmp_path / "tuned.pth")
    model = build_original(TEST).eval()
    state = torch.load(tmp_path / "tuned.pth", weights_only=True)
    model.load_state_dict(state, strict=True)

    shape = (1, TEST.image_size, TEST.image_size, 3)
    image = np.random.default_rng(3).standard_normal(shape, np.float32)
    prompts = case("points", (8, 8), batch=1)
    expected, expected_iou = originals_answer(model, image, prompts.originals(0))

    base = load_checkpoint(base)
    apply = quick_jit(Sam(TEST).apply)
    logits, iou = apply(load_adapter(adapter, base), image, prompts.ours())
    assert_close(logits[0], expected, MODEL_BOUND, "logits")
    np.testing.assert_allclose(iou[0], expected_iou, rtol=0, atol=IOU_BOUND)
    untuned, _ = apply(base.params, image, prompts.ours())
    assert np.abs(untuned[0] - expected).max() > expected.std()
