"""The prompt encoder against the original, for every mix of prompts."""

import numpy as np
import original
import pytest
from closeness import assert_close
from prompt_cases import MIXES, case

from sam_jax.configs import TEST
from sam_jax.models.prompt_encoder import PromptEncoder
from sam_jax.models.sam.sam import Sam


@pytest.mark.parametrize("grid_hw", [(8, 8), (7, 10)])
@pytest.mark.parametrize("mix", MIXES)
def test_prompts_are_embedded_as_by_the_original(small, mix, grid_hw):
    model, variables = small
    prompts = case(mix, grid_hw)
    sparse, present, dense = Sam(TEST).apply(
        variables, prompts.ours(), grid_hw, method="encode_prompts"
    )
    assert np.all(present)
    # One dense embedding serves all prompts exactly when there are no masks.
    assert dense.shape[1] == (3 if "mask" in mix else 1)
    for image in range(2):
        with original.at_grid(model, grid_hw):
            expected_sparse, expected_dense = model.prompt_encoder(**prompts.originals(image))
        assert sparse[image].shape == expected_sparse.shape
        if sparse.size:
            assert_close(sparse[image], expected_sparse, what="sparse")
        ours = np.broadcast_to(dense[image], (3, *grid_hw, TEST.embed_dim))
        assert_close(ours, expected_dense.permute(0, 2, 3, 1), what="dense")


@pytest.mark.parametrize("grid_hw", [(8, 8), (7, 10), (1, 3)])
def test_image_tokens_get_the_originals_positions(small, grid_hw):
    model, variables = small
    own = {collection: tree["prompt_encoder"] for collection, tree in variables.items()}
    ours = PromptEncoder(TEST).apply(own, grid_hw, method="dense_positions")
    with original.at_grid(model, grid_hw):
        expected = model.prompt_encoder.get_dense_pe()[0].permute(1, 2, 0)
    assert_close(ours, expected)
