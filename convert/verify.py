"""Runs the original and our model side by side and compares them after every stage.

Both get the same image and prompts, and each goes on from its own results, so that errors add up as
they do in use.
"""

import math
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jaxtyping import Float

from convert.conversion import read_state_dict, to_state_dict
from convert.sam.reference import build_original
from convert.sam.table import detect_naming
from convert.sam2.reference import build_original_sam2
from convert.sam2.stages import sam2_stages
from convert.sam2.table import is_sam2
from convert.sam2.variants import detect_sam2_naming
from convert.tables import OFFICIAL
from sam_jax.checkpoints.native import Checkpoint, load_checkpoint
from sam_jax.configs import SamConfig
from sam_jax.models.families import ModelConfig
from sam_jax.models.sam.sam import Sam
from sam_jax.models.sam2.config import Sam2Config
from sam_jax.types import Params, Prompts

# Largest absolute error: of predicted IoU, as it is; of all else, over the reference's deviation.
IOU_BOUND = 1e-4
RELATIVE_BOUND = 2e-4

_STAGE_MODULES = {"patch_embed", "prompt_encoder", "transformer", "output_upscaling"}
_STAGE_LAYERS = re.compile(r"(blocks|layers)_\d+")

Stages = dict[str, np.ndarray]


@dataclass(frozen=True)
class StageError:
    """How far our model is from the original after one stage.

    Attributes:
      stage: its name.
      max_abs: the largest absolute difference.
      reference_std: the standard deviation of the original's values.
      relative: the first over the second.
      bound: what must not be exceeded: by `max_abs` for predicted IoU, by `relative` otherwise.
    """

    stage: str
    max_abs: float
    reference_std: float
    relative: float
    bound: float

    @property
    def passed(self) -> bool:
        """Whether the error is within its bound; never for NaN."""
        return (self.max_abs if _is_iou(self.stage) else self.relative) <= self.bound


def verify(
    source: str | os.PathLike, checkpoint: str | os.PathLike, *, seed: int = 0
) -> list[StageError]:
    """Compares a native checkpoint with the original code, in float32 on the CPU.

    The original loads an official `.pth` itself, with `torch.load`; other files hold names that it
    does not know, and it gets the checkpoint's own values.

    Args:
      source: the file that the checkpoint was converted from (or exported to).
      checkpoint: the native checkpoint's directory.
      seed: of the image and the prompts.

    Returns:
      One error a stage, in the order of computation; `passed` tells which hold.

    Raises:
      InputError: PyTorch or the original is not installed.
      CheckpointError: the source or the checkpoint cannot be used.
    """
    loaded = load_checkpoint(checkpoint)
    config = loaded.config
    build: Any = build_original_sam2 if isinstance(config, Sam2Config) else build_original
    original = build(config)
    _load_weights(original, Path(source), loaded)
    return compare(original, loaded.config, loaded.params, seed=seed)


def compare(
    original: Any, config: ModelConfig, variables: Params, *, seed: int = 0
) -> list[StageError]:
    """Compares our model and the original's, both with their weights; see `verify`."""
    if isinstance(config, Sam2Config):
        reference, ours = sam2_stages(original, config, variables, seed)
    else:
        reference, ours = _sam_stages(original, config, variables, seed)
    errors = []
    for stage, expected in reference.items():
        expected = expected.astype(np.float64)
        difference = ours[stage].reshape(expected.shape) - expected
        max_abs, std = float(np.abs(difference).max()), float(expected.std())
        relative = max_abs / std if std else (math.inf if max_abs else 0.0)
        bound = IOU_BOUND if _is_iou(stage) else RELATIVE_BOUND
        errors.append(StageError(stage, max_abs, std, relative, bound))
    return errors


def _sam_stages(
    original: Any, config: SamConfig, variables: Params, seed: int
) -> tuple[Stages, Stages]:
    side = config.image_encoder.table_size_hw[0] * config.image_encoder.patch_size
    rng = np.random.default_rng(seed)
    images = _image(rng, side)
    prompts = _prompts(rng, side, side * 4 // config.image_encoder.patch_size)
    reference = _run_original(original, images, prompts)
    return reference, _run_ours(config, variables, images, prompts)


def format_table(errors: Sequence[StageError]) -> str:
    """The errors as a table for people, one line a stage and a last line with the verdict."""
    width = max([len(error.stage) for error in errors] + [5])
    lines = [f"{'stage':<{width}}  {'max error':>9}  {'std':>9}  {'relative':>9}  {'bound':>7}"]
    for error in errors:
        lines.append(
            f"{error.stage:<{width}}  {error.max_abs:9.2e}  {error.reference_std:9.2e}  "
            f"{error.relative:9.2e}  {error.bound:7.0e}  {'ok' if error.passed else 'FAILED'}"
        )
    failed = sum(not error.passed for error in errors)
    verdict = "all within their bounds" if not failed else f"{failed} beyond their bounds"
    return "\n".join([*lines, f"{len(errors)} stages: {verdict}"])


def _is_iou(stage: str) -> bool:
    return "predicted IoU" in stage


def _load_weights(original: Any, source: Path, loaded: Checkpoint) -> None:
    import torch

    # Our own reader first: it is strict, and nothing reaches PyTorch that it refuses.
    origin = loaded.source or {}
    place = origin.get("state_dict") if origin.get("file") == source.name else None
    found, is_torch = read_state_dict(source, place)
    tensors = found.tensors
    detect = detect_sam2_naming if is_sam2(tensors) else detect_naming
    state = None
    if detect(tensors) == OFFICIAL:
        plain = is_torch and found.place in ("", "model", "state_dict")
        state = _by_pytorch(source, tensors) if plain else None
        # Behind prefixes that PyTorch's own loading does not see through, or in safetensors.
        state = state or {n: torch.from_numpy(np.array(x, np.float32)) for n, x in tensors.items()}
    else:
        state = {
            name: torch.from_numpy(np.array(array))
            for name, array in to_state_dict(loaded.config, loaded.params).items()
        }
    original.load_state_dict(state, strict=True)


def _by_pytorch(source: Path, tensors: Mapping[str, Any]) -> Any:
    """What `torch.load` reads, or None where that is not a table of exactly these tensors."""
    import pickle

    import torch

    try:
        state = torch.load(source, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError):
        return None
    for wrapper in ("model", "state_dict"):
        state = state[wrapper] if isinstance(state.get(wrapper), Mapping) else state
    return state if state.keys() == tensors.keys() else None


def _image(rng: np.random.Generator, side: int) -> Float[np.ndarray, "1 {side} {side} 3"]:
    """A normalised image like a photo: smooth shading, edges, fine noise, padded at the bottom."""
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
        stages["neck"] = features
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
