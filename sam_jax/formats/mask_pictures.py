"""One mask out of a picture, as people keep masks: cut-outs, black and white, labels.

The rule, in this order:

1. With `label`, the pixels of that value: a palette's index, a gray value, or an RGB color;
   "alpha" for what is opaque.
2. Alpha, where it varies: what is more than half opaque is inside. If the opaque pixels have a few
   flat colors beside that, one of them may be meant, and the picture is refused without `label`.
3. Two values or colors, of which one is 0 or black: the other is inside. White everywhere is all
   inside.
4. Gray with soft edges, or lossy: what is brighter than half is inside.
5. Anything else is refused, with the labels that it has: several labels, and pictures that are no
   masks.
"""

import os
import warnings
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from jaxtyping import Bool, Num, Shaped, UInt8
from PIL import Image

from sam_jax.errors import InputError
from sam_jax.image_files import (
    as_stored_in_file,
    check_size,
    opened_image,
    orientation,
    reason,
    stored_form,
)
from sam_jax.tiff import as_stored

Label = int | tuple[int, int, int] | Literal["alpha"] | None

# So many flat values are labels; more are shades.
_MAX_LABELS = 64
# Colors under varying alpha that may be labels, rather than a photo that was cut out.
_MAX_LABELS_UNDER_ALPHA = 32
# Alpha that is not of an edge.
_SOLID = 250
_SHOWN_LABELS = 12
# Pictures of a mask are mostly black and white: of all pixels, in this part of the range at its
# ends.
_SOFT_SHARE, _NEAR_END = 0.5, 1 / 8
# Of a lossy picture, the ringing beside an edge; and how far its grays may be from gray.
_RINGING, _LOSSY_SPREAD = 1 / 16, 32


@dataclass(frozen=True)
class _Picture:
    """What is stored of each pixel, upright.

    Attributes:
      name: for messages.
      values: gray values, palette indices or RGB.
      full: the gray value that is white.
      alpha: 0 to 255, where there is any.
      palette: the colors, where values are indices.
      lossy: whether values are near what was drawn, not equal.
    """

    name: str
    values: Num[np.ndarray, "height width *channels"]
    full: int | float
    alpha: UInt8[np.ndarray, "height width"] | None = None
    palette: UInt8[np.ndarray, "colors 3"] | None = None
    lossy: bool = False

    @property
    def colored(self) -> bool:
        """Whether a value is three numbers."""
        return self.values.ndim == 3


def read_mask(
    source: str | os.PathLike[str] | Image.Image, label: Label = None, *, page: int | None = None
) -> Bool[np.ndarray, "height width"]:
    """Reads one mask from a picture: a cut-out, black and white, or one label of many.

    The EXIF orientation is applied, as `read_image` does. Without `label`: alpha where it varies;
    else the value that is not 0 (or black) of two; else, of gray with soft edges and of JPEG, what
    is brighter than half. Label pictures need `label`, and so does a picture of one value.

    Args:
      source: a path to a file of any format that `read_image` takes, or a `PIL.Image.Image`.
      label: the value that is inside: a palette's index, a gray value as it is stored, or (red,
        green, blue); "alpha" for what is more than half opaque.
      page: of a file, which of its pages, from 0.

    Raises:
      InputError: it cannot be read, or shows no mask or several; the message names the labels.
    """
    if isinstance(source, Image.Image):
        if page is not None:
            raise InputError("page chooses a page of a file; of a PIL image, seek the page first")
        try:
            picture = _picture(source, "the mask picture")
        except InputError:
            raise
        except Exception as error:  # a lazily opened file fails in many ways
            raise InputError(f"the mask picture cannot be read: {reason(error)}") from error
    else:
        path = os.fsdecode(source)
        with opened_image(path, page) as (image, pages):
            picture = _picture(image, f"mask {path!r}")
        if pages > 1 and page is None:
            warnings.warn(
                f"{picture.name} has {pages} pages or frames, of which page 0 is read; page=N "
                f"chooses another, 0 to {pages - 1}",
                UserWarning,
                stacklevel=1,
            )
    if label is not None:
        return _labeled(picture, label)
    opaque = None if picture.alpha is None else picture.alpha > 127
    if picture.alpha is not None and opaque is not None and opaque.any() and not opaque.all():
        # Beside soft edges, whose colors are mixed ones.
        solid = picture.alpha >= _SOLID
        labels = _labels(picture.values[solid if solid.any() else opaque], picture.colored)
        if 1 < len(labels) <= _MAX_LABELS_UNDER_ALPHA:
            raise InputError(
                f"{picture.name} has a shape in its alpha and {_listed(labels)} in it; choose "
                f"label='alpha' (--label alpha) or {_how(labels)}"
            )
        return opaque
    return _by_value(picture)


def _by_value(picture: _Picture) -> Bool[np.ndarray, "height width"]:
    """Without alpha and label."""
    values, full = picture.values, picture.full
    labels = _labels(values, picture.colored)
    if len(labels) == 1:
        if picture.palette is None and (labels == full).all():
            return np.ones(values.shape[:2], bool)
        raise InputError(
            f"{picture.name} shows no object: every pixel is {_text(labels[0])}; if all of it is "
            f"meant, give {_how(labels)}"
        )
    if picture.palette is not None:
        colors = picture.palette[labels]
        if (colors == colors[:, :1]).all():  # gray, in whatever order
            values, full = picture.palette[values][..., 0], 255
            labels = _labels(values)
        elif len(labels) == 2:
            black = (colors == 0).all(axis=1)
            outside = labels[black] if black.sum() == 1 else labels[labels == 0]
            if len(outside) == 1:
                return values != outside[0]
    elif values.ndim == 3:
        spread = np.ptp(values, axis=-1).max()
        if spread > (_LOSSY_SPREAD if picture.lossy else 0):
            if len(labels) == 2 and (labels == 0).all(axis=1).sum() == 1:
                return (values != 0).any(axis=-1)
            raise _refusal(picture, labels)
        values = values.mean(axis=-1).astype(np.uint8)
    if values.ndim == 3 or (values is picture.values and picture.palette is not None):
        raise _refusal(picture, labels)
    labels = np.unique(values)
    if len(labels) == 2 and 0 in labels:
        return values != 0
    if _is_soft(values, labels, full, picture.lossy):
        return values > full / 2
    raise _refusal(picture, _labels(picture.values, picture.colored))


def _is_soft(
    values: Num[np.ndarray, "height width"],
    labels: Num[np.ndarray, " n"],
    full: int | float,
    lossy: bool,
) -> bool:
    """Whether grays are a mask with soft edges, to be cut at half of the range."""
    low, high = float(labels[0]), float(labels[-1])
    if low > full / 2 or high <= full / 2:
        return False
    if len(labels) == 2:
        return True
    near = _NEAR_END * (high - low)
    at_ends = (values <= low + near).mean(), (values >= high - near).mean()
    if min(at_ends) == 0 or sum(at_ends) < _SOFT_SHARE:
        return False
    reach = _RINGING * (high - low) if lossy or len(labels) > _MAX_LABELS else 0
    between = (values > low + reach) & (values < high - reach)
    # Edges change from pixel to pixel; labels lie in areas.
    return not between.any() or bool(_flat(values)[between].mean() < 0.5)


def _flat(values: Num[np.ndarray, "height width"]) -> Bool[np.ndarray, "height width"]:
    """Which pixels lie in a square of two by two that has one value."""
    flat = np.zeros(values.shape, bool)
    corner = values[:-1, :-1]
    same = (corner == values[1:, :-1]) & (corner == values[:-1, 1:]) & (corner == values[1:, 1:])
    for rows in (slice(None, -1), slice(1, None)):
        for columns in (slice(None, -1), slice(1, None)):
            flat[rows, columns] |= same
    return flat


def _labeled(picture: _Picture, label: Label) -> Bool[np.ndarray, "height width"]:
    if label == "alpha":
        if picture.alpha is None:
            raise InputError(f"{picture.name} has no alpha; leave out the label, or give a value")
        mask = picture.alpha > 127
        if not mask.any():
            raise InputError(f"{picture.name} shows no object: it is transparent everywhere")
        return mask
    values, wanted = picture.values, np.array(label)
    if values.ndim == 3 and wanted.shape != (3,):
        if (values != values[..., :1]).any():
            raise InputError(
                f"{picture.name} has colors; give the label as (R, G, B) (--label R,G,B)"
            )
        values = values[..., 0]
    if values.ndim == 2 and wanted.ndim:
        if picture.palette is None:
            raise InputError(f"{picture.name} is gray; give the label as one number")
        values = picture.palette[values]
    mask = (values == wanted).all(axis=-1) if wanted.ndim else values == wanted
    if picture.alpha is not None and picture.palette is None:
        mask &= picture.alpha > 127
    if not mask.any():
        found = _listed(_labels(picture.values, picture.colored))
        raise InputError(f"{picture.name} has no label {_text(wanted)}: it has {found}")
    return mask


def _refusal(picture: _Picture, labels: np.ndarray) -> InputError:
    many = len(labels) > _MAX_LABELS
    if many or picture.lossy:
        return InputError(
            f"{picture.name} is no picture of a mask: it has {_listed(labels)}; save the mask as "
            "PNG, white inside and black outside"
        )
    return InputError(
        f"{picture.name} is a label picture: it has {_listed(labels)}; choose {_how(labels)}"
    )


def _labels(
    values: Num[np.ndarray, "*shape"], colored: bool = False
) -> Num[np.ndarray, "n *channels"]:
    """The values that occur, in order."""
    if not colored:
        return np.unique(values)
    pixels = values.reshape(-1, 3).astype(np.uint32)
    codes = np.unique(pixels[:, 0] << 16 | pixels[:, 1] << 8 | pixels[:, 2])
    return np.stack([codes >> 16, codes >> 8 & 255, codes & 255], axis=1)


def _text(label: Any) -> str:
    return ",".join(f"{one:g}" for one in np.atleast_1d(label))


def _listed(labels: np.ndarray) -> str:
    colors = labels.ndim == 2
    kind = ("colors" if colors else "values") if len(labels) > _MAX_LABELS else "labels"
    shown = (" and " if colors else ", ").join(_text(one) for one in labels[:_SHOWN_LABELS])
    more = f" and {len(labels) - _SHOWN_LABELS} more" if len(labels) > _SHOWN_LABELS else ""
    return f"the {kind} {shown}{more}"


def _how(labels: np.ndarray) -> str:
    return (
        "one with label=(R, G, B) (--label R,G,B)"
        if labels.ndim == 2
        else ("one with label=N (--label N)")
    )


def _picture(image: Image.Image, name: str) -> _Picture:
    check_size(*image.size, name)
    form, stored = stored_form(image), getattr(image, "stored", None)
    image.load()
    turned = orientation(image)
    lossy = image.format == "JPEG" or image.info.get("compression") == "jpeg"
    if image.format == "WEBP":  # either: few grays, or colors, are of a lossless one
        pixels = np.asarray(image.convert("RGB"))
        spread = int(np.ptp(pixels, axis=-1).max())
        lossy = 0 < spread <= _LOSSY_SPREAD or len(np.unique(pixels)) > _MAX_LABELS

    def upright(pixels: Shaped[np.ndarray, "..."]) -> Shaped[np.ndarray, "..."]:
        height, width = pixels.shape[:2]
        shape = (width, height) if turned >= 5 else (height, width)
        whole = np.empty((*shape, *pixels.shape[2:]), pixels.dtype)
        as_stored_in_file(whole, turned)[:] = pixels
        return whole

    if image.mode in ("La", "RGBa"):
        image = image.convert(image.mode.upper())
    alpha, mode = _alpha(image), image.mode
    turned_alpha = None if alpha is None else upright(alpha)
    if mode in ("P", "PA"):
        raw = np.asarray(image if mode == "P" else image.getchannel(0))
        table = np.zeros((256, 3), np.uint8)
        colors = np.array(image.getpalette("RGB") or [], np.uint8).reshape(-1, 3)[:256]
        table[: len(colors)] = colors
        return _Picture(name, upright(raw), 255, turned_alpha, table)
    if mode == "1":
        return _Picture(name, upright(np.asarray(image).astype(np.uint8)), 1)
    if mode in ("L", "LA"):
        values = np.asarray(image if mode == "L" else image.getchannel(0))
        # Of 2 and 4 bits, which Pillow stretches to 8.
        step = 85 if form.startswith("L;2") else 17 if form.startswith("L;4") else 1
        return _Picture(name, upright(values // step), 255 / step, turned_alpha, lossy=lossy)
    if mode in ("I", "F") or mode.startswith("I;16"):
        values = as_stored(np.asarray(image), stored)
        full = stored.white if stored else 1 if mode == "F" else 65535
        if stored and stored.inverted:
            values = (full - values.astype(np.float64)).astype(values.dtype)
        if not np.isfinite(values.astype(np.float64)).all():
            raise InputError(f"{name} holds NaN or infinite values")
        return _Picture(name, upright(values), full)
    image.info.pop("transparency", None)
    rgb = upright(np.asarray(image.convert("RGB")))
    gray = bool((rgb == rgb[..., :1]).all())
    return _Picture(name, rgb[..., 0] if gray else rgb, 255, turned_alpha, lossy=lossy)


def _alpha(image: Image.Image) -> UInt8[np.ndarray, "height width"] | None:
    """Alpha as a channel of its own, or as a palette's or one color's transparency."""
    if image.mode in ("LA", "PA", "RGBA"):
        return np.asarray(image.getchannel("A"))
    clear = image.info.get("transparency")
    if clear is None or image.mode not in ("P", "L", "RGB"):
        return None
    pixels = np.asarray(image)
    if isinstance(clear, bytes):
        table = np.full(256, 255, np.uint8)
        table[: len(clear)] = np.frombuffer(clear, np.uint8)[:256]
        return table[pixels]
    same = pixels == np.array(clear)
    return np.where(same.all(axis=-1) if same.ndim == 3 else same, 0, 255).astype(np.uint8)
