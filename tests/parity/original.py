"""The original PyTorch code as a reference: importing it, building it, filling it with values.

The package on PyPI, segment-anything 1.0, is the original source. It wants torchvision for two
things: Pillow's resizing and box suppression. Where torchvision is not installed, a stand-in takes
its place for as long as the import lasts.
"""

import importlib
import importlib.util
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from types import ModuleType

import jax
import jax.numpy as jnp
import numpy as np
import torch
from PIL import Image
from torch.nn import functional

from convert.conversion import from_state_dict
from convert.sam.reference import build_original
from sam_jax.configs import SamConfig
from sam_jax.types import Params


@cache
def segment_anything() -> ModuleType:
    """The original package."""
    if importlib.util.find_spec("torchvision") is not None:
        return importlib.import_module("segment_anything")
    stand_in = _torchvision_stand_in()
    sys.modules.update(stand_in)
    try:
        return importlib.import_module("segment_anything")
    finally:
        for name in stand_in:
            del sys.modules[name]


def build(config: SamConfig, seed: int = 0):
    """The original model for a configuration, with random values everywhere, on the CPU."""
    registry = segment_anything().sam_model_registry
    # Where it has a name, what users of the original call: our preset must describe that model.
    model = registry[config.name]() if config.name in registry else build_original(config)
    randomise(model, seed)
    # A reference for values; what wants gradients asks for them.
    return model.eval().requires_grad_(False)


def randomise(model: torch.nn.Module, seed: int) -> None:
    """Fills every parameter and buffer, so that nothing is zero or one where training moves it.

    Activations keep their order of magnitude from layer to layer: a reference that saturates or
    dies out would agree with anything.
    """
    rng = np.random.default_rng(seed)
    for name, tensor in model.state_dict().items():
        values = rng.standard_normal(tuple(tensor.shape), np.float32)
        tensor.copy_(torch.from_numpy(_scaled(name, values)))


def _scaled(name: str, values: np.ndarray) -> np.ndarray:
    *_, module, kind = name.split(".")
    if "rel_pos" in kind:
        return 0.2 * values
    if kind in ("pos_embed", "bias"):
        return 0.3 * values
    if values.ndim == 1:
        return 1.0 + 0.3 * values
    is_token = module.endswith(("embed", "token", "tokens")) or "point_embeddings" in name
    if is_token or "gaussian" in kind:
        return values
    if name.startswith("mask_decoder.output_upscaling"):
        # A transposed convolution's weight is [in, out, height, width].
        return 2.0 * values * values.shape[0] ** -0.5
    if name.startswith("mask_decoder.output_hypernetworks_mlps"):
        # They weigh channels that GELU has made positive on average. Weights that sum to zero let
        # masks straddle the threshold, where a wrong logit shows.
        values = values - values.mean(axis=0)
    return values * np.prod(values.shape[1:]) ** -0.5


def variables(model: torch.nn.Module, config: SamConfig) -> Params:
    """The same weights for our model, by the converter that users run."""
    state = {name: tensor.numpy() for name, tensor in model.state_dict().items()}
    return jax.tree.map(jnp.asarray, from_state_dict(config, state))


def gradients(model: torch.nn.Module, config: SamConfig) -> Params:
    """The gradients of all parameters in our layout; zeros where backward did not get to."""
    found = {name: torch.zeros_like(tensor) for name, tensor in model.state_dict().items()}
    for name, parameter in model.named_parameters():
        if parameter.grad is not None:
            found[name] = parameter.grad
    # Gradients are laid out as what they belong to, so the converter takes them too.
    tree = from_state_dict(config, {name: tensor.numpy() for name, tensor in found.items()})
    return tree["params"]


@contextmanager
def at_grid(model, grid_hw: tuple[int, int]) -> Iterator[None]:
    """Lets the original take images of `grid_hw` tokens, which its own code fixes to one square.

    The absolute position table is resized bicubically, as ViTDet does when it is given other sizes;
    the relative ones the original resizes itself. Gradients reach the table as it is stored.
    """
    encoder, prompts = model.image_encoder, model.prompt_encoder
    patch = encoder.patch_embed.proj.kernel_size[0]
    table = encoder.pos_embed
    before = prompts.image_embedding_size, prompts.input_image_size
    resized = functional.interpolate(
        table.permute(0, 3, 1, 2), grid_hw, mode="bicubic", align_corners=False
    )
    del encoder.pos_embed
    encoder.pos_embed = resized.permute(0, 2, 3, 1)
    prompts.image_embedding_size = grid_hw
    prompts.input_image_size = (grid_hw[0] * patch, grid_hw[1] * patch)
    try:
        yield
    finally:
        del encoder.pos_embed
        encoder.pos_embed = table
        prompts.image_embedding_size, prompts.input_image_size = before


def _torchvision_stand_in() -> dict[str, ModuleType]:
    """The four names that the original imports, in the modules that it expects them in."""

    def to_pil_image(array: np.ndarray) -> Image.Image:
        return Image.fromarray(array)

    def resize(image: Image.Image, size_hw: tuple[int, int]) -> Image.Image:
        # All that torchvision does with a Pillow image; Pillow's bilinear filter antialiases.
        return image.resize(size_hw[::-1], Image.Resampling.BILINEAR)

    def batched_nms(boxes, scores, categories, iou_threshold: float) -> torch.Tensor:
        # The original knows one category. Scores are sorted stably; overlaps are float32, the
        # threshold is not.
        assert not categories.any()
        order = torch.argsort(scores, descending=True, stable=True).tolist()
        values = boxes.numpy().astype(np.float32)
        kept: list[int] = []
        for i in order:
            if all(overlap(values[i], values[k]) <= iou_threshold for k in kept):
                kept.append(i)
        return torch.tensor(kept, dtype=torch.int64)

    def overlap(a: np.ndarray, b: np.ndarray) -> float:
        sides = np.maximum(np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2]), 0)
        shared = sides[0] * sides[1]
        either = np.prod(a[2:] - a[:2]) + np.prod(b[2:] - b[:2]) - shared
        return float(shared / either) if either else 0.0

    def box_area(boxes: torch.Tensor) -> torch.Tensor:
        return (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])

    names = ("torchvision", "torchvision.ops", "torchvision.transforms")
    modules = {name: ModuleType(name) for name in names}
    functions = ModuleType("torchvision.transforms.functional")
    functions.to_pil_image, functions.resize = to_pil_image, resize  # type: ignore[attr-defined]
    boxes = ModuleType("torchvision.ops.boxes")
    boxes.batched_nms, boxes.box_area = batched_nms, box_area  # type: ignore[attr-defined]
    return {**modules, functions.__name__: functions, boxes.__name__: boxes}
