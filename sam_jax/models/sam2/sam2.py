"""SAM 2: image encoder, memory, prompt encoder and mask decoder as one module."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Bool, Float, Int, Shaped

from sam_jax.models.features import ImageFeatures
from sam_jax.models.layers import MLP, Dense, add_to_channels, check_images
from sam_jax.models.prompt_encoder import PromptEncoder
from sam_jax.models.sam2.config import Sam2Config
from sam_jax.models.sam2.mask_decoder import MaskDecoder
from sam_jax.models.sam2.mask_selection import single_masks
from sam_jax.models.sam2.memory_attention import MemoryAttention
from sam_jax.models.sam2.memory_encoder import MemoryEncoder
from sam_jax.models.sam2.neck import ImageEncoder
from sam_jax.models.sam2.positions import time_positions
from sam_jax.models.sam2.values import Decoded, Memories
from sam_jax.types import (
    LABEL_ABSENT,
    LABEL_FOREGROUND,
    LABEL_NOT_A_POINT,
    Params,
    Prompts,
    box_corners,
)

# Side of the convolution that makes a mask prompt of a mask.
MASK_STRIDE = 4


class Sam2(nn.Module):
    """The model as a stateless description: `model.apply(params, ..., method=...)` is pure.

    Attributes:
      config: the architecture.
      dtype: compute type, float32 or bfloat16. Parameters, LayerNorm statistics, softmax and the
        decoder's outputs are float32 either way.
      remat: recompute the encoder's blocks in the backward pass to save memory.
      differentiable: whether gradients of memory attention are wanted.
      dynamic_multimask: of `decode`, see `mask_selection.single_masks`.
    """

    config: Sam2Config
    dtype: Any = jnp.float32
    remat: bool = False
    differentiable: bool = False
    dynamic_multimask: bool = True

    def setup(self):
        """The parts, and the learned vectors between them."""
        config = self.config
        dim = config.embed_dim
        small = nn.initializers.truncated_normal(0.02)
        self.image_encoder = ImageEncoder(config, self.dtype, self.remat)
        self.prompt_encoder = PromptEncoder(config, self.dtype)
        self.mask_decoder = MaskDecoder(config, self.dtype)
        self.memory_attention = MemoryAttention(config, self.dtype, self.differentiable)
        self.memory_encoder = MemoryEncoder(config, self.dtype)
        self.object_pointer_projection = MLP(dim, dim, 3)
        self.mask_downsample = nn.Conv(1, (MASK_STRIDE,) * 2, (MASK_STRIDE,) * 2, "VALID")
        shape = (config.num_memories, config.memory_dim)
        self.memory_times = self.param("memory_times", small, shape, jnp.float32)
        self.no_memory_embed = self.param("no_memory_embed", small, (dim,), jnp.float32)
        # In official files; read by nothing, since a first frame's embedding has the vector above.
        self.no_memory_positions = self.param("no_memory_positions", small, (dim,), jnp.float32)
        self.no_object_pointer = self.param("no_object_pointer", small, (dim,), jnp.float32)
        if config.occlusion_embedding:
            width = config.memory_dim
            self.occlusion_embed = self.param("occlusion_embed", small, (width,), jnp.float32)
        if config.pointer_times:
            self.pointer_time_projection = Dense(config.memory_dim)

    def __call__(self, images: Shaped[Array, "B H W 3"], prompts: Prompts) -> Decoded:
        """Segments images by themselves, as a video's first frames."""
        if self.is_initializing():
            self._touch_memory(images)
        features = self.encode_image(images)
        return self.decode_all(self.without_memory(features.embedding), features, prompts)

    def encode_image(self, images: Shaped[Array, "B H W 3"]) -> ImageFeatures:
        """Features of images, which need not be square.

        Args:
          images: RGB, normalized: (value - `config.pixel_mean`) / `config.pixel_std` of values from
            0 to 255, as float32 or bfloat16, batch and channels as the first and last axis;
            stretched to the square of `config.image_size`. `sam_jax.prepare_image` makes that of an
            image and `prepare_images`, under `jit`, of a batch. Neither bytes nor floats from 0 to
            1: those, which cannot be told from normalized ones, give wrong features. Height and
            width may be any multiples of 32.

        Raises:
          ValueError: height or width is no multiple of 32, or images are integers or booleans
            (`InputError`).
        """
        check_images(images)
        return self.image_encoder(images)

    def without_memory(self, embedding: Float[Array, "*B h w C"]) -> Float[Array, "*B h w C"]:
        """An embedding as the decoder wants it where there is no memory to look at."""
        return add_to_channels(embedding, self.no_memory_embed)

    def with_memories(
        self, embedding: Float[Array, "h w C"], memories: Memories
    ) -> Float[Array, "objects h w C"]:
        """One frame's embedding as each object's memories color it."""
        return self.memory_attention(embedding, memories)

    def before_memories(self, embedding: Float[Array, "h w C"]) -> Float[Array, "tokens C"]:
        """What `with_memories` does once for all objects of a frame."""
        return self.memory_attention.shared(embedding)

    def with_memories_of_one(
        self, shared: Float[Array, "tokens C"], memories: Memories
    ) -> Float[Array, "h w C"]:
        """The rest, for one object, whose memories have no axis of objects.

        Args:
          shared: from `before_memories`.
          memories: of the object.
        """
        return self.memory_attention.of_object(shared, memories)

    def decode_all(
        self, embedding: Float[Array, "B h w C"], features: ImageFeatures, prompts: Prompts
    ) -> Decoded:
        """All masks of every prompt of every image.

        Args:
          embedding: from `without_memory` or `with_memories`.
          features: of the same images, or of one image for all.
          prompts: in the frame of the input. What has no prompt, a frame that is tracked, has one
            point with the label -1.

        Raises:
          ValueError: the prompts are empty.
        """
        grid_hw = (embedding.shape[1], embedding.shape[2])
        sparse, sparse_mask, dense = self.prompt_encoder(as_points(prompts), grid_hw)
        image_pe = self.prompt_encoder.dense_positions(grid_hw)
        return self.mask_decoder(
            embedding,
            features.finer,
            image_pe,
            sparse,
            sparse_mask,
            dense,
        )

    def decode(
        self, features: ImageFeatures, prompts: Prompts, multimask: bool = True
    ) -> tuple[Float[Array, "B P M four_h four_w"], Float[Array, "B P M"]]:
        """Mask logits and predicted IoU of prompts on images, as `Sam.decode` gives them.

        Whether the object is in the picture does not matter here, as in the original's image
        predictor.

        Args:
          features: from `encode_image`.
          prompts: in the frame of the input.
          multimask: three masks for an ambiguous prompt (True) or the single one (False); static.

        Raises:
          ValueError: the prompts are empty.
        """
        decoded = self.decode_all(self.without_memory(features.embedding), features, prompts)
        if multimask:
            return decoded.logits[:, :, 1:], decoded.iou[:, :, 1:]
        logits, iou = single_masks(decoded, self.dynamic_multimask)
        return logits[:, :, None], iou[:, :, None]

    def mask_prompts(self, masks: Float[Array, "B P H W"]) -> Float[Array, "B P h w"]:
        """Mask prompts from masks of 0 and 1 at the resolution of the input."""
        batch, prompts = masks.shape[:2]
        out = self.mask_downsample(masks.reshape(-1, *masks.shape[2:], 1))[..., 0]
        return out.reshape(batch, prompts, *out.shape[1:])

    def object_pointer(
        self, token: Float[Array, "*B C"], present: Bool[Array, "*B"]
    ) -> Float[Array, "*B C"]:
        """What later frames know an object by; a learned vector where it is not there."""
        pointer = self.object_pointer_projection(token)
        nobody = jax.lax.broadcast_to_rank(jnp.asarray(self.no_object_pointer), pointer.ndim)
        return jnp.where(present[..., None], pointer, nobody)

    def encode_memory(
        self,
        embedding: Float[Array, "shared_or_B h w C"],
        masks: Float[Array, "B H W"],
        present: Bool[Array, " B"],
    ) -> Float[Array, "B h w M"]:
        """Memories of a frame, one for each object.

        Args:
          embedding: of the frame, from `encode_image`.
          masks: probabilities, or 0 and 1, at the resolution of the input.
          present: whether the object is there.
        """
        memory = self.memory_encoder(embedding, masks)
        if not self.config.occlusion_embedding:
            return memory
        hidden = add_to_channels(memory, self.occlusion_embed)
        return jnp.where(present[:, None, None, None], memory, hidden)

    def frame_times(self, steps: Int[Array, "*B frames"]) -> Float[Array, "*B frames M"]:
        """Positions in time of frames.

        Args:
          steps: how many steps before; 0 for frames with prompts, which have no time.
        """
        return jnp.asarray(self.memory_times)[steps - 1]

    def pointer_tokens(
        self, pointers: Float[Array, "*B n C"], times: Float[Array, "*B n"]
    ) -> tuple[Float[Array, "*B tokens M"], Float[Array, "*B tokens M"]]:
        """Object pointers as tokens of a memory's width, and their positions in time.

        Args:
          pointers: from `object_pointer`.
          times: how long ago, as a part of the longest time.
        """
        config = self.config
        parts = config.embed_dim // config.memory_dim
        *batch, count, _ = pointers.shape
        tokens = pointers.reshape(*batch, count * parts, config.memory_dim)
        if not config.pointer_times:
            return tokens, jnp.zeros_like(tokens)
        positions = self.pointer_time_projection(time_positions(times, config.embed_dim))
        return tokens, jnp.repeat(positions, parts, axis=-2)

    def _touch_memory(self, images: Array) -> None:
        """Every parameter comes to be, whatever the model is initialized with."""
        config = self.config
        side = config.image_encoder.patch_size
        embedding = jnp.zeros((1, 1, 1, config.embed_dim), jnp.float32)
        masks = jnp.zeros((1, side, side), jnp.float32)
        present = jnp.ones((1,), bool)
        memory = self.encode_memory(embedding, masks, present)[:, None]
        token = jnp.zeros((1, 1, config.embed_dim), jnp.float32)
        pointer = self.object_pointer(token, present[:, None])
        tokens = self.pointer_tokens(pointer, jnp.zeros((1, 1), jnp.float32))
        times = self.frame_times(jnp.zeros((1, 1), jnp.int32))
        seen = jnp.ones((1, tokens[0].shape[1]), bool)
        memories = Memories(memory, times, present[:, None], *tokens, seen)
        self.with_memories(embedding[0], memories)
        self.mask_prompts(masks[None])


def as_points(prompts: Prompts) -> Prompts:
    """Boxes as two points, before the others; with the "not a point" token that SAM 2 always adds.

    Raises:
      ValueError: the prompts are empty.
    """
    given = [x for x in (prompts.points, prompts.boxes, prompts.masks) if x is not None]
    if not given:
        raise ValueError("prompts are empty: give points, boxes or masks")
    batch, count = given[0].shape[:2]
    points = jnp.zeros((batch, count, 0, 2), jnp.float32)
    labels = jnp.zeros((batch, count, 0), jnp.int32)
    if prompts.points is not None and prompts.labels is not None:
        points = jnp.asarray(prompts.points, jnp.float32)
        labels = jnp.asarray(prompts.labels, jnp.int32)
    if prompts.boxes is not None:
        corners, corner_labels = box_corners(jnp.asarray(prompts.boxes, jnp.float32))
        points = jnp.concatenate([corners, points], axis=2)
        labels = jnp.concatenate([corner_labels, labels], axis=2)
    # To points without a box the prompt encoder adds it.
    boxed = jnp.any(labels > LABEL_FOREGROUND, axis=-1, keepdims=True)
    extra = jnp.where(boxed, LABEL_NOT_A_POINT, LABEL_ABSENT).astype(labels.dtype)
    return Prompts(
        points=jnp.concatenate([points, jnp.zeros((batch, count, 1, 2), jnp.float32)], axis=2),
        labels=jnp.concatenate([labels, extra], axis=2),
        masks=prompts.masks,
        mask_present=prompts.mask_present,
    )


def variable_shapes(config: Sam2Config) -> Params:
    """The tree of variables that the model needs, as `jax.ShapeDtypeStruct`; allocates nothing."""

    def init():
        side = 4 * config.image_encoder.window_sizes[0]
        side = max(side, 2 * config.image_encoder.patch_size)
        points = jnp.zeros((1, 1, 1, 2), jnp.float32)
        prompts = Prompts(points=points, labels=jnp.zeros((1, 1, 1), jnp.int32))
        images = jnp.zeros((1, side, side, 3), jnp.float32)
        return Sam2(config).init(jax.random.key(0), images, prompts)

    return jax.eval_shape(init)
