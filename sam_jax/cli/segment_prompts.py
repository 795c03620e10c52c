"""Prompts of `sam-jax segment`: which object each is about, as they stand on the command line."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from sam_jax.cli.option_order import options_in_order
from sam_jax.cli.prompt_values import prompt_arrays
from sam_jax.errors import InputError

if TYPE_CHECKING:
    import numpy as np

    from sam_jax.postprocess import MaskPrediction
    from sam_jax.segmenter import Segmenter

# The object of what stands before the first --object, as in `track`.
_FIRST = "1"


@dataclass
class ObjectPrompt:
    """All that is said of one object, or of the boxes of several without names.

    Attributes:
      name: of the object; None without --object.
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

    def arrays(self) -> dict[str, Any]:
        """See `prompt_arrays`."""
        return prompt_arrays(tuple(self.points), tuple(self.boxes), self.mask is not None)

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


def object_prompts(
    ctx: click.Context,
    objects: tuple[str, ...],
    points: tuple[tuple[float, ...], ...],
    boxes: tuple[tuple[float, ...], ...],
    masks: tuple[Path, ...],
    mask_labels: tuple[Any, ...] = (),
) -> list[ObjectPrompt]:
    """Each prompt with its object: the last --object before it.

    Raises:
      InputError: there is none; an object has no prompt, two boxes or two masks; a name cannot be
        one; or a label has no mask before it.
    """
    given: dict[str, Iterator[Any]] = {
        "objects": iter(objects),
        "points": iter(points),
        "boxes": iter(boxes),
        "mask_inputs": iter(masks),
    }
    if mask_labels and not masks:
        raise InputError("--label is for a picture of a mask; add --mask-input FILE before it")
    labels = iter(mask_labels)
    last_mask: ObjectPrompt | None = None
    found: dict[str | None, ObjectPrompt] = {}
    current = _FIRST if objects else None
    for option in options_in_order(ctx):
        if option == "objects":
            current = next(given["objects"])
        elif option == "mask_labels":
            if last_mask is None or last_mask.mask_label is not None:
                raise InputError(
                    "--label is for the --mask-input before it; give one after each --mask-input"
                )
            last_mask.mask_label = next(labels)
        elif option in given:
            prompt = found.setdefault(current, ObjectPrompt(current))
            _add(prompt, option, next(given[option]))
            last_mask = prompt if option == "mask_inputs" else last_mask
    for name in objects:
        if name not in found:
            raise InputError(
                f"--object {name} has no prompt; give --point, --box or --mask-input after it"
            )
    prompts = list(found.values()) or [ObjectPrompt(None)]
    for prompt in prompts:
        prompt.arrays()  # says what is wrong
    if objects:
        from sam_jax.formats.result_files import check_objects

        check_objects([str(prompt.name) for prompt in prompts], len(prompts))
    return prompts


def _add(prompt: ObjectPrompt, option: str, value: Any) -> None:
    where = "" if prompt.name is None else f"object {prompt.name} has two "
    several = "several objects need --object NAME before each"
    if option == "points":
        prompt.points.append(value)
    elif option == "boxes":
        if where and prompt.boxes:
            raise InputError(f"{where}boxes; {several}")
        prompt.boxes.append(value)
    else:
        if prompt.mask is not None:
            raise InputError(f"{where or 'there are two '}masks; {several}")
        prompt.mask = value


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
