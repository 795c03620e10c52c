"""Tasks about all masks that a model finds in an image by itself."""

from typing import Any

import numpy as np
from jaxtyping import Bool, Float, UInt8
from PIL import Image

from sam_jax.evaluate.boundaries import boundary_pixels
from sam_jax.evaluate.edge_scores import EdgeCounts, count_edges, edge_scores
from sam_jax.evaluate.edges import edge_map
from sam_jax.evaluate.proposals import (
    RecallCounts,
    count_found,
    generate_proposals,
    proposal_overlaps,
)
from sam_jax.evaluate.selection import EvaluatedImage
from sam_jax.evaluate.tables import MODEL, table_lines
from sam_jax.evaluate.thinning import thin
from sam_jax.formats.overlay import side_by_side

# Images of which a picture of their edges is kept.
EDGE_PICTURES = 6


class ProposalsTask:
    """How many objects are among the masks of everything, as section 7.3 of the paper."""

    def __init__(self):
        self._counts: list[RecallCounts] = []
        self._proposals: list[int] = []
        self._best: list[float] = []

    def add(self, image: EvaluatedImage) -> None:
        """Generates masks for an image and counts which objects are among them."""
        proposals = generate_proposals(image.segmenter, image.embedding)
        truths = (image.mask(place) for place in range(len(image.objects)))
        overlaps = proposal_overlaps(proposals, truths)
        self._counts.append(count_found(overlaps, np.array(image.areas)))
        self._proposals.append(len(proposals))
        self._best += overlaps.max(axis=0, initial=0).tolist()

    def lines(self) -> list[str]:
        """One row."""
        values = self.values()
        recall, count = values["average_recall"], f"{values['proposals_per_image']:.1f}"
        titles = ["average recall", "proposals an image", *recall]
        return table_lines(titles, [[MODEL, count, *recall.values()]])

    def values(self) -> dict[str, Any]:
        """Average recall by number of proposals and size of objects; none where no object is."""
        first, *others = self._counts
        return {
            "proposals_per_image": float(np.mean(self._proposals)),
            "average_recall": sum(others, first).average_recall(),
        }

    def columns(self) -> dict[str, list[float]]:
        """IoU of the best proposal for every object, which may be the best for others too."""
        return {f"{MODEL} best_proposal": self._best}

    def pictures(self) -> dict[str, Image.Image]:
        """None."""
        return {}


class EdgesTask:
    """Edges from masks of everything, as section 7.2, against the boundaries of the objects."""

    def __init__(self):
        self._counts: list[EdgeCounts] = []
        self._pictures: dict[str, Image.Image] = {}

    def add(self, image: EvaluatedImage) -> None:
        """Compares an image's edge map with the boundaries of all its objects together."""
        size_hw = image.pixels.shape[:2]
        edges = edge_map(image.segmenter, image.embedding, size_hw)
        truth = np.zeros(size_hw, bool)
        for place in range(len(image.objects)):
            truth |= boundary_pixels(image.mask(place))
        truth = thin(truth)
        self._counts.append(count_edges(edges, truth))
        if len(self._counts) <= EDGE_PICTURES:
            panels = [image.pixels, _ink(edges), _ink(truth)]
            picture = side_by_side([Image.fromarray(panel) for panel in panels])
            self._pictures[f"edges_{len(self._counts)}.png"] = picture

    def lines(self) -> list[str]:
        """One row."""
        scores = self.values()
        return table_lines(["edges", *scores], [[MODEL, *scores.values()]])

    def values(self) -> dict[str, Any]:
        """ODS, OIS, AP and R50."""
        return edge_scores(self._counts)

    def columns(self) -> dict[str, list[float]]:
        """None: edges are of images."""
        return {}

    def pictures(self) -> dict[str, Image.Image]:
        """Of the first images: the image, its edge map, the objects' boundaries."""
        return self._pictures


def _ink(values: Bool[np.ndarray, "h w"] | Float[np.ndarray, "h w"]) -> UInt8[np.ndarray, "h w 3"]:
    """Black where the value is 1, on white."""
    grey = np.round(255 * (1 - values.astype(np.float32))).astype(np.uint8)
    return np.repeat(grey[..., None], 3, axis=2)
