"""Prompts on one image, object by object, and their masks as one prediction."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sam_jax.errors import InputError

if TYPE_CHECKING:
    import numpy as np

    from sam_jax.postprocess import MaskPrediction
    from sam_jax.segmenter import Segmenter


@dataclass
class ObjectPrompt:
    """All that is said of one object, or of the boxes of several without names.

    Attributes:
      name: of the object; None where objects have no names.
      points: x, y and, where it was given, the label.
      boxes: of the object; without a name, each is an object of its own.
      mask: a file.
      mask_label: which value of it is the object, where it is a picture of several.
    """

    name: str | None
    points: list[tuple[float, ...]] = field(default_factory=list)
    boxes: list[tuple[float, ...]] = field(default_factory=list)
    mask: Path | None = None
    mask_label: Any = None

    def arrays(self) -> dict[str, list | None]:
        """What `check_prompts` and `Segmenter.predict` take, but the mask.

        All points, one box and the mask are one prompt: one object. Several boxes are several.
        """
        points = [point[:2] for point in self.points]
        labels = [point[2] if len(point) == 3 else 1 for point in self.points]
        return {
            "points": [points] if points else None,
            "labels": [labels] if points else None,
            "boxes": list(self.boxes) or None,
        }

    @property
    def is_ambiguous(self) -> bool:
        """Whether a single point is all, which may mean a part or the whole."""
        return len(self.points) == 1 and not self.boxes and self.mask is None

    def records(self) -> list[dict[str, Any]]:
        """What the JSON file says of each prompt."""
        arrays = self.arrays()
        labels, points, boxes = arrays["labels"], arrays["points"], arrays["boxes"]
        return [
            {
                **({} if self.name is None else {"object": self.name}),
                "points": points[i] if points else None,
                "labels": [int(label) for label in labels[i]] if labels else None,
                "box": boxes[i] if boxes else None,
                "mask_input": str(self.mask) if self.mask else None,
            }
            for i in range(len(boxes or [None]))
        ]


def predict_objects(
    segmenter: "Segmenter",
    embedding: Any,
    prompts: Sequence[ObjectPrompt],
    masks: Sequence["np.ndarray | None"],
    multimask: bool | None,
    clean: bool | int,
) -> "MaskPrediction":
    """The masks of all objects as one prediction.

    Args:
      segmenter: the model.
      embedding: of the image.
      prompts: in the objects' order.
      masks: logits of each one's mask, if it has one.
      multimask: three candidates or one; None: three for a single point, of which several objects
        keep the best each.
      clean: as for `Segmenter.predict`.
    """
    from sam_jax.postprocess import joined_predictions

    found = []
    for prompt, mask in zip(prompts, masks, strict=True):
        three = prompt.is_ambiguous if multimask is None else multimask
        arrays: dict[str, Any] = {**prompt.arrays(), "masks": mask}
        prediction = segmenter.predict(embedding, **arrays, multimask=three, clean=clean)
        assert not isinstance(prediction, list)
        if multimask is None and len(prompts) > 1:
            prediction = prediction.only_best()
        found.append(prediction)
    return joined_predictions(found)


def read_mask_prompt(
    path: Path, size_hw: tuple[int, int], config: Any, label: Any = None
) -> "np.ndarray":
    """A mask prompt from a file: logits of an earlier result, or a picture of a mask.

    Args:
      path: a .npy file of [s, s] logits (axes of length 1 before them are dropped), or a picture
        of the image's size, as `formats.mask_pictures.read_mask` reads it.
      size_hw: the image's height and width.
      config: the model's configuration.
      label: which value of a picture is inside.

    Returns:
      Logits [1, s, s].

    Raises:
      InputError: it is missing, damaged, or of another size.
    """
    import numpy as np

    if path.suffix.lower() != ".npy":
        from sam_jax.formats.mask_pictures import read_mask
        from sam_jax.preprocess import mask_to_logits

        mask = read_mask(path, label)
        if mask.shape != size_hw:
            raise InputError(
                f"the mask {path} is {mask.shape[1]}x{mask.shape[0]} pixels, but the image is "
                f"{size_hw[1]}x{size_hw[0]}; they must be of one size"
            )
        return mask_to_logits(mask, config)[None]
    if label is not None:
        raise InputError(f"a label is for pictures, and {path} holds logits; leave it out")
    try:
        # Mapped, not read: a damaged header may claim any size, and is held against the file's.
        array = np.load(path, mmap_mode="r", allow_pickle=False)
        if not isinstance(array, np.ndarray):
            raise ValueError("it is an archive of arrays")
    except FileNotFoundError:
        raise InputError(f"there is no file {path}") from None
    except Exception as error:  # NumPy raises a dozen types for a damaged header
        raise InputError(f"{path} is no NumPy array, or damaged ({error})") from None
    side = config.mask_input_size
    if array.shape[-2:] != (side, side) or array.size != side * side or array.dtype.kind != "f":
        raise InputError(
            f"{path} holds {array.dtype} {array.shape}, not one mask's logits "
            f"({side}, {side}); `sam-jax segment --save-logits` writes such files"
        )
    return np.array(array, np.float32).reshape(1, side, side)
