"""Label Studio's tasks, with masks as predictions in its own run-length encoding of brushes.

The encoding (github.com/thi-ng/umbrella, rle-pack): the number of values in 32 bits, a value's bits
less one in 5, four lengths of counts less one in 4 each; then for every run a 1, which of the four
lengths its count has in 2 bits, the count less one, and the value. Values are the bytes of an RGBA
picture, row by row; a mask's are 255 inside and 0 outside, in all four channels.
"""

import os
from collections.abc import Iterable
from typing import Any
from urllib.parse import quote

import numpy as np
from jaxtyping import Bool, Int64

from sam_jax.files import written_aside
from sam_jax.formats.labelled import LabelledMask, labelled_masks
from sam_jax.formats.sa1b import Sa1bImage, json_bytes
from sam_jax.version import __version__

# Where Label Studio serves files of a local folder.
LOCAL_FILES = "/data/local-files/?d="
LABEL_STUDIO_BEGINNING = b'[{"meta":{"sam_jax":'

_COUNT_BITS = np.array([3, 4, 8, 16])
_VALUE_BITS = 8
_CHANNELS = 4


def write_label_studio(
    path: str | os.PathLike,
    images: Iterable[Sa1bImage],
    *,
    image_url: str = LOCAL_FILES,
    from_name: str = "tag",
    to_name: str = "image",
) -> None:
    """Writes tasks to import into Label Studio, each mask a brush stroke of the predictions.

    The file appears whole or not at all. Masks are kept exactly, with holes and parts. The
    project's labeling configuration has `<Image name="image" value="$image"/>` and
    `<BrushLabels name="tag" toName="image">` with a `<Label value="object"/>` for each label.

    Args:
      path: of the JSON file; a file that is there is replaced.
      images: taken once and one at a time; `label` ("object" where there is none), `segmentation`
        and `predicted_iou` of the records are used.
      image_url: what stands before an image's name in its address.
      from_name: the name of the configuration's `BrushLabels`.
      to_name: the name of its `Image`.

    Raises:
      InputError: a record is wrong.
      OSError: the file cannot be written; what was there before is left.
    """
    with written_aside(path) as file:
        file.write(b"[")
        for number, image in enumerate(images):
            masks = enumerate(labelled_masks(image))
            results = [_result(i, each, image, from_name, to_name) for i, each in masks]
            scores = [result["score"] for result in results if "score" in result]
            score = {"score": float(np.mean(scores))} if scores else {}
            task = {
                "meta": {"sam_jax": __version__},
                "data": {"image": image_url + quote(image.file_name)},
                "predictions": [{"model_version": "sam_jax", **score, "result": results}],
            }
            file.write(b",\n" * (number > 0) + json_bytes(task))
        file.write(b"]")


def encode_brush(mask: Bool[np.ndarray, "height width"]) -> list[int]:
    """A mask in Label Studio's run-length encoding, as the numbers 0 to 255 of its bytes."""
    flat = np.ravel(mask)
    edges = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    ends = np.append(edges, flat.size) if flat.size else edges
    values = flat[ends - 1].astype(np.int64) * 255
    counts, values = _split(np.diff(ends, prepend=0) * _CHANNELS, values)
    kinds = np.searchsorted(1 << _COUNT_BITS, counts)
    bits = _COUNT_BITS[kinds]
    runs = (((1 << 2 | kinds) << bits | counts - 1) << _VALUE_BITS) | values
    header = [flat.size * _CHANNELS, _VALUE_BITS - 1, *(_COUNT_BITS - 1)]
    words = np.concatenate([header, runs])
    lengths = np.concatenate([[32, 5, 4, 4, 4, 4], 3 + bits + _VALUE_BITS])
    return _packed(words, lengths).tolist()


def _split(
    counts: Int64[np.ndarray, " runs"], values: Int64[np.ndarray, " runs"]
) -> tuple[Int64[np.ndarray, " pieces"], Int64[np.ndarray, " pieces"]]:
    """Runs in pieces that a count of the longest kind can hold."""
    longest = 1 << int(_COUNT_BITS[-1])
    pieces = -(-counts // longest)
    out = np.full(int(pieces.sum()), longest)
    last = np.cumsum(pieces) - 1
    out[last] = counts - (pieces - 1) * longest
    return out, np.repeat(values, pieces)


def _packed(words: Int64[np.ndarray, " words"], lengths: Int64[np.ndarray, " words"]) -> np.ndarray:
    """The lowest bits of each word, highest first, one word after the other, as bytes."""
    bits = np.unpackbits(words.astype(">u4").view(np.uint8).reshape(-1, 4), axis=1)
    used = np.arange(32) >= 32 - lengths[:, None]
    return np.packbits(bits[used])


def _result(
    index: int, each: LabelledMask, image: Sa1bImage, from_name: str, to_name: str
) -> dict[str, Any]:
    height, width = image.size_hw
    return {
        "id": f"mask{index}",
        "type": "brushlabels",
        "from_name": from_name,
        "to_name": to_name,
        "original_width": width,
        "original_height": height,
        "image_rotation": 0,
        **({} if each.score is None else {"score": each.score}),
        "value": {"format": "rle", "rle": encode_brush(each.mask), "brushlabels": [each.label]},
    }
