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
from sam_jax.evaluate.chart import clicks_chart
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

# What the rows of the model are called; the others are named as their baseline.
MODEL = "sam"
# Objects that are in memory, and prompted, at once.
CHUNK = 32

Mask = Bool[np.ndarray, "height width"]
# IoU of objects by the name of the measure, such as click_1 or box_refined.
Measures = Mapping[str, Float[np.ndarray, " objects"]]
Method = Callable[[EvaluatedImage, Sequence[Mask], np.random.Generator | None], Measures]


@dataclass(frozen=True)
class TaskOptions:
    """What a person chooses.

    Attributes:
      clicks: after how many clicks to measure.
      random_first: a first click anywhere in the object, not in its centre.
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
    """Mean IoU over objects, of several methods."""

    def __init__(self, methods: Mapping[str, Method], options: TaskOptions):
        self._options = options
        self._methods = methods
        self._found: dict[str, dict[str, list[float]]] = {name: {} for name in methods}

    def add(self, image: EvaluatedImage) -> None:
        """Evaluates the objects of an image, a few of them at a time."""
        for start in range(0, len(image.objects), CHUNK):
            chunk = range(start, min(start + CHUNK, len(image.objects)))
            truths = [image.mask(place) for place in chunk]
            for name, method in self._methods.items():
                # The same for every method: they are compared on the same clicks.
                rng = np.random.default_rng([self._options.seed, image.index, start])
                found = method(image, truths, rng if self._options.random_first else None)
                for measure, iou in found.items():
                    self._found[name].setdefault(measure, []).extend(iou.tolist())

    def means(self) -> dict[str, dict[str, float]]:
        """Mean IoU over all objects by method and measure."""
        return {
            name: {measure: float(np.mean(iou)) for measure, iou in found.items()}
            for name, found in self._found.items()
        }

    def lines(self) -> list[str]:
        """A row for each method, a column for each measure."""
        means = self.means()
        measures = list(dict.fromkeys(m for found in means.values() for m in found))
        titles = [measure.replace("_", " ") for measure in measures]
        lines = ["| mean IoU | " + " | ".join(titles) + " |", "|---" * (len(titles) + 1) + "|"]
        for name, found in means.items():
            cells = [f"{found[m]:.3f}" if m in found else "" for m in measures]
            lines.append(f"| {name} | " + " | ".join(cells) + " |")
        return lines

    def values(self) -> dict[str, Any]:
        """The means."""
        return {"mean_iou": self.means()}

    def columns(self) -> dict[str, list[float]]:
        """IoU of every object, by "method measure"."""
        return {
            f"{name} {measure}": iou
            for name, found in self._found.items()
            for measure, iou in found.items()
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
        for name, found in self.means().items():
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
    found = {}
    for n, iou in zip(scores.clicks, scores.iou.T, strict=True):
        found[f"click_{n}"] = iou
        if n == 1 and with_oracle:
            found["click_1_oracle"] = scores.oracle
    return found


def _boxes_on_model(image, truths, rng) -> Measures:
    scores = box_scores(image.segmenter, image.embedding, truths)
    return {"box": scores.iou, "box_oracle": scores.oracle, "box_refined": scores.refined}


def _filled_box(image, truths, rng) -> Measures:
    return {"box": np.array([mask_iou(fill_box(image.pixels, tight_box(t)), t) for t in truths])}


def _grabcut(image, truths, rng) -> Measures:
    return {"box": np.array([mask_iou(grabcut(image.pixels, tight_box(t)), t) for t in truths])}


TASKS: dict[str, Callable[[TaskOptions], Task]] = {"points": PointsTask, "boxes": BoxesTask}

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
