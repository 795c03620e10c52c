"""Whether tracking grows: memory and compiled programs over a long video, time over objects.

    python benchmarks/video_growth.py [--frames 2000] [--model sam2_test]

A model with random weights follows an object through noise. Prints the process's memory every 200
frames and how many programs `Tracker.step` has compiled since the tenth; then, with full memories,
the time of a frame for 1 to 16 objects, in turns, as ratios to one object's.
"""

import argparse
import statistics
import time
from pathlib import Path

import jax
import numpy as np

from sam_jax.models.sam2.config import SAM2_CONFIGS
from sam_jax.models.sam2.sam2 import variable_shapes
from sam_jax.video import programs
from sam_jax.video.tracker import Tracker

SIZE = (360, 640)
OBJECTS = (1, 2, 4, 8, 16)


def resident() -> int:
    """Bytes that this process holds."""
    status = Path("/proc/self/status").read_text()
    line = next(one for one in status.splitlines() if one.startswith("VmRSS"))
    return int(line.split()[1]) << 10


def started(tracker: Tracker, frame: np.ndarray, objects: int):
    """A state with so many objects."""
    state = tracker.start(SIZE)
    encoded = tracker.encode(frame)
    for i in range(objects):
        state = tracker.prompt(state, encoded, i, points=[[20 + 37 * i, 100 + 11 * i]])
    return state


def main() -> None:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", default="sam2_test", choices=sorted(SAM2_CONFIGS))
    parser.add_argument("--frames", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    rng = np.random.default_rng(0)
    config = SAM2_CONFIGS[args.model]
    params = jax.tree.map(
        lambda leaf: 0.05 * rng.standard_normal(leaf.shape, np.float32), variable_shapes(config)
    )
    tracker = Tracker(config, params)
    frames = [rng.integers(0, 255, (*SIZE, 3)).astype(np.uint8) for _ in range(16)]

    state = started(tracker, frames[0], 1)
    compiled = at_200 = 0
    for i in range(args.frames):
        state, found = tracker.step(state, frames[i % 16])
        found.masks  # noqa: B018
        if i == 9:
            compiled = programs.follow._cache_size() + programs.encode_frame._cache_size()
        if (i + 1) % 200 == 0:
            at_200 = at_200 or resident()
            now = programs.follow._cache_size() + programs.encode_frame._cache_size()
            print(
                f"frame {i + 1}: {resident() / 1e6:.1f} MB, {resident() / at_200:.4f} of frame "
                f"200's; {now - compiled} programs compiled since frame 10",
                flush=True,
            )

    states = {}
    for objects in OBJECTS:
        states[objects] = started(tracker, frames[0], objects)
        for i in range(8):
            states[objects], _ = tracker.step(states[objects], frames[i])
    seconds: dict[int, list[float]] = {objects: [] for objects in OBJECTS}
    for i in range(args.rounds):
        for objects in OBJECTS:
            start = time.perf_counter()
            states[objects], _ = tracker.step(states[objects], frames[i])
            seconds[objects].append(time.perf_counter() - start)
    one = statistics.median(seconds[1])
    for objects in OBJECTS:
        median = statistics.median(seconds[objects])
        print(f"{objects:2d} objects: {median / one:.2f} of one object's time ({median:.3f} s)")


if __name__ == "__main__":
    main()
