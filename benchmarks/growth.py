"""How cost grows, measured and plotted: image size, prompts, points of generation, devices.

    pip install "sam-jax[bench]"
    python benchmarks/growth.py [--curve encoder] [--rounds 3] [--output docs/images]

Each curve is measured and written when it is done, so that a call that was cut short goes on with
--curve. It becomes growth_CURVE.json, with all readings and the machine, and growth_CURVE.png, with
medians, least and greatest.

encoder: ViT-B, seconds over the side of the image. decoder: ViT-B's, seconds over prompts of one
point. generate: the shipped model, seconds over points a side of the grid, on a photo of 600x400.
devices: the shipped model's encoder, images a second over simulated CPU devices, each number of
them in a process of its own. They share the machine's cores, so that there is nothing to gain: what
it shows is what dividing the work costs.
"""

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sam_jax.bench.machine import machine
from sam_jax.bench.ours import Ours
from sam_jax.bench.packages import random_input
from sam_jax.bench.readings import in_turn, seconds, summary
from sam_jax.images import read_image

ROOT = Path(__file__).parents[1]
PHOTO = ROOT / "examples" / "photos" / "coffee.jpg"
IMAGES = 16  # encoded at once on simulated devices

Readings = dict[int, list[float]]


@dataclass(frozen=True)
class Curve:
    """A measurement over a quantity.

    Attributes:
      title: what is measured.
      across: the quantity, and its values.
      up: what the readings are.
      power: of the quantity that the cost would grow with, if only the work of each part counted.
      guide: what that power stands for; drawn through the last value.
      measure: readings for each value, so many of each.
    """

    title: str
    across: str
    values: tuple[int, ...]
    up: str
    power: int
    guide: str
    measure: Callable[[tuple[int, ...], int], Readings]


def timed(calls: dict[int, Callable[[], Any]], rounds: int) -> Readings:
    """Seconds of each call in turn, after one that compiles."""
    for call in calls.values():
        call()
    return in_turn({x: lambda call=call: seconds(call) for x, call in calls.items()}, rounds)


def encoder(sides: tuple[int, ...], rounds: int) -> Readings:
    return timed({side: Ours("vit_b", image_size=side).encode for side in sides}, rounds)


def decoder(counts: tuple[int, ...], rounds: int) -> Readings:
    ours = Ours("vit_b")
    return timed({count: lambda count=count: ours.decode(count) for count in counts}, rounds)


def generate(grids: tuple[int, ...], rounds: int) -> Readings:
    ours = Ours("tiny", photo=read_image(PHOTO))

    def masks(side: int) -> None:
        ours.segmenter.generate(ours.photo, **ours.generate_options(side))

    return timed({side: lambda side=side: masks(side) for side in grids}, rounds)


def devices(counts: tuple[int, ...], rounds: int) -> Readings:
    found = {}
    for count in counts:
        flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count={count}"
        done = subprocess.run(
            [sys.executable, __file__, "--on-devices", str(count), "--rounds", str(rounds)],
            env={**os.environ, "XLA_FLAGS": flags.strip(), "JAX_PLATFORMS": "cpu"},
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        )
        found[count] = json.loads(done.stdout.splitlines()[-1])
    return found


def print_throughput(count: int, rounds: int) -> None:
    """Images a second over so many devices of this process, as JSON."""
    import jax
    import numpy as np

    from sam_jax import Segmenter, sharding

    mesh = sharding.make_mesh(data=count, model=1)
    segmenter = Segmenter.load("tiny", image_batch=IMAGES, mesh=mesh)
    images = np.repeat(random_input(segmenter.config.image_size), IMAGES, axis=0)

    def encode() -> None:
        jax.block_until_ready(segmenter.compiled.encode(images))

    encode()
    print(json.dumps([IMAGES / seconds(encode) for _ in range(rounds)]))


CURVES = {
    "encoder": Curve(
        "ViT-B image encoder",
        "side of the image, pixels",
        (256, 512, 768, 1024, 1536),
        "seconds",
        2,
        "as the pixels",
        encoder,
    ),
    "decoder": Curve(
        "mask decoder, prompts of one point",
        "prompts",
        (1, 4, 16, 64, 256),
        "seconds",
        1,
        "as the prompts",
        decoder,
    ),
    "generate": Curve(
        "automatic generation, shipped model",
        "points a side",
        (8, 16, 32, 64),
        "seconds",
        2,
        "as the points",
        generate,
    ),
    "devices": Curve(
        "image encoder of the shipped model, simulated devices",
        "simulated devices",
        (1, 2, 4, 8),
        "images a second",
        0,
        "the same cores",
        devices,
    ),
}


def plot(curve: Curve, readings: Readings, where: str, file: Path) -> None:
    """Draws medians with their spread on logarithmic axes."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot
    from matplotlib.ticker import NullFormatter, ScalarFormatter

    found = [summary(readings[x]) for x in curve.values]
    medians = [one.median for one in found]
    spread = [
        [one.median - one.least for one in found],
        [one.greatest - one.median for one in found],
    ]
    figure, axes = pyplot.subplots(figsize=(4.8, 3.4), layout="constrained")
    last = curve.values[-1] if curve.power else curve.values[0]
    anchor = medians[curve.values.index(last)]
    guide = [anchor * (x / last) ** curve.power for x in curve.values]
    axes.plot(curve.values, guide, "--", color="0.6", label=curve.guide)
    axes.errorbar(curve.values, medians, yerr=spread, marker="o", capsize=3, label="measured")
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    axes.set_xticks(curve.values, [str(x) for x in curve.values])
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_minor_formatter(NullFormatter())
    axes.yaxis.set_major_formatter(ScalarFormatter())
    if max(medians) < 10 * min(medians):
        # Less than a decade: no power of ten may lie within.
        axes.yaxis.set_minor_formatter(ScalarFormatter())
    axes.set(xlabel=curve.across, ylabel=curve.up)
    axes.set_title(f"{curve.title}\n{where}", fontsize=9)
    axes.grid(True, alpha=0.3)
    axes.legend(fontsize=8)
    figure.savefig(file, dpi=100)
    pyplot.close(figure)


def positive(value: str) -> int:
    """An argument type: 1, 2, ..."""
    if not value.isdecimal() or int(value) < 1:
        raise argparse.ArgumentTypeError(f"{value!r} is no positive number")
    return int(value)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--curve", choices=CURVES, action="append", help="default: all, in turn")
    parser.add_argument("--rounds", type=positive, default=3)
    parser.add_argument("--output", type=Path, default=ROOT / "docs" / "images")
    parser.add_argument("--on-devices", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.on_devices:
        print_throughput(arguments.on_devices, arguments.rounds)
        return
    arguments.output.mkdir(parents=True, exist_ok=True)
    found = machine()
    where = f"{found['cpu']}, {found['cores']} cores, JAX {found['versions']['jax']}, float32"
    for name in arguments.curve or CURVES:
        curve = CURVES[name]
        readings = curve.measure(curve.values, arguments.rounds)
        print(f"{curve.title}: {curve.up} over {curve.across}")
        for x in curve.values:
            one = summary(readings[x])
            print(f"  {x}: {one.median:.3f} ({one.least:.3f} to {one.greatest:.3f})", flush=True)
        values = {"machine": found, "across": curve.across, "up": curve.up, "readings": readings}
        (arguments.output / f"growth_{name}.json").write_text(json.dumps(values, indent=1))
        plot(curve, readings, where, arguments.output / f"growth_{name}.png")


if __name__ == "__main__":
    main()
