"""The original PyTorch package's public classes over sam_jax: change the import, keep the code.

    from segment_anything import SamAutomaticMaskGenerator, SamPredictor, sam_model_registry
    from sam_jax.compat import SamAutomaticMaskGenerator, SamPredictor, sam_model_registry

`ResizeLongestSide` is here too, where the original has it in `segment_anything.utils.transforms`.
Names, signatures, defaults, attributes and results are the original's. What differs:

- PyTorch is not needed. Methods that take tensors work on NumPy arrays, and return them, or on
  PyTorch tensors, and return tensors on the same device. An embedding (`features`,
  `get_image_embedding`) is always a NumPy array; either kind may be assigned to `features`.
- JAX decides where the model runs. `.to(device)` and `.cuda()` only set what `.device` says, which
  is where the caller's own tensors belong: the `torch.device` that was given, or a string with the
  `type` and `index` of one.
- A registry function without a checkpoint takes the one that `sam-jax download` stored, and never
  gives a model with random weights. It also takes our checkpoint directories, and options of
  `Segmenter` such as `dtype`. "tiny" is a further name.
- `pixel_mean`, `pixel_std`, `parameters()` and `state_dict()` give NumPy arrays. There is no
  training: `.train()`, `.half()` and the like raise an error that says what to use.
- Of the model's parts only `image_encoder` can be called; `prompt_encoder` and `mask_decoder` have
  the original's sizes. `sam_jax.Sam` has all parts, as functions.
- `SamAutomaticMaskGenerator` has none of the original's inner steps, such as
  `postprocess_small_regions`. It takes any option that the original computes something from, and
  says at once which one it cannot use.
- What the original asserts raises an error that is an AssertionError and an `InputError`; prompts
  that it would compute nonsense from (NaN, unknown labels) are refused.

A `SamPredictor` holds its image, so threads need one each; they may share the model.
"""

from sam_jax.compat.automatic_mask_generator import SamAutomaticMaskGenerator
from sam_jax.compat.build_sam import (
    build_sam,
    build_sam_tiny,
    build_sam_vit_b,
    build_sam_vit_h,
    build_sam_vit_l,
    load_sam,
    sam_model_registry,
)
from sam_jax.compat.predictor import SamPredictor
from sam_jax.compat.sam import Sam
from sam_jax.compat.transforms import ResizeLongestSide

__all__ = [
    "ResizeLongestSide",
    "Sam",
    "SamAutomaticMaskGenerator",
    "SamPredictor",
    "build_sam",
    "build_sam_tiny",
    "build_sam_vit_b",
    "build_sam_vit_h",
    "build_sam_vit_l",
    "load_sam",
    "sam_model_registry",
]
