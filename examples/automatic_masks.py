"""Everything in a photo: masks, what the filters dropped, a picture, and files others read.

python examples/automatic_masks.py examples/photos/coffee.jpg --output masks
"""

import argparse
from pathlib import Path

import sam_jax
from sam_jax.formats.coco import write_coco
from sam_jax.formats.overlay import draw_overlay
from sam_jax.formats.rle import decode_rle
from sam_jax.formats.sa1b import read_sa1b, write_sa1b


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("image", nargs="?", default="examples/photos/coffee.jpg")
    parser.add_argument("--checkpoint", default="tiny")
    parser.add_argument("--output", type=Path, default=Path("sam-jax-output"))
    args = parser.parse_args(argv)

    segmenter = sam_jax.Segmenter.load(args.checkpoint)
    image = sam_jax.read_image(args.image)
    found = segmenter.generate_masks(image, preset="fast")
    for name, count in found.report.items():
        print(f"{count:6} {name}")

    # Text instead of arrays: a thousand masks of a large photo take a few megabytes.
    records = found.records("coco_rle")
    masks = (decode_rle(record["segmentation"]) for record in records)
    ids = [str(number) for number in range(1, len(records) + 1)]
    args.output.mkdir(parents=True, exist_ok=True)
    draw_overlay(image, masks, texts=ids).save(args.output / "everything.jpg")

    file_name, sa1b = Path(args.image).name, args.output / "everything.json"
    write_sa1b(sa1b, records, file_name=file_name, size_hw=found.size_hw)
    write_coco(args.output / "polygons.json", [read_sa1b(sa1b)], polygons=True, simplify=1.0)
    print(f"{len(records)} masks written to {args.output}")


if __name__ == "__main__":
    main()
