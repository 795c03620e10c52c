"""Prompts of every mix, as one value that both sides can be given."""

from dataclasses import dataclass, replace

import jax.numpy as jnp
import numpy as np
import torch

from sam_jax.types import Prompts

MIXES = (
    "points",
    "points with label -1",
    "box",
    "box and points",
    "mask",
    "mask and points",
    "mask and box",
    "mask, box and points",
)


@dataclass(frozen=True)
class Case:
    """Prompts of B images, P each, in the model's frame."""

    points: np.ndarray | None = None
    labels: np.ndarray | None = None
    boxes: np.ndarray | None = None
    masks: np.ndarray | None = None

    def ours(self) -> Prompts:
        """All at once."""
        fields = (self.points, self.labels, self.boxes, self.masks)
        return Prompts(*(None if x is None else jnp.asarray(x) for x in fields))

    def originals(self, image: int) -> dict:
        """Keyword arguments of the original prompt encoder, for one image."""

        def tensor(x):
            return None if x is None else torch.from_numpy(x[image])

        points = None if self.points is None else (tensor(self.points), tensor(self.labels))
        masks = None if self.masks is None else tensor(self.masks)[:, None]
        return {"points": points, "boxes": tensor(self.boxes), "masks": masks}


def case(mix: str, grid_hw: tuple[int, int], batch=2, prompts=3, points=2, seed=0) -> Case:
    """Random prompts of one of `MIXES`, somewhat beyond the image's edges too."""
    rng = np.random.default_rng(seed)
    size_xy = 16 * np.array(grid_hw[::-1])
    out = Case()
    if "points" in mix:
        xy = rng.uniform(-0.1, 1.1, (batch, prompts, points, 2)) * size_xy
        labels = rng.integers(0, 2, (batch, prompts, points)).astype(np.int32)
        # Both labels are there, whatever the draw.
        labels[0, 0, 0], labels[0, 0, -1] = 0, 1
        if "-1" in mix:
            labels[:, :, 0] = -1
        out = replace(out, points=xy.astype(np.float32), labels=labels)
    if "box" in mix:
        corners = np.sort(rng.uniform(0, 1, (batch, prompts, 2, 2)), axis=2) * size_xy
        out = replace(out, boxes=corners.reshape(batch, prompts, 4).astype(np.float32))
    if "mask" in mix:
        shape = (batch, prompts, 4 * grid_hw[0], 4 * grid_hw[1])
        out = replace(out, masks=rng.normal(scale=5, size=shape).astype(np.float32))
    return out
