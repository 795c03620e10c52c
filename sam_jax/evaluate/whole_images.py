"""Evaluations of an image as a whole, from masks of everything in it: proposals and edges."""

from functools import reduce
from typing import Any

import numpy as np
from PIL import Image

from sam_jax.evaluate.boundaries import boundary_pixels
from sam_jax.evaluate.edges import EdgeCounts, count_edges, edge_map, edge_scores
from sam_jax.evaluate.proposals import RecallCounts, count_found, generate_proposals
from sam_jax.evaluate.selection import EvaluatedImage

# Of so many images the edge maps are kept as pictures.
PICTURES = 8


class ProposalsTask:
    """Average recall of proposals, as section 7.3 and appendix D.3 of the paper."""

    def __init__(self):
        self._counts: list[RecallCounts] = []

    def add(self, image: EvaluatedImage) -> None:
        """Generates the proposals of an image and looks for its objects among them."""
        proposals = generate_proposals(image.segmenter, image.embedding)
        truths = [image.mask(place) for place in range(len(image.objects))]
        self._counts.append(count_found(proposals, truths))

    def values(self) -> dict[str, Any]:
        """AR@10, 100 and 1000 over all objects, and AR@1000 by size."""
        return reduce(RecallCounts.__add__, self._counts).summary()

    def lines(self) -> list[str]:
        """One row."""
        return _row("average recall", self.values())

    def columns(self) -> dict[str, list[float]]:
        """None: whether an object is found depends on the others."""
        return {}

    def pictures(self) -> dict[str, Image.Image]:
        """None."""
        return {}


class EdgesTask:
    """Edges from masks of everything against the outlines of an image's objects.

    As section 7.2 and appendix D.2 of the paper evaluate on BSDS500, with one annotator.
    """

    def __init__(self):
        self._counts: list[EdgeCounts] = []
        self._pictures: dict[str, Image.Image] = {}

    def add(self, image: EvaluatedImage) -> None:
        """Makes an image's edge map and compares it."""
        size_hw = image.pixels.shape[:2]
        edges = edge_map(image.segmenter, image.embedding, (size_hw[0], size_hw[1]))
        truth = np.zeros(size_hw, bool)
        for place in range(len(image.objects)):
            truth |= boundary_pixels(image.mask(place))
        self._counts.append(count_edges(edges, [truth]))
        if len(self._pictures) < PICTURES:
            # Dark on white, as edge maps are printed; beside it what was wanted.
            both = np.concatenate([1 - edges, 1.0 - truth], axis=1)
            picture = Image.fromarray(np.round(255 * both).astype(np.uint8))
            self._pictures[f"edges_{len(self._pictures)}.png"] = picture

    def values(self) -> dict[str, Any]:
        """ODS, OIS, AP and R50."""
        return edge_scores(self._counts)

    def lines(self) -> list[str]:
        """One row."""
        return _row("edges", self.values())

    def columns(self) -> dict[str, list[float]]:
        """None: it is of images."""
        return {}

    def pictures(self) -> dict[str, Image.Image]:
        """Edge maps of the first images, and the outlines of their objects."""
        return self._pictures


def _row(name: str, values: dict[str, Any]) -> list[str]:
    cells = [
        "" if value is None else str(value) if isinstance(value, int) else f"{value:.3f}"
        for value in values.values()
    ]
    return [
        f"| {name} | " + " | ".join(values) + " |",
        "|---" * (len(values) + 1) + "|",
        "| sam | " + " | ".join(cells) + " |",
    ]
