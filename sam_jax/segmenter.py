"""Segmenter: a model for images and prompts as people have them."""

import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property, partial
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from PIL import Image

from sam_jax.adapters.adapter_files import load_adapter
from sam_jax.automatic.generator import generate_masks
from sam_jax.automatic.grids import Crop, image_crops
from sam_jax.automatic.options import generate_options
from sam_jax.automatic.records import GeneratedMasks, warn_of_nothing_kept
from sam_jax.checkpoints import native as checkpoints
from sam_jax.checkpoints.registry import DEFAULT_CHECKPOINT
from sam_jax.embeddings import ImageEmbedding
from sam_jax.errors import CheckpointError, InputError
from sam_jax.forks import refuse_forked
from sam_jax.images import read_image
from sam_jax.inference.compiled_model import CompiledModel
from sam_jax.models.config import ModelConfig
from sam_jax.models.families import build_model, family_of
from sam_jax.models.features import ImageFeatures
from sam_jax.models.input_frame import InputFrame
from sam_jax.one_line import model_line
from sam_jax.postprocess import MaskPrediction, checked_clean, default_clean_area
from sam_jax.preprocess import (
    ImagePrompts,
    check_prompts,
    prepare_image,
    scale_prompts,
    without_empty,
)
from sam_jax.sharding import DATA, place_params, with_automatic_axes
from sam_jax.types import Params, compute_dtype, is_whole

_log = logging.getLogger(__name__)

ImageLike = str | os.PathLike | Image.Image | np.ndarray | jax.Array


class Segmenter:
    """Segments images with a model of any family.

    Nothing in it changes after construction: every method is a function of its arguments, so one
    Segmenter serves any number of threads.

    Attributes:
      config: the model's configuration.
      params: its variables, on the default device; with a mesh, as they were given, and
        `compiled.params` are those on its devices.
      compiled: what runs the model on inputs and prompts that are in its own frame already.
    """

    def __init__(
        self,
        config: ModelConfig,
        params: Params,
        *,
        dtype: Any = jnp.float32,
        fingerprint: str | None = None,
        mesh: Mesh | None = None,
        image_batch: int = 4,
        prompt_batch: int = 32,
        generate_defaults: Mapping[str, Any] | None = None,
    ):
        """Puts the parameters on the device; compiles nothing yet.

        Args:
          config: the architecture; `image_size` may differ from what it was trained with.
          params: variables for it (`load_params`, or `Sam(config).init(...)`).
          dtype: compute type, float32 or bfloat16; a name ("bf16") or a type of NumPy's, JAX's or
            PyTorch's.
          fingerprint: of the parameters, where the caller knows it; computed otherwise.
          mesh: devices that share the work, from `sharding.make_mesh`; nothing else changes. Of
            a mesh of your own, the kinds of its axes do not count. Not for SAM 2.
          image_batch: images that a device encodes at once, at most, when a list is given.
          prompt_batch: prompts that a device decodes at once, at most; bounds the memory of many
            prompts.
          generate_defaults: options of `generate` that suit the parameters, for where a call gives
            none.

        Raises:
          InputError: the image size is no multiple of the patch size, the type is another, a
            batch is below 1, or the mesh does not divide the model.
          CheckpointError: the parameters are not those of the configuration; all are listed.
        """
        refuse_forked()
        patch = config.image_encoder.patch_size
        size = config.image_size
        if not isinstance(size, int) or size < patch or size % patch:
            raise InputError(f"image_size {size!r} is not a multiple of the patch size {patch}")
        dtype = compute_dtype(dtype)
        for name, count in (("image_batch", image_batch), ("prompt_batch", prompt_batch)):
            if not is_whole(count) or count < 1:
                raise InputError(f"{name} must be a whole number, at least 1, not {count!r}")
        family = family_of(config)
        if mesh is not None and not family.over_mesh:
            raise InputError(f"{family.title} runs on one device; give no mesh")
        try:
            family.check(config)
        except CheckpointError as error:
            raise InputError(str(error)) from None
        checkpoints.check_params(config, params)
        mesh = None if mesh is None else with_automatic_axes(mesh)
        self.config = config
        self.params = jax.device_put(params) if mesh is None else params
        placed = self.params if mesh is None else place_params(config, params, mesh)
        model = build_model(config, dtype)
        self.compiled = CompiledModel(model, placed, image_batch, prompt_batch, mesh)
        self._known_fingerprint = fingerprint
        self._generate_defaults = {**family.generate_defaults, **(generate_defaults or {})}

    def __repr__(self) -> str:
        # Not `fingerprint`, which takes long where it is not known yet.
        known = vars(self).get("fingerprint", self._known_fingerprint)
        return model_line(self, self.params, dtype=self.compiled.model.dtype, fingerprint=known)

    @classmethod
    def load(
        cls,
        name: str | os.PathLike | None = None,
        *,
        image_size: int | None = None,
        adapter: str | os.PathLike | None = None,
        **options: Any,
    ) -> "Segmenter":
        """A Segmenter for a shipped or downloaded model, or a checkpoint directory.

        Args:
          name: a name ("tiny", "vit_b") or the path of a native checkpoint. None is "tiny", the
            small model in the package; the log then says so in one line (on stderr, if nobody
            set up logging), and how to get the official weights.
          image_size: length to which the longest side is scaled, if not the checkpoint's own; a
            multiple of the patch size. Position tables are resized.
          adapter: what fine-tuning changed in that checkpoint (`adapters.save_adapter`).
          **options: as for the constructor.

        Raises:
          CheckpointError: there is none by that name, or it is damaged or does not fit.
        """
        refuse_forked()
        if name is None:
            name = DEFAULT_CHECKPOINT
            _log.warning(
                "using the small built-in model %r; for the official weights run `sam-jax download "
                'vit_b` and load "vit_b"',
                name,
            )
        checkpoint = checkpoints.load_checkpoint(name)
        params, fingerprint = checkpoint.params, checkpoint.fingerprint
        if adapter is not None:
            params = load_adapter(adapter, checkpoint)
            fingerprint = checkpoints.fingerprint(checkpoint.config, params)
        config = checkpoint.config
        if image_size is not None:
            config = replace(config, image_size=image_size)
        known = {"fingerprint": fingerprint, "generate_defaults": checkpoint.generate}
        return cls(config, params, **{**known, **options})

    @cached_property
    def fingerprint(self) -> str:
        """Identifies the parameters; an embedding carries it, and another model refuses it."""
        return self._known_fingerprint or checkpoints.fingerprint(self.config, self.params)

    @property
    def generate_defaults(self) -> dict[str, Any]:
        """Options of `generate` that the checkpoint brings along, for where a call gives none."""
        return dict(self._generate_defaults)

    def encode(
        self, images: ImageLike | Sequence[ImageLike]
    ) -> ImageEmbedding | list[ImageEmbedding]:
        """Embeds an image, or a list of images of any sizes.

        Args:
          images: path, PIL image or array (uint8, or float in [0, 1]; [H, W, 3] or what
            `images.read_image` accepts); or a list of these.

        Returns:
          One embedding, or a list of them.

        Raises:
          InputError: an image cannot be read or used.
        """
        if isinstance(images, (list, tuple)):
            return self._encode_list(images)
        return self._encode_list([cast(ImageLike, images)])[0]

    def predict(
        self,
        embedding: Any,
        *,
        points: Any = None,
        labels: Any = None,
        boxes: Any = None,
        masks: Any = None,
        multimask: bool = True,
        clean: bool | int | None = None,
    ) -> MaskPrediction | list[MaskPrediction]:
        """Predicts masks for prompts on an image, or on each of a list of images.

        P prompts an image; whatever is given shares P. A single prompt may leave out that axis.
        P may be 0: boxes [0, 4], points [0, N, 2] or an empty list give no masks, and in a list of
        images so does one without any prompt.

        Args:
          embedding: an `ImageEmbedding` from `encode` of this model; or a list of them, and then
            everything below is a list with one entry an image (None where an image has none).
          points: [P, N, 2], (x, y) in pixels of the image. Prompts may have different numbers of
            points: a list of [N_i, 2].
          labels: [P, N], 1 foreground and 0 background; left out, all are foreground.
          boxes: [P, 4], x0 y0 x1 y1 in pixels of the image.
          masks: [P, s, s] logits from an earlier prediction, s as in `logits` (256 of an
            official model).
          multimask: three masks a prompt (for a single point, which is ambiguous), or one.
          clean: fill holes and remove islands of masks below this many pixels of the image; True
            for the area of a cell of the image embedding. Scores and logits stay as they are.

        Returns:
          A `MaskPrediction` of host arrays, or a list of them.

        Raises:
          InputError: a prompt cannot be used, an embedding is of another model, or `clean` is no
            area.
        """
        embeddings, many = _as_list(embedding)
        clean = checked_clean(clean)
        pairs = self._predict(embeddings, points, labels, boxes, masks, multimask, many)
        out = [
            self._prediction(*pair, one, clean) for pair, one in zip(pairs, embeddings, strict=True)
        ]
        return out if many else out[0]

    def predict_logits(
        self,
        embedding: Any,
        *,
        points: Any = None,
        labels: Any = None,
        boxes: Any = None,
        masks: Any = None,
        multimask: bool = True,
    ) -> Any:
        """Like `predict`, but the results stay on the device and no full-size mask is made.

        Returns:
          (logits [P, M, s, s], scores [P, M]), float32 JAX arrays; a list of such pairs for a list
          of embeddings. Cutting away the padding of a new number of prompts compiles a small slice.

        Raises:
          InputError: as `predict`.
        """
        embeddings, many = _as_list(embedding)
        out = self._predict(
            embeddings, points, labels, boxes, masks, multimask, many, on_device=True
        )
        return out if many else out[0]

    def generate(
        self,
        image: ImageLike | ImageEmbedding,
        *,
        preset: str = "default",
        output_mode: str = "binary_mask",
        **options: Any,
    ) -> list[dict[str, Any]]:
        """Masks of everything in an image (the original's `SamAutomaticMaskGenerator.generate`).

        Args:
          image: as for `encode`; or an embedding of this model, without crop layers or tiles.
          preset: "default", "fast", "dense" or "paper", see `automatic.options.PRESETS`.
          output_mode: "binary_mask", "uncompressed_rle" or "coco_rle": what `segmentation` is.
          **options: fields of `automatic.options.GenerateOptions`, such as `points_per_side`,
            `pred_iou_thresh`, `crop_n_layers`, `min_mask_region_area`, `nms`, `tile_size`. What is
            not given has the value that the checkpoint brings along, else the preset's.

        Returns:
          One dict a mask, with the original's keys; see `GeneratedMasks.records`. Where filters
          dropped every candidate, a warning says which.

        Raises:
          InputError: the image cannot be read, an option is unknown or out of its range, an
            embedding is of another model or given with crops, or masks as arrays would take more
            than 4 GiB.
        """
        found = self.generate_masks(image, preset=preset, **options)
        warn_of_nothing_kept(found)
        return found.records(output_mode)

    def generate_masks(
        self, image: ImageLike | ImageEmbedding, *, preset: str = "default", **options: Any
    ) -> GeneratedMasks:
        """As `generate`, but the masks stay runs, with a report of what each filter dropped."""
        chosen = generate_options(preset, **{**self._generate_defaults, **options})
        model, params, mesh = self.compiled.model, self.compiled.params, self.compiled.mesh
        if chosen.use_m2m and mesh is not None:
            raise InputError("use_m2m runs on one device; give the Segmenter no mesh")
        if isinstance(image, ImageEmbedding):
            if chosen.crop_n_layers or chosen.tile_size:
                raise InputError(
                    "crops and tiles are encoded one by one: give the image, not its embedding"
                )
            self._check_embedding(image)
            features = self.compiled.with_params(_features(image))
            with jax.default_device(self.compiled.device):
                return generate_masks(
                    model, params, lambda _: features, image.size_hw, chosen, mesh
                )
        pixels = read_image(image)
        size_hw = (pixels.shape[0], pixels.shape[1])
        crops = image_crops(size_hw, chosen)
        # As many crops are encoded at once as fill a batch; they are asked for in turn.
        at_once = 1 if mesh is None else mesh.shape[DATA]
        ahead: dict[Crop, Any] = {}

        def features_of(crop: Crop) -> Any:
            if crop not in ahead:
                start = crops.index(crop)
                group = crops[start : start + at_once]
                parts = [pixels[y0:y1, x0:x1] for x0, y0, x1, y1 in (one.box for one in group)]
                encoded = self._encode_list(parts)
                ahead.update({one: _features(e) for one, e in zip(group, encoded, strict=True)})
            return ahead.pop(crop)

        with jax.default_device(self.compiled.device):
            return generate_masks(model, params, features_of, size_hw, chosen, mesh)

    def _encode_list(self, images: Sequence[ImageLike]) -> list[ImageEmbedding]:
        if not images:
            raise InputError("the list of images is empty")
        sizes: list[tuple[int, int]] = []

        def inputs() -> Iterator[np.ndarray]:
            for image in images:
                array = read_image(image)
                sizes.append((array.shape[0], array.shape[1]))
                yield prepare_image(array, self.config)

        features, name = self.compiled.encode(inputs()), self.config.name
        return [
            ImageEmbedding(one.embedding, size_hw, self.fingerprint, one.finer, name)
            for one, size_hw in zip(features, sizes, strict=True)
        ]

    def _frame(self, embedding: ImageEmbedding) -> InputFrame:
        side = embedding.features.shape[0] * self.config.image_encoder.patch_size
        return self.config.frame.with_side(side)

    def _predict(
        self, embeddings, points, labels, boxes, masks, multimask, many, on_device=False
    ) -> list[tuple[Any, Any]]:
        given = {"points": points, "labels": labels, "boxes": boxes, "masks": masks}
        per_image = _prompts_per_image(given, len(embeddings), many)
        prompts = [
            self._model_prompts(embedding, one, i if many else None)
            for i, (embedding, one) in enumerate(zip(embeddings, per_image, strict=True))
        ]
        features = [_features(embedding) for embedding in embeddings]
        found = self.compiled.decode(features, prompts, multimask, on_device=on_device)
        limit = family_of(self.config).feedback_limit
        if not on_device or limit is None:
            return found
        return [(_limited(logits, limit), scores) for logits, scores in found]

    def _prediction(
        self, logits: Any, scores: Any, embedding: ImageEmbedding, clean: bool | int
    ) -> MaskPrediction:
        """Where a family limits what can be given back, masks are made of what is not limited."""
        frame, size_hw = self._frame(embedding), embedding.size_hw
        limit, unlimited = family_of(self.config).feedback_limit, None
        if clean is True:
            clean = default_clean_area(size_hw, frame, logits.shape[-1])
        if limit is not None:
            unlimited, logits = logits, np.clip(logits, -limit, limit)
        threshold, name = self.config.mask_threshold, self.config.name
        return MaskPrediction(
            scores, logits, size_hw, frame, threshold, unlimited, int(clean), name
        )

    def _check_embedding(self, embedding: Any, where: str = "") -> None:
        if not isinstance(embedding, ImageEmbedding):
            raise InputError(
                f"{where}predict needs an embedding from encode(image), "
                f"not {type(embedding).__name__}"
            )
        if embedding.fingerprint != self.fingerprint:
            raise InputError(
                f"{where}the embedding was made by another model ({embedding.fingerprint[:12]}, "
                f"this one is {self.fingerprint[:12]}); encode the image again with this model"
            )
        shape = tuple(embedding.features.shape)
        channels = self.config.embed_dim
        if len(shape) != 3 or shape[0] != shape[1] or shape[2] != channels:
            raise InputError(
                f"{where}the embedding has features of shape {shape}, not "
                f"(side, side, {channels}); encode the image again"
            )
        finer = tuple(tuple(one.shape) for one in embedding.finer)
        if finer != self.config.feature_shapes(shape[0])[1:]:
            raise InputError(
                f"{where}the embedding has finer features of shapes {list(finer)}; "
                "encode the image again"
            )

    def _model_prompts(self, embedding, given, image: int | None) -> ImagePrompts:
        where = "" if image is None else f"image {image}: "
        self._check_embedding(embedding, where)
        size_hw = embedding.size_hw
        given = without_empty(given)
        if given is None or (image is not None and all(one is None for one in given.values())):
            return ImagePrompts()
        try:
            checked = check_prompts(
                **given, size_hw=size_hw, mask_size=4 * embedding.features.shape[0]
            )
        except InputError as error:
            raise InputError(f"{where}{error}") from None
        return scale_prompts(checked, size_hw, self._frame(embedding))


@partial(jax.jit, static_argnums=1)
def _limited(logits: jax.Array, limit: float) -> jax.Array:
    return jnp.clip(logits, -limit, limit)


def _features(embedding: ImageEmbedding) -> ImageFeatures:
    return ImageFeatures(embedding.features, tuple(embedding.finer))


def _as_list(embedding: Any) -> tuple[list[Any], bool]:
    if isinstance(embedding, (list, tuple)):
        if not embedding:
            raise InputError("the list of embeddings is empty")
        return list(embedding), True
    return [embedding], False


def _prompts_per_image(given: dict[str, Any], count: int, many: bool) -> list[dict[str, Any]]:
    if not many:
        return [given]
    if all(given[name] is None for name in ("points", "boxes", "masks")):
        raise InputError("no prompt is given: give points, boxes or masks")
    for name, value in given.items():
        if value is not None and (not isinstance(value, (list, tuple)) or len(value) != count):
            length = len(value) if isinstance(value, (list, tuple)) else "no list"
            raise InputError(
                f"for {count} embeddings {name} must be a list with one entry an image "
                f"(None where an image has none), not {length}"
            )
    return [
        {name: None if value is None else value[i] for name, value in given.items()}
        for i in range(count)
    ]
