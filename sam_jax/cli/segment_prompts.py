"""Prompts of `sam-jax segment`: which object each is about, as they stand on the command line."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from sam_jax.cli.option_order import options_in_order
from sam_jax.errors import InputError
from sam_jax.object_prompts import ObjectPrompt

# The object of what stands before the first --object, as in `track`.
_FIRST = "1"


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
        _check(prompt)
    if objects:
        from sam_jax.formats.result_files import check_objects

        check_objects([str(prompt.name) for prompt in prompts], len(prompts))
    return prompts


def _check(prompt: ObjectPrompt) -> None:
    """Refuses what is no prompt, and boxes of several objects together with something else."""
    if not (prompt.points or prompt.boxes or prompt.mask):
        raise InputError(
            "no prompt is given: add --point X,Y, --box X0,Y0,X1,Y1 or --mask-input FILE"
        )
    if len(prompt.boxes) > 1 and (prompt.points or prompt.mask):
        other = "--point" if prompt.points else "--mask-input"
        raise InputError(
            f"{other} with {len(prompt.boxes)} boxes is ambiguous: each box is an object of its "
            "own; give --object NAME before each one's prompts"
        )


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
