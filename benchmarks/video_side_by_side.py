"""A clip through the original of SAM 2 and through `Tracker`, frame by frame in turn.

    pip install torch hydra-core iopath
    SAM2_BUILD_CUDA=0 pip install --no-build-isolation --no-deps sam2==1.1.0
    python benchmarks/video_side_by_side.py --model sam2.1_tiny --objects 1 4

The same random weights, frames and prompts: a point in each of as many places as there are objects.
Prints the seconds of every frame, the ratio of the medians once the memory is full, and how far the
masks are apart, so that what is timed is the same work.
"""

import argparse
import statistics
import time

import jax
import numpy as np
import torch

from convert.conversion import from_state_dict
from convert.sam2.reference import build_original_sam2
from sam_jax.models.sam2.config import SAM2_CONFIGS
from sam_jax.video.inputs import prepare_frame
from sam_jax.video.tracker import Tracker

# From this frame on the original looks at as many memories as it ever will.
FULL = 7


def clip(frames: int, height: int, width: int) -> list[np.ndarray]:
    """Smooth noise that drifts."""
    rng = np.random.default_rng(0)
    coarse = rng.uniform(0, 255, (1, 24, 40 + frames, 3)).astype(np.float32)
    wide = np.asarray(
        jax.image.resize(coarse, (1, height, width + width * frames // 40, 3), "linear")
    )[0]
    step = width // 40
    return [wide[:, i * step : i * step + width].astype(np.uint8) for i in range(frames)]


def compare(name: str, objects: int, frames: list[np.ndarray]) -> None:
    """One clip with so many objects."""
    config = SAM2_CONFIGS[name]
    torch.manual_seed(0)
    original = build_original_sam2(config)
    state_dict = {key: value.numpy() for key, value in original.state_dict().items()}
    tracker = Tracker(
        config,
        from_state_dict(config, state_dict),
        dynamic_multimask=False,
        binarize_prompted=False,
        fill_hole_area=0,
    )
    height, width = frames[0].shape[:2]
    images = np.stack([prepare_frame(frame, config) for frame in frames])
    images = torch.from_numpy(images).permute(0, 3, 1, 2)

    import sam2.sam2_video_predictor as predictor

    predictor.load_video_frames = lambda **_: (images, height, width)
    predictor.tqdm = lambda iterable, **_: iterable
    theirs = original.init_state("")
    ours = tracker.start((height, width), num_frames=len(frames))
    for i in range(objects):
        point = [[width * (i % 4 + 0.5) / 4, height * (i // 4 + 0.5) / 4]]
        original.add_new_points_or_box(theirs, 0, i, points=point, labels=[1])
        ours = tracker.prompt(ours, frames[0], i, points=point)
    propagated = original.propagate_in_video(theirs)
    seconds: dict[str, list[float]] = {"original": [], "sam_jax": []}
    worst = 0.0
    for index, frame in enumerate(frames):
        start = time.perf_counter()
        _, _, logits = next(propagated)
        middle = time.perf_counter()
        ours, found = tracker.step(ours, frame)
        full = found.full_logits()
        end = time.perf_counter()
        seconds["original"].append(middle - start)
        seconds["sam_jax"].append(end - middle)
        reference = logits[:, 0].numpy()
        worst = max(worst, float(np.abs(full - reference).max() / max(reference.std(), 1e-6)))
        if index > 1:
            both = f"original {middle - start:6.2f} s  sam_jax {end - middle:6.2f} s"
            print(f"  frame {index:3d}  {both}")
    # The first tracked frame of ours is compiled.
    theirs_s, ours_s = (statistics.median(seconds[who][FULL:]) for who in ("original", "sam_jax"))
    print(
        f"{name}, {objects} objects, frames {FULL} to {len(frames) - 1}: "
        f"original {theirs_s:.2f} s, sam_jax {ours_s:.2f} s, ratio {ours_s / theirs_s:.2f}; "
        f"largest error {worst:.1e} of the deviation (memories are bfloat16 in both)"
    )


def main() -> None:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model", default="sam2.1_tiny", choices=sorted(SAM2_CONFIGS))
    parser.add_argument("--objects", type=int, nargs="+", default=[1])
    parser.add_argument("--frames", type=int, default=12)
    parser.add_argument("--size", type=int, nargs=2, default=[540, 960], metavar=("H", "W"))
    args = parser.parse_args()
    for objects in args.objects:
        compare(args.model, objects, clip(args.frames, *args.size))


if __name__ == "__main__":
    main()
