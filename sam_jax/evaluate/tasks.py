"""What can be evaluated on a dataset: each task takes images one by one and tells what it found."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Bool, Float
from PIL import Image

from sam_jax.errors import InputError
from sam_jax.evaluate.baselines import FloodFill, RandomWalker, check_installed, fill_box, grabcut
from sam_jax.evaluate.boundaries import boundary_f
from sam_jax.evaluate.chart import clicks_chart
from sam_jax.evaluate.everything_tasks import EdgesTask, ProposalsTask
from sam_jax.evaluate.interactive import (
    CLICKS,
    ClickScores,
    SegmenterClicks,
    box_scores,
    click_scores,
    mask_iou,
    tight_box,
)
from sam_jax.evaluate.selection import EvaluatedImage
from sam_jax.evaluate.tables import MODEL, table_lines

SCORES = {"iou": "mean IoU", "boundary_f": "mean boundary F"}
# Objects that are in memory, and prompted, at once.
CHUNK = 32

Mask = Bool[np.ndarray, "height width"]
# Values of objects by what they are of (`SCORES`) and by the mask, such as click_1 or box_refined.
Measures = Mapping[str, Mapping[str, Float[np.ndarray, " objects"]]]
Method = Callable[[EvaluatedImage, Sequence[Mask], np.random.Generator | None], Measures]


@dataclass(frozen=True)
class TaskOptions:
    """What a person chooses.

    Attributes:
      clicks: after how many clicks to measure.
      random_first: a first click anywhere in the object, not in its center.
      seed: of random clicks.
      baselines: names in `BASELINES`.
    """

    clicks: tuple[int, ...] = CLICKS
    random_first: bool = False
    seed: int = 0
    baselines: tuple[str, ...] = ()


@runtime_checkable
class Task(Protocol):
    """One kind of evaluation, over all images of a run."""

    def add(self, image: EvaluatedImage) -> None:
        """Evaluates an image."""

    def lines(self) -> list[str]:
        """What to print: a Markdown table."""

    def values(self) -> dict[str, Any]:
        """The results as JSON holds them."""

    def columns(self) -> dict[str, list[float]]:
        """Values of all objects, in order, by the name of a column; none if it has no such."""

    def pictures(self) -> dict[str, Image.Image]:
        """Charts by file name."""


class ObjectTask:
    """Means over objects, of several methods."""

    def __init__(self, methods: Mapping[str, Method], options: TaskOptions):
        self._options = options
        self._methods = methods
        self._found: dict[str, dict[str, dict[str, list[float]]]] = {
            score: {name: {} for name in methods} for score in SCORES
        }

    def add(self, image: EvaluatedImage) -> None:
        """Evaluates the objects of an image, a few of them at a time."""
        for start in range(0, len(image.objects), CHUNK):
            chunk = range(start, min(start + CHUNK, len(image.objects)))
            truths = [image.mask(place) for place in chunk]
            for name, method in self._methods.items():
                # The same for every method: they are compared on the same clicks.
                rng = np.random.default_rng([self._options.seed, image.index, start])
                found = method(image, truths, rng if self._options.random_first else None)
                for score, by_mask in found.items():
                    for mask, values in by_mask.items():
                        self._found[score][name].setdefault(mask, []).extend(values.tolist())

    def means(self, score: str) -> dict[str, dict[str, float]]:
        """Means of a score over all objects, by method and mask."""
        return {
            name: {mask: float(np.mean(values)) for mask, values in found.items()}
            for name, found in self._found[score].items()
        }

    def lines(self) -> list[str]:
        """For each score a table: a row for each method, a column for each mask."""
        lines: list[str] = []
        for score, title in SCORES.items():
            means = self.means(score)
            masks = list(dict.fromkeys(mask for found in means.values() for mask in found))
            titles = [title, *(mask.replace("_", " ") for mask in masks)]
            rows = [[name, *(found.get(mask) for mask in masks)] for name, found in means.items()]
            lines += [*([""] if lines else []), *table_lines(titles, rows)]
        return lines

    def values(self) -> dict[str, Any]:
        """The means."""
        return {f"mean_{score}": self.means(score) for score in SCORES}

    def columns(self) -> dict[str, list[float]]:
        """Scores of every object: IoU by "method mask", the others by "method mask score"."""
        return {
            f"{name} {mask}" if score == "iou" else f"{name} {mask} {score}": values
            for score, methods in self._found.items()
            for name, found in methods.items()
            for mask, values in found.items()
        }

    def pictures(self) -> dict[str, Image.Image]:
        """None."""
        return {}


class PointsTask(ObjectTask):
    """After some clicks, as section 7.1 and appendix D.1 of the paper."""

    def __init__(self, options: TaskOptions):
        methods = {MODEL: _clicks_on_model} | _baselines("points", options)
        super().__init__(
            {name: partial(one, clicks=options.clicks) for name, one in methods.items()}, options
        )

    def pictures(self) -> dict[str, Image.Image]:
        """Mean IoU over clicks."""
        series: dict[str, dict[int, float]] = {}
        for name, found in self.means("iou").items():
            numbers = {
                n: found[f"click_{n}"] for n in self._options.clicks if f"click_{n}" in found
            }
            series[name] = numbers
            if "click_1_oracle" in found:
                series[f"{name}, best of three"] = {1: found["click_1_oracle"]}
        return {"miou_over_clicks.png": clicks_chart(series, self._options.clicks)}


class BoxesTask(ObjectTask):
    """With the objects' own boxes, and after one refinement as in section 7.4 of the paper."""

    def __init__(self, options: TaskOptions):
        super().__init__({MODEL: _boxes_on_model} | _baselines("boxes", options), options)


def _clicks_on_model(image, truths, rng, clicks) -> Measures:
    method = SegmenterClicks(image.segmenter, image.embedding)
    return _click_measures(click_scores(method, truths, clicks, rng), with_oracle=True)


def _flood_fill(image, truths, rng, clicks) -> Measures:
    scores = click_scores(FloodFill(image.pixels), truths, (1,), rng)
    return _click_measures(scores, with_oracle=True)


def _random_walker(image, truths, rng, clicks) -> Measures:
    scores = click_scores(RandomWalker(image.pixels), truths, clicks, rng)
    return _click_measures(scores, with_oracle=False)


def _click_measures(scores: ClickScores, with_oracle: bool) -> Measures:
    iou, outline = {}, {}
    for place, n in enumerate(scores.clicks):
        iou[f"click_{n}"] = scores.iou[:, place]
        outline[f"click_{n}"] = scores.boundary_f[:, place]
        if n == 1 and with_oracle:
            iou["click_1_oracle"] = scores.oracle
    return {"iou": iou, "boundary_f": outline}


def _boxes_on_model(image, truths, rng) -> Measures:
    scores = box_scores(image.segmenter, image.embedding, truths)
    return {
        "iou": {"box": scores.iou, "box_oracle": scores.oracle, "box_refined": scores.refined},
        "boundary_f": {"box": scores.boundary_f, "box_refined": scores.refined_boundary_f},
    }


def _filled_box(image, truths, rng) -> Measures:
    return _from_boxes(fill_box, image, truths)


def _grabcut(image, truths, rng) -> Measures:
    return _from_boxes(grabcut, image, truths)


def _from_boxes(make_mask, image, truths) -> Measures:
    iou, outline = np.zeros((2, len(truths)))
    for place, truth in enumerate(truths):
        mask = make_mask(image.pixels, tight_box(truth))
        iou[place], outline[place] = mask_iou(mask, truth), boundary_f(mask, truth)
    return {"iou": {"box": iou}, "boundary_f": {"box": outline}}


TASKS: dict[str, Callable[[TaskOptions], Task]] = {
    "points": PointsTask,
    "boxes": BoxesTask,
    "proposals": lambda options: ProposalsTask(),
    "edges": lambda options: EdgesTask(),
}

# The task of each, and how it is done.
BASELINES: dict[str, tuple[str, Any]] = {
    "flood-fill": ("points", _flood_fill),
    "random-walker": ("points", _random_walker),
    "filled-box": ("boxes", _filled_box),
    "grabcut": ("boxes", _grabcut),
}


def make_tasks(names: Sequence[str], options: TaskOptions) -> dict[str, Task]:
    """Tasks by their names, in the order of `TASKS`.

    Raises:
      InputError: a baseline is for a task that is not among them, or what it needs is not
        installed.
    """
    for baseline in options.baselines:
        task, _ = BASELINES[baseline]
        if task not in names:
            raise InputError(f"the baseline {baseline} is for the task {task}; add --task {task}")
        check_installed(baseline)
    return {name: make(options) for name, make in TASKS.items() if name in names}


def _baselines(task: str, options: TaskOptions) -> dict[str, Any]:
    chosen = {name: BASELINES[name] for name in options.baselines}
    return {name: method for name, (of, method) in chosen.items() if of == task}
