"""SAM's original and our model side by side, stage by stage; see `convert.verify`."""

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any

import jax
import numpy as np
from jaxtyping import Float

from sam_jax.models.sam.config import SamConfig
from sam_jax.models.sam.sam import Sam
from sam_jax.types import Params, Prompts

Stages = dict[str, np.ndarray]

_STAGE_MODULES = {"patch_embed", "prompt_encoder", "transformer", "output_upscaling"}
_STAGE_LAYERS = re.compile(r"(blocks|layers)_\d+")


def sam_stages(
    original: Any, config: SamConfig, variables: Params, seed: int
) -> tuple[Stages, Stages]:
    """The values of both after every stage, by its name: the original's and ours."""
    side = config.image_encoder.table_size_hw[0] * config.image_encoder.patch_size
    rng = np.random.default_rng(seed)
    images = _image(rng, side)
    prompts = _prompts(rng, side, side * 4 // config.image_encoder.patch_size)
    reference = _run_original(original, images, prompts)
    return reference, _run_ours(config, variables, images, prompts)


def _image(rng: np.random.Generator, side: int) -> Float[np.ndarray, "1 {side} {side} 3"]:
    """A normalized image like a photo: smooth shading, edges, fine noise, padded at the bottom."""
    y, x = np.mgrid[0:side, 0:side] / side
    image = np.zeros((side, side, 3))
    for frequency in (1, 2, 4, 8, 16):
        angle, phase = rng.uniform(0, 2 * np.pi, (2, 3))
        wave = np.cos(angle) * x[..., None] + np.sin(angle) * y[..., None]
        image += np.sin(2 * np.pi * frequency * wave + phase) / frequency
    for _ in range(8):
        (x0, y0), size, colour = rng.random(2), rng.uniform(0.1, 0.4), rng.normal(0, 1, 3)
        image[(abs(x - x0) < size / 2) & (abs(y - y0) < size / 2)] = colour
    image += rng.normal(0, 0.05, image.shape)
    image[side - side // 4 :] = 0
    return image[None].astype(np.float32)


def _prompts(rng: np.random.Generator, side: int, mask_side: int) -> dict[str, Prompts]:
    """Two prompts of each kind, for one image."""
    points = rng.uniform(0, side, (1, 2, 2, 2)).astype(np.float32)
    labels = np.array([[[1, 0], [1, 1]]], np.int32)
    corners = np.sort(rng.uniform(0, side, (1, 2, 2, 2)), axis=2).astype(np.float32)
    boxes = corners.reshape(1, 2, 4)
    y, x = np.mgrid[0:mask_side, 0:mask_side] / mask_side
    centres = rng.uniform(0.3, 0.7, (2, 2, 1, 1))
    distance = np.hypot(x - centres[:, 0], y - centres[:, 1])
    masks = (20 * (0.25 - distance) / 0.25)[None].astype(np.float32)
    return {
        "points": Prompts(points=points, labels=labels),
        "all kinds": Prompts(points=points, labels=labels, boxes=boxes, masks=masks),
    }


def _run_original(model: Any, images: np.ndarray, prompts: Mapping[str, Prompts]) -> Stages:
    import torch

    stages: Stages = {}

    def tensor(array: Any) -> Any:
        return None if array is None else torch.from_numpy(np.asarray(array)[0])

    def keep(name: str, value: Any, channels_first: bool = False) -> None:
        value = value.detach()
        stages[name] = (value.permute(0, 2, 3, 1) if channels_first else value).numpy().copy()

    with torch.no_grad():
        encoder = model.image_encoder
        hooks = {"patch embedding": encoder.patch_embed}
        hooks.update({f"block {i}": block for i, block in enumerate(encoder.blocks)})
        with _hooked(hooks, keep):
            features = encoder(torch.from_numpy(images).permute(0, 3, 1, 2))
        keep("neck", features, channels_first=True)
        for kind, given in prompts.items():
            points = None
            if given.points is not None:
                points = (tensor(given.points), tensor(given.labels))
            masks = None if given.masks is None else tensor(given.masks)[:, None]
            sparse, dense = model.prompt_encoder(points, tensor(given.boxes), masks)
            keep(f"{kind}: sparse prompt embeddings", sparse)
            keep(f"{kind}: dense prompt embeddings", dense, channels_first=True)
            transformer = model.mask_decoder.transformer
            decoder_hooks = {
                f"{kind}: decoder layer {i}": layer for i, layer in enumerate(transformer.layers)
            }
            decoder_hooks[f"{kind}: final attention"] = transformer

            def keep_both(name: str, value: Any) -> None:
                keep(f"{name}, tokens", value[0])
                if "final" not in name:  # which leaves the image side as it was
                    keep(f"{name}, image", value[1])

            def keep_upscaled(name: str, value: Any) -> None:
                keep(name, value, channels_first=True)

            upscaling = {f"{kind}: upscaled embedding": model.mask_decoder.output_upscaling}
            inputs = features, model.prompt_encoder.get_dense_pe(), sparse, dense
            with _hooked(decoder_hooks, keep_both), _hooked(upscaling, keep_upscaled):
                outputs = {multi: model.mask_decoder(*inputs, multi) for multi in (True, False)}
            for multimask, (logits, iou) in outputs.items():
                keep(f"{kind}: {_masks(multimask)}, logits", logits)
                keep(f"{kind}: {_masks(multimask)}, predicted IoU", iou)
    return stages


@contextmanager
def _hooked(modules: Mapping[str, Any], keep: Callable[[str, Any], None]) -> Iterator[None]:
    """Hands every module's output to `keep` as it is computed."""
    handles = [
        module.register_forward_hook(lambda _, __, output, name=name: keep(name, output))
        for name, module in modules.items()
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _run_ours(
    config: SamConfig, variables: Params, images: np.ndarray, prompts: Mapping[str, Prompts]
) -> Stages:
    model = Sam(config)
    stages: Stages = {}
    with jax.default_device(jax.devices("cpu")[0]), jax.default_matmul_precision("highest"):
        features, state = jax.device_get(_encode(model, variables, images))
        inner = state["intermediates"]["image_encoder"]
        stages["patch embedding"] = inner["patch_embed"]["__call__"][0]
        for i in range(config.image_encoder.depth):
            stages[f"block {i}"] = inner[f"blocks_{i}"]["__call__"][0]
        stages["neck"] = features.embedding
        for kind, given in prompts.items():
            outputs, state = jax.device_get(_decode(model, variables, features, given))
            inner = state["intermediates"]
            for multimask, (logits, iou) in outputs.items():
                stages[f"{kind}: {_masks(multimask)}, logits"] = logits
                stages[f"{kind}: {_masks(multimask)}, predicted IoU"] = iou
            sparse, _, dense = inner["prompt_encoder"]["__call__"][0]
            stages[f"{kind}: sparse prompt embeddings"] = sparse
            count = sparse.shape[1]
            stages[f"{kind}: dense prompt embeddings"] = np.repeat(
                dense, count // dense.shape[1], axis=1
            )
            inner = inner["mask_decoder"]
            layers = {
                f"decoder layer {i}": inner["transformer"][f"layers_{i}"]["__call__"][0]
                for i in range(config.decoder_depth)
            }
            layers["final attention"] = inner["transformer"]["__call__"][0]
            for name, (tokens, image) in layers.items():
                stages[f"{kind}: {name}, tokens"] = tokens
                stages[f"{kind}: {name}, image"] = image
            blocks = inner["output_upscaling"]["__call__"][0]
            stages[f"{kind}: upscaled embedding"] = _pixels_in_place(blocks)
    return stages


def _pixels_in_place(blocks: Any) -> Any:
    """Blocks [B, P, h, w, 2, 2, 2, 2, C] of two upscalings as an image [B, P, 4h, 4w, C]."""
    batch, prompts, height, width, *_, channel = blocks.shape
    image = blocks.transpose(0, 1, 2, 4, 6, 3, 5, 7, 8)
    return image.reshape(batch, prompts, 4 * height, 4 * width, channel)


@partial(jax.jit, static_argnums=0)
def _encode(model: Sam, variables: Params, images: Any) -> Any:
    return model.apply(
        variables,
        images,
        method="encode_image",
        capture_intermediates=_is_stage,
        mutable=["intermediates"],
    )


@partial(jax.jit, static_argnums=0)
def _decode(model: Sam, variables: Params, features: Any, prompts: Prompts) -> Any:
    """All masks of a kind of prompt; what both numbers of masks share is compiled and run once."""
    (multi, state), (single, _) = (
        model.apply(
            variables,
            features,
            prompts,
            multimask,
            method="decode",
            capture_intermediates=_is_stage,
            mutable=["intermediates"],
        )
        for multimask in (True, False)
    )
    return {True: multi, False: single}, state


def _is_stage(module: Any, method: str) -> bool:
    """Whether a submodule's output is compared: kept for all, a large model would fill memory."""
    return method == "__call__" and (
        module.name in _STAGE_MODULES or bool(_STAGE_LAYERS.fullmatch(module.name or ""))
    )


def _masks(multimask: bool) -> str:
    return "multimask" if multimask else "single mask"
