"""Gradients of a scalar of logits and scores with respect to every parameter."""

import jax
import jax.numpy as jnp
import numpy as np
import original
import pytest
import torch
from prompt_cases import case
from quick_compile import quick_jit

from sam_jax.configs import TEST, VIT_B
from sam_jax.models.features import ImageFeatures
from sam_jax.models.sam.sam import Sam

# What together reaches every parameter: with and without box, with and without mask, both outputs.
MIXES = (("points", True), ("mask, box and points", False))
# The largest error of a parameter's gradient over that gradient's largest value.
GRADIENT_BOUND = 1e-4


def output_weights(shape, seed):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def weighted_sum(outputs, multiply):
    """The scalar: a random linear form of logits and scores, the same on both sides."""
    return sum(multiply(x, output_weights(x.shape, i)) for i, x in enumerate(outputs))


def original_scalar(model, features, prompts, multimask):
    """Over the images of a batch; `features` are NCHW."""
    logits, iou = [], []
    for image, one in enumerate(features):
        sparse, dense = model.prompt_encoder(**prompts.originals(image))
        out = model.mask_decoder(
            image_embeddings=one[None],
            image_pe=model.prompt_encoder.get_dense_pe(),
            sparse_prompt_embeddings=sparse,
            dense_prompt_embeddings=dense,
            multimask_output=multimask,
        )
        logits.append(out[0])
        iou.append(out[1])
    outputs = torch.stack(logits), torch.stack(iou)
    return weighted_sum(outputs, lambda x, w: torch.sum(x * torch.from_numpy(w)))


def our_scalar(config, variables, features, prompts, multimask):
    outputs = Sam(config).apply(variables, features, prompts.ours(), multimask, method="decode")
    return weighted_sum(outputs, lambda x, w: jnp.sum(x * w))


def assert_same_gradients(ours, expected):
    """Each parameter relative to its own gradient; returns the worst."""
    largest = max(np.abs(x).max() for x in jax.tree.leaves(expected))
    worst = {}
    for path, reference in jax.tree_util.tree_leaves_with_path(expected):
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        value = ours
        for key in path:
            value = value[key.key]
        if name.endswith("k_proj/bias"):
            # Softmax does not see what is added to every logit of a query: zero but for rounding.
            assert np.abs(value).max() < 1e-5 * largest, name
            continue
        scale = np.abs(reference).max()
        assert scale > 0, f"{name} is reached by no gradient"
        worst[name] = float(np.abs(value - reference).max() / scale)
    name = max(worst, key=worst.__getitem__)
    print(f"worst of {len(worst)} gradients: {worst[name]:.1e} ({name})")
    assert worst[name] <= GRADIENT_BOUND, name


def test_gradients_of_all_parameters_equal_pytorchs():
    """On a grid that the tables do not fit, so that their gradients pass the resampling too."""
    grid_hw = (7, 10)
    model = original.build(TEST, seed=1).requires_grad_()
    variables = original.variables(model, TEST)
    images = np.random.default_rng(0).normal(size=(2, 16 * grid_hw[0], 16 * grid_hw[1], 3))
    images = images.astype(np.float32)
    with original.at_grid(model, grid_hw):
        features = model.image_encoder(torch.from_numpy(images).permute(0, 3, 1, 2))
        for mix, multimask in MIXES:
            scalar = original_scalar(model, features, case(mix, grid_hw), multimask)
            scalar.backward(retain_graph=True)

    def total(params):
        own = {**variables, "params": params}
        features = Sam(TEST).apply(own, jnp.asarray(images), method="encode_image")
        return sum(our_scalar(TEST, own, features, case(m, grid_hw), multi) for m, multi in MIXES)

    ours = quick_jit(jax.grad(total))(variables["params"])
    assert_same_gradients(ours, original.gradients(model, TEST))


@pytest.mark.slow
def test_gradients_of_vit_bs_decoder_equal_pytorchs():
    """At full size, with respect to prompt encoder, mask decoder and the image embedding."""
    model = original.build(VIT_B, seed=1)
    variables = original.variables(model, VIT_B)
    heads = {k: v for k, v in variables["params"].items() if k != "image_encoder"}
    model.prompt_encoder.requires_grad_()
    model.mask_decoder.requires_grad_()
    features = np.random.default_rng(0).normal(size=(1, 64, 64, 256)).astype(np.float32)
    nchw = torch.from_numpy(features).permute(0, 3, 1, 2).requires_grad_()
    prompts = [(case(mix, (64, 64), batch=1, prompts=1), multimask) for mix, multimask in MIXES]
    for one, multimask in prompts:
        original_scalar(model, nchw, one, multimask).backward()

    def total(params, features):
        own = {**variables, "params": params}
        seen = ImageFeatures(features)
        return sum(our_scalar(VIT_B, own, seen, one, multi) for one, multi in prompts)

    ours, ours_features = quick_jit(jax.grad(total, argnums=(0, 1)))(heads, jnp.asarray(features))
    expected = original.gradients(model, VIT_B)
    del expected["image_encoder"]
    assert_same_gradients(
        {**ours, "features": ours_features},
        {**expected, "features": nchw.grad.permute(0, 2, 3, 1).numpy()},
    )
