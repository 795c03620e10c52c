"""Prompts of `sam-jax track`: which object, in which frame, as they stand on the command line."""

from pathlib import Path
from typing import Any

import click

from sam_jax.cli.option_order import options_in_order
from sam_jax.errors import InputError
from sam_jax.video.frame_prompts import FramePrompt


class FrameType(click.ParamType):
    """A frame's index, a colon, and what belongs to it."""

    name = "frame"

    def __init__(self, form: str, example: str, counts: tuple[int, ...]):
        """`counts` are how many numbers may follow; none for a file."""
        self.form, self.example, self.counts = form, example, counts

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[int, Any]:
        """The frame, and numbers or a path."""
        if isinstance(value, tuple):
            return value
        frame, colon, rest = value.partition(":")
        try:
            index = int(frame)
            given: Any = tuple(map(float, rest.split(","))) if self.counts else Path(rest)
            fits = index >= 0 and bool(rest) and (not self.counts or len(given) in self.counts)
        except ValueError:
            fits = False
        if not (colon and fits):
            self.fail(f"{value!r} is not {self.form}, for example {self.example}", param, ctx)
        return index, given


POINT = FrameType("F:X,Y or F:X,Y,LABEL", "0:310,220 or 0:310,220,0", (2, 3))
BOX = FrameType("F:X0,Y0,X1,Y1", "0:75,60,310,220", (4,))
MASK = FrameType("F:FILE", "0:mask.png", ())


def frame_prompts(
    ctx: click.Context,
    objects: tuple[int, ...],
    points: tuple[tuple[int, Any], ...],
    boxes: tuple[tuple[int, Any], ...],
    masks: tuple[tuple[int, Any], ...],
    mask_labels: tuple[Any, ...] = (),
) -> list[FramePrompt]:
    """Each prompt with its object: the last --object before it, else 1.

    Raises:
      InputError: there is none; an object has no prompt; or what is said twice of an object in a
        frame does not go together.
    """
    given: dict[str, Any] = {
        "objects": iter(objects),
        "points": iter(points),
        "boxes": iter(boxes),
        "masks": iter(masks),
    }
    labels = iter(mask_labels)
    last_mask: FramePrompt | None = None
    found: dict[tuple[int, int], FramePrompt] = {}
    current = 1
    for name in options_in_order(ctx):
        if name == "objects":
            current = next(given["objects"])
        elif name == "mask_labels":
            if last_mask is None or last_mask.mask_label is not None:
                raise InputError("--label is for the --mask before it; give one after each --mask")
            last_mask.mask_label = next(labels)
        elif name in given:
            index, value = next(given[name])
            prompt = found.setdefault((index, current), FramePrompt(current, index))
            _add(prompt, name, value)
            last_mask = prompt if name == "masks" else last_mask
    if not found:
        raise InputError(
            "no prompt is given: add --point F:X,Y, --box F:X0,Y0,X1,Y1 or --mask F:FILE, "
            "F being the frame, from 0 on"
        )
    idle = sorted(set(objects) - {one.object for one in found.values()})
    if idle:
        raise InputError(
            f"--object {idle[0]} has no prompt; give --point, --box or --mask after it"
        )
    return [found[key] for key in sorted(found)]


def _add(prompt: FramePrompt, name: str, value: Any) -> None:
    where = f"object {prompt.object} in frame {prompt.frame}"
    if name == "points":
        prompt.points.append((value[0], value[1]))
        label = value[2] if len(value) == 3 else 1
        if label not in (0, 1):
            raise InputError(f"{where}: a label is 1 (foreground) or 0 (background), not {label:g}")
        prompt.labels.append(int(label))
    elif name == "boxes":
        if prompt.box is not None:
            raise InputError(f"{where} has two boxes; several objects need --object N before each")
        prompt.box = value
    else:
        if prompt.mask is not None:
            raise InputError(f"{where} has two masks; several objects need --object N before each")
        prompt.mask = value
    if prompt.mask is not None and (prompt.points or prompt.box is not None):
        raise InputError(f"{where}: give a mask, or points and a box, not both")
