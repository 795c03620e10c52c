"""The original's video predictor and ours on one clip, with the same prompts."""

import numpy as np
import torch

from sam_jax.video.inputs import prepare_frame


def clip(frames: int, height: int, width: int, seed: int = 0) -> list[np.ndarray]:
    """Pictures of three patterned discs that move; one leaves the picture and comes back."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:height, 0:width]
    ground = 90 + 50 * np.sin(x / 9 + seed) * np.cos(y / 13)
    textures = rng.integers(0, 255, (3, height, width, 3))
    out = []
    for t in range(frames):
        image = np.repeat(ground[..., None], 3, axis=2)
        away = 2.0 * width if frames // 3 <= t < frames // 2 else 0.0
        centres = (
            (0.2 + 0.5 * t / frames, 0.3, 0.18),
            (0.7 - 0.4 * t / frames, 0.6, 0.15),
            (0.5 + away / width, 0.8 - 0.5 * t / frames, 0.12),
        )
        for (u, v, r), texture in zip(centres, textures, strict=True):
            inside = (x / width - u) ** 2 + (y / height - v) ** 2 < r**2
            image = np.where(inside[..., None], texture, image)
        out.append(np.clip(image + rng.normal(0, 4, image.shape), 0, 255).astype(np.uint8))
    return out


def original_state(model, frames: list[np.ndarray], config, monkeypatch):
    """The original's state for frames that are in memory, prepared as ours are."""
    images = np.stack([prepare_frame(frame, config) for frame in frames])
    images = torch.from_numpy(images).permute(0, 3, 1, 2)
    height, width = frames[0].shape[:2]

    def load(**_):
        return images, height, width

    monkeypatch.setattr("sam2.sam2_video_predictor.load_video_frames", load)
    return model.init_state("frames in memory")


def original_masks(model, state, start: int, count: int, reverse: bool = False):
    """Frame index to the full-size logits of all objects, [objects, H, W]."""
    return {
        index: logits[:, 0].numpy()
        for index, _, logits in model.propagate_in_video(state, start, count, reverse)
    }
