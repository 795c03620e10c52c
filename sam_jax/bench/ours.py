"""Our side of the comparison: what `Segmenter` runs."""

from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import UInt8

from sam_jax.bench.packages import POINTS_PER_SIDE, random_input, random_points
from sam_jax.bench.weights import random_variables
from sam_jax.configs import CONFIGS, TINY
from sam_jax.models.features import ImageFeatures
from sam_jax.preprocess import ImagePrompts
from sam_jax.segmenter import Segmenter

# Of the candidates under random weights about this part passes each of the two filters, so that
# some hundreds of masks are left, as of a photo under trained weights.
_PASS_IOU = 0.2
_PASS_STABILITY = 0.5


class Ours:
    """The shipped model, or one with random weights; see `packages.Package`."""

    name = "sam_jax"

    def __init__(
        self,
        model: str,
        dtype: str = "float32",
        photo: UInt8[np.ndarray, "height width 3"] | None = None,
        image_size: int | None = None,
    ):
        """Builds the model; compiles nothing yet.

        Args:
          model: a name in `configs.CONFIGS`.
          dtype: compute type, "float32" or "bfloat16".
          photo: what `generate` works on.
          image_size: side of the input in pixels, if not the configuration's own.
        """
        options: dict[str, Any] = {"dtype": jnp.dtype(dtype), "prompt_batch": 64}
        if model == TINY.name:
            self.segmenter = Segmenter.load(model, image_size=image_size, **options)
        else:
            config = CONFIGS[model]
            config = replace(config, image_size=image_size or config.image_size)
            weights = random_variables(config)
            self.segmenter = Segmenter(config, weights, fingerprint="random", **options)
        device = jax.devices()[0]
        self.device = device.platform if device.platform == "cpu" else device.device_kind
        self.side = self.segmenter.config.image_size
        self.photo = photo
        self._image = random_input(self.side)
        self._features: list[ImageFeatures] = []
        self._generate_options: dict[str, Any] = {}

    def encode(self) -> None:
        """See `packages.Package`."""
        self._features = jax.block_until_ready(self.segmenter.compiled.encode(self._image))

    def decode(self, count: int) -> None:
        """See `packages.Package`."""
        if not self._features:
            self.encode()
        prompts = ImagePrompts(random_points(count, self.side), np.ones((count, 1), np.int32))
        jax.block_until_ready(
            self.segmenter.compiled.decode(self._features, [prompts], True, on_device=True)
        )

    def generate(self) -> list[dict[str, Any]]:
        """See `packages.Package`."""
        assert self.photo is not None
        return self.segmenter.generate(self.photo, **self.generate_options())

    def generate_options(self, points_per_side: int = POINTS_PER_SIDE) -> dict[str, Any]:
        """Options for our `generate` and the original's that suit the weights.

        The shipped model brings its own. Random weights have no scale of quality: thresholds come
        from what they give on a coarse grid, and no boxes are suppressed, because all of them are
        the whole image.
        """
        if not self._generate_options:
            self._generate_options = self._suitable_options()
        return {"points_per_side": points_per_side, **self._generate_options}

    def _suitable_options(self) -> dict[str, Any]:
        if self.segmenter.config.name == TINY.name:
            return {}
        everything: dict[str, Any] = {
            "pred_iou_thresh": 0.0,
            "stability_score_thresh": 0.0,
            "box_nms_thresh": 1.0,
        }
        assert self.photo is not None
        found = self.segmenter.generate_masks(self.photo, points_per_side=8, **everything)
        quality = found.candidates.predicted_iou
        lowest = float(np.quantile(quality, 1 - _PASS_IOU))
        stability = found.candidates.stability_score[quality > lowest]
        return {
            **everything,
            "pred_iou_thresh": lowest,
            "stability_score_thresh": float(np.nanquantile(stability, 1 - _PASS_STABILITY)),
        }
