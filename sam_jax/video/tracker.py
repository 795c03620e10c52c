"""Objects followed through a video, frame by frame (SAM 2)."""

import operator
import os
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import UInt8

from sam_jax.checkpoints import native as checkpoints
from sam_jax.errors import CheckpointError, InputError
from sam_jax.forks import refuse_forked
from sam_jax.images import read_image
from sam_jax.models.families import family_of
from sam_jax.models.features import ImageFeatures
from sam_jax.models.sam2.config import Sam2Config
from sam_jax.models.sam2.mask_selection import ABSENT
from sam_jax.models.sam2.sam2 import Sam2
from sam_jax.one_line import model_line, one_line
from sam_jax.segmenter import ImageLike
from sam_jax.types import Params, compute_dtype, is_whole
from sam_jax.video import programs
from sam_jax.video.inputs import mask_input, padded_points, prepare_frame, prompt_points
from sam_jax.video.programs import TrackingRules
from sam_jax.video.state import Bank, Followed, TrackerState, empty_bank
from sam_jax.video.tracked_masks import TrackedMasks

# Objects that are followed at once, at most, unless more are asked for.
MAX_OBJECTS = 16
# Frames' indices stay below this, so that differences of two of them, or of one and `EMPTY`, fit.
MAX_FRAMES = 1 << 30


@dataclass(frozen=True, eq=False)
class EncodedFrame:
    """A frame that was encoded: given in its place, it is not encoded again.

    Attributes:
      features: from the image encoder.
      size_hw: height and width of the frame itself.
      config: of the model that encoded it.
      fingerprint: of its parameters; a Tracker with others refuses it.
    """

    features: ImageFeatures
    size_hw: tuple[int, int]
    config: Sam2Config
    fingerprint: str

    __repr__ = one_line


class Tracker:
    """Follows objects through video with a SAM 2 model.

    Nothing in it changes after construction. What is known of a video is a value, the state: each
    call takes one and gives a new one, whose size depends on the number of objects alone. Old
    states stay valid, so a video can be gone back in, or followed in two ways.

        tracker = Tracker.load("sam2.1_tiny")
        state = tracker.start(frames[0].shape[:2])
        state = tracker.prompt(state, frames[0], "dog", points=[[310, 220]])
        for frame in frames:
            state, found = tracker.step(state, frame)
            found.masks  # bool [objects, H, W]

    Attributes:
      config: the model's configuration.
      params: its variables, on the default device.
    """

    def __init__(
        self,
        config: Sam2Config,
        params: Params,
        *,
        dtype: Any = jnp.float32,
        memory_dtype: Any = jnp.bfloat16,
        conditioning_frames: int = 8,
        recent_frames: int = 7,
        max_objects: int = MAX_OBJECTS,
        dynamic_multimask: bool = True,
        binarize_prompted: bool = True,
        fill_hole_area: int = 8,
        overlapping: bool = True,
        fingerprint: str | None = None,
    ):
        """Puts the parameters on the device; compiles nothing yet.

        Args:
          config: the architecture.
          params: variables for it.
          dtype: compute type, float32 or bfloat16.
          memory_dtype: what memories are kept as (original: bfloat16).
          conditioning_frames: frames with prompts that are remembered for each object. All of them
            are looked at; where there are more, the one furthest from the new one is forgotten, but
            never the earliest.
          recent_frames: frames without prompts that are remembered for each object, at least the
            six that are looked at; with one more, the last frame can be corrected and stepped to
            again. Of older ones only pointers are kept. With as many as the video
            has, going backward and correcting frames far back are as in the original, which keeps
            all.
          max_objects: that are followed at once. Arrays have room for 1, 2, 4, 8, ... of them.
          dynamic_multimask: see `programs.TrackingRules`, and so are the next two; all are on in
            the original unless its builders are told otherwise.
          binarize_prompted: memories of frames with prompts are of masks, not of probabilities.
          fill_hole_area: holes of so many low-resolution pixels are filled; 0 for none.
          overlapping: whether a pixel may belong to several objects.
          fingerprint: of the parameters, where the caller knows it; computed otherwise, if frames
            are encoded ahead.

        Raises:
          InputError: a value is out of its range.
          CheckpointError: the parameters are not those of the configuration; all are listed.
        """
        refuse_forked()
        least = config.num_memories - 1
        numbers = {
            "conditioning_frames must be at least 1": (conditioning_frames, 1, MAX_FRAMES),
            f"recent_frames must be at least {least}": (recent_frames, least, MAX_FRAMES),
            "max_objects must be from 1 to 1024": (max_objects, 1, 1024),
            "fill_hole_area must be from 0 to 64": (fill_hole_area, 0, 64),
        }
        dtype, memory_dtype = compute_dtype(dtype), compute_dtype(memory_dtype, "memory_dtype")
        for rule, (value, low, high) in numbers.items():
            if not is_whole(value) or not low <= value <= high:
                raise InputError(f"{rule}, a whole number, not {value!r}")
        checkpoints.check_params(config, params)
        self.config = config
        self.params = jax.device_put(params)
        self.overlapping = overlapping
        self._known_fingerprint = fingerprint
        self._model = Sam2(config, dtype)
        self._memory_dtype = memory_dtype
        self._slots = (conditioning_frames, recent_frames)
        self._max_objects = max_objects
        self._rules = TrackingRules(dynamic_multimask, binarize_prompted, fill_hole_area)

    def __repr__(self) -> str:
        return model_line(self, self.params, dtype=self._model.dtype)

    @classmethod
    def load(cls, name: str | os.PathLike, **options: Any) -> "Tracker":
        """A Tracker for a downloaded model or a checkpoint directory.

        Args:
          name: a name ("sam2.1_tiny") or the path of a native checkpoint.
          **options: as for the constructor.

        Raises:
          CheckpointError: there is none by that name, it is damaged, or it is no SAM 2 model.
        """
        refuse_forked()
        checkpoint = checkpoints.load_checkpoint(name)
        if not family_of(checkpoint.config).tracks:
            raise CheckpointError(
                f"{name} is {checkpoint.config.name!r}, a model for images; video needs SAM 2, "
                "such as sam2.1_tiny"
            )
        known = {"fingerprint": checkpoint.fingerprint}
        return cls(cast(Sam2Config, checkpoint.config), checkpoint.params, **{**known, **options})

    @cached_property
    def fingerprint(self) -> str:
        """Identifies the parameters; encoded frames carry it, and other parameters refuse them."""
        return self._known_fingerprint or checkpoints.fingerprint(self.config, self.params)

    def start(self, frame_size: Any, *, num_frames: Any = None) -> TrackerState:
        """The state before the first frame.

        Args:
          frame_size: (height, width) of all frames, in pixels.
          num_frames: of the video, where it is known, else None or 0. Positions in time of videos
            shorter than `config.max_pointers` frames depend on it, as in the original.

        Raises:
          InputError: the size or the number is none.
        """
        refuse_forked()
        try:
            height, width = map(operator.index, frame_size)
        except (TypeError, ValueError):
            height = width = 0
        if min(height, width) < 1:
            raise InputError(f"frame_size must be (height, width), not {frame_size!r}")
        try:
            count = operator.index(num_frames or 0)
        except TypeError:
            count = -1
        if count < 0:
            raise InputError(f"num_frames must be a whole number from 0 on, not {num_frames!r}")
        return TrackerState(
            self._bank(1), (None,), (height, width), num_frames=count, model=self.config.name
        )

    def encode(self, frame: ImageLike) -> EncodedFrame:
        """Encodes a frame that is to be used several times; `prompt` and `step` take it too.

        Args:
          frame: path, PIL image or array, as for `Segmenter.encode`.

        Raises:
          InputError: it cannot be read.
        """
        refuse_forked()
        image = read_image(frame)
        size_hw = (image.shape[0], image.shape[1])
        return EncodedFrame(self._features(image), size_hw, self.config, self.fingerprint)

    def prompt(
        self,
        state: TrackerState,
        frame: ImageLike | EncodedFrame,
        object_id: Any,
        *,
        points: Any = None,
        labels: Any = None,
        box: Any = None,
        mask: Any = None,
        frame_index: Any = None,
    ) -> TrackerState:
        """Says what an object is in a frame: a new object, or one that is followed already.

        All clicks on an object in a frame are given together; later ones replace them. A frame
        that was tracked before is corrected with regard to its memories, and is a conditioning
        frame from then on (the original's `add_all_frames_to_correct_as_cond`).

        Args:
          state: of the video.
          frame: the picture.
          object_id: of any hashable kind but None.
          points: [N, 2], (x, y) in pixels of the frame.
          labels: [N], 1 foreground and 0 background; left out, all are foreground.
          box: [4], x0 y0 x1 y1 in pixels of the frame; may be given together with points.
          mask: bool [H, W] instead of points and box.
          frame_index: which frame it is; left out, the one that is stepped to next.

        Returns:
          The state with that; `step` on the same frame gives the mask.

        Raises:
          InputError: a prompt, the frame or its index cannot be used, or there are too many
            objects.
        """
        refuse_forked()
        if frame_index is None:
            frame_index = state.frame_index + 1
        frame_index = _checked_frame_index(state, frame_index)
        if object_id is None or not _is_hashable(object_id) or object_id != object_id:
            raise InputError(
                f"{object_id!r} is no object_id: give a number or a text, or whatever else can be "
                "a dictionary's key and is equal to itself"
            )
        if mask is None:
            given = prompt_points(points, labels, box, state.frame_size, self.config)
        elif points is not None or box is not None or labels is not None:
            raise InputError("give a mask, or points and a box, not both")
        else:
            drawn = jax.device_put(mask_input(mask, state.frame_size, self.config))
        features = self._encoded(state, frame)
        state, slot = self._with_object(state, object_id)
        index, place = jax.device_put((np.int32(slot), np.int32(frame_index)))
        own = programs.object_bank(state.bank, index)
        head = (self._model, self._rules, self.params, own, features, place)
        if mask is not None:
            own, _ = programs.prompt_with_mask(*head, drawn)
        else:
            coords, kinds = jax.device_put(padded_points(*given))
            span = self._pointer_frames(state)
            own, _ = programs.prompt_with_points(*head, coords, kinds, span)
        return replace(state, bank=programs.with_object_bank(state.bank, index, own))

    def step(
        self,
        state: TrackerState,
        frame: ImageLike | EncodedFrame | None,
        *,
        backward: bool = False,
        frame_index: Any = None,
    ) -> tuple[TrackerState, TrackedMasks]:
        """All objects in the next frame.

        Args:
          state: of the video.
          frame: the picture; None for one that a camera dropped, which nothing is learnt from.
          backward: whether the video is gone through from its end.
          frame_index: which frame it is; left out, the next one in that direction.

        Returns:
          The new state and the masks.

        Raises:
          InputError: the frame cannot be read, has another size, or is none of the video.
        """
        refuse_forked()
        if frame_index is None:
            frame_index = state.frame_index + (-1 if backward else 1)
        frame_index = _checked_frame_index(state, frame_index)
        if frame is None:
            state = replace(state, frame_index=frame_index)
            return state, self._nothing(state)
        features = self._encoded(state, frame)
        if not state.objects:
            state = replace(state, frame_index=frame_index)
            return state, replace(self._nothing(state), dropped=False)
        bank, followed = programs.follow(
            self._model,
            self._rules,
            self.params,
            state.bank,
            features,
            *jax.device_put((np.int32(frame_index), np.int32(-1 if backward else 1))),
            self._pointer_frames(state),
        )
        state = replace(state, bank=bank, frame_index=frame_index)
        return state, self._shown(state, followed)

    def remove(self, state: TrackerState, object_id: Any) -> TrackerState:
        """The state without an object; the others are as they were.

        Raises:
          InputError: there is no such object.
        """
        refuse_forked()
        known = _is_hashable(object_id) and object_id in state.objects
        if not known:
            raise InputError(f"there is no object {object_id!r}; there are {list(state.objects)}")
        slot = state.object_ids.index(object_id)
        ids = (*state.object_ids[:slot], None, *state.object_ids[slot + 1 :])
        bank = programs.forget(state.bank, jax.device_put(np.int32(slot)))
        return replace(state, bank=bank, object_ids=ids)

    def _bank(self, objects: int) -> Bank:
        return empty_bank(self.config, objects, *self._slots, self._memory_dtype)

    def _pointer_frames(self, state: TrackerState) -> jax.Array:
        frames = min(self.config.max_pointers, state.num_frames or self.config.max_pointers)
        return jax.device_put(np.int32(frames))

    def _features(self, image: UInt8[np.ndarray, "height width 3"]) -> ImageFeatures:
        prepared = jax.device_put(prepare_frame(image, self.config))
        return programs.encode_frame(self._model, self.params, prepared)

    def _encoded(self, state: TrackerState, frame: Any) -> ImageFeatures:
        image = frame if isinstance(frame, EncodedFrame) else read_image(frame)
        if isinstance(image, EncodedFrame):
            if image.config != self.config:
                raise InputError(
                    f"{image.config.name} encoded the frame, and this is {self.config.name}; "
                    "encode it with this Tracker"
                )
            if image.fingerprint != self.fingerprint:
                raise InputError(
                    f"the frame was encoded with other parameters ({image.fingerprint[:12]}, these "
                    f"are {self.fingerprint[:12]}); encode it with this Tracker"
                )
            size = image.size_hw
        else:
            size = (image.shape[0], image.shape[1])
        if size != state.frame_size:
            raise InputError(
                f"the frame is {size[1]}x{size[0]}, but the video's frames are "
                f"{state.frame_size[1]}x{state.frame_size[0]}; start anew for another size"
            )
        return image.features if isinstance(image, EncodedFrame) else self._features(image)

    def _with_object(self, state: TrackerState, object_id: Any) -> tuple[TrackerState, int]:
        """A slot for the object, which may be its own already; the bucket grows where it must."""
        ids = state.object_ids
        if object_id in ids:
            return state, ids.index(object_id)
        if len(state.objects) >= self._max_objects:
            raise InputError(
                f"{len(state.objects)} objects are followed already; remove one, or give the "
                "Tracker more max_objects"
            )
        bank = state.bank
        if None not in ids:
            more = self._bank(len(ids))
            bank = jax.tree.map(lambda a, b: jnp.concatenate([a, b]), bank, more)
            ids = (*ids, *(None,) * len(ids))
        slot = ids.index(None)
        ids = (*ids[:slot], object_id, *ids[slot + 1 :])
        return replace(state, bank=bank, object_ids=ids), slot

    def _shown(self, state: TrackerState, followed: Followed) -> TrackedMasks:
        there = [i for i, one in enumerate(state.object_ids) if one is not None]
        logits, presence, iou = (
            x[there] for x in jax.device_get((followed.logits, followed.object_score, followed.iou))
        )
        return TrackedMasks(
            logits,
            presence,
            iou,
            state.objects,
            state.frame_index,
            state.frame_size,
            self.config.mask_threshold,
            self.overlapping,
        )

    def _nothing(self, state: TrackerState) -> TrackedMasks:
        count, low = len(state.objects), self.config.mask_input_size
        return TrackedMasks(
            np.full((count, low, low), ABSENT, np.float32),
            np.full((count,), ABSENT, np.float32),
            np.zeros((count,), np.float32),
            state.objects,
            state.frame_index,
            state.frame_size,
            self.config.mask_threshold,
            self.overlapping,
            dropped=True,
        )


def _checked_frame_index(state: TrackerState, frame_index: Any) -> int:
    try:
        index = operator.index(frame_index)
    except TypeError:
        index = -1
    if not 0 <= index < MAX_FRAMES:
        raise InputError(
            f"there is no frame {frame_index!r}; an index is a whole number, from 0 to "
            f"{MAX_FRAMES - 1}"
        )
    if state.num_frames and index >= state.num_frames:
        raise InputError(f"there is no frame {index}; the video has {state.num_frames}, from 0 on")
    return index


def _is_hashable(value: Any) -> bool:
    try:
        hash(value)
    except TypeError:
        return False
    return True
