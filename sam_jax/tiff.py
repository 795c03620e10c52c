"""TIFF files: which of their pages are pictures, and kinds of numbers beyond 8 bits.

Pillow's reader does the decoding. It is told here of gray kinds that its own table lacks or takes
for others: deep WhiteIsZero, big-endian ones that are compressed, halves and doubles. What cannot
be read right is refused by its kind.
"""

from typing import IO, Any, NamedTuple

import numpy as np
from PIL import Image, ImageFile, TiffImagePlugin

_SUBFILE, _OLD_SUBFILE = 254, 255
_WIDTH, _LENGTH, _BITS, _COMPRESSION, _PHOTOMETRIC, _FILL_ORDER = 256, 257, 258, 259, 262, 266
_STRIPS, _SAMPLES, _PLANAR, _TILES, _EXTRA, _FORMAT = 273, 277, 284, 324, 338, 339
_SUBSAMPLING = 530
_REDUCED, _TRANSPARENCY_MASK = 1, 4
_OLD_REDUCED = 2
_WHITE_IS_ZERO, _BLACK_IS_ZERO, _YCBCR = 0, 1, 6
_SEPARATE = 2
# A file with more pages is told to have this many.
_MAX_PAGES = 10_000
_COLORS = {2: "RGB", 3: "palette", 4: "mask", 5: "CMYK", 6: "YCbCr", 8: "LAB"}
_BANDS = {2: 3, 5: 4, 6: 3, 8: 3}
_NUMBERS = {1: "unsigned", 2: "signed", 3: "float", 5: "complex", 6: "complex"}


class Stored(NamedTuple):
    """What the numbers of a deep gray picture mean.

    Attributes:
      white: the stored number that is white (WhiteIsZero: black).
      inverted: whether 0 is white.
      view: the type that the decoded numbers are of, where Pillow's mode says another.
    """

    white: int | float
    inverted: bool = False
    view: str | None = None


class _Deep(NamedTuple):
    mode: str
    # Pillow's names of the numbers as they lie in the file: little-endian, big-endian, and as
    # libtiff gives them, in the machine's order.
    little: str
    big: str
    native: str
    white: int | float
    view: str | None = None


# Gray numbers by format and bits. 32-bit integers count as 16 bits: files of full 32 bits are rare.
_GRAY = {
    (1, 12): _Deep("I;16", "I;12", "I;12", "I;12", 4095),
    (1, 16): _Deep("I;16", "I;16", "I;16B", "I;16N", 65535),
    (1, 32): _Deep("I", "I;32S", "I;32BS", "I;32NS", 65535, "uint32"),
    (2, 16): _Deep("I", "I;16S", "I;16BS", "I;16NS", 32767),
    (2, 32): _Deep("I", "I;32S", "I;32BS", "I;32NS", 65535),
    (3, 16): _Deep("I;16", "I;16", "I;16B", "I;16N", 1, "float16"),
    (3, 32): _Deep("F", "F;32F", "F;32BF", "F;32NF", 1),
    (3, 64): _Deep("F", "F;64F", "F;64BF", "F;64NF", 1),
}


class _Kind(NamedTuple):
    photometric: int
    bits: tuple[int, ...]
    formats: tuple[int, ...]
    samples: int
    extra: tuple[int, ...]
    planar: int

    @property
    def bands(self) -> int:
        """Those that make the picture, without alpha and others."""
        return _BANDS.get(self.photometric, 1)

    def __str__(self) -> str:
        bits = "/".join(map(str, dict.fromkeys(self.bits)))
        number = "/".join(_NUMBERS.get(one, "other") for one in dict.fromkeys(self.formats))
        colors = _COLORS.get(self.photometric, "gray" if self.photometric < 2 else "other")
        kind = f"{bits}-bit {number} {colors}"
        return kind + (f" with {self.samples} bands" if self.samples != self.bands else "")


class TiffImage(TiffImagePlugin.TiffImageFile):
    """Pillow's TIFF reader for the kinds above, without the size warning it repeats in loading.

    Attributes:
      stored: what the numbers of a deep gray picture mean; else None.
      unsupported: of which kind it is, where that cannot be read; it must not be loaded then.
    """

    stored: Stored | None = None
    unsupported: str = ""

    def load_prepare(self) -> None:
        """As Pillow's, without its check of the size."""
        if self._im is None:
            self.im = Image.core.new(self.mode, self._tile_size)
        ImageFile.ImageFile.load_prepare(self)

    def _setup(self) -> None:
        self.stored, self.unsupported = None, ""
        tags = self.tag_v2
        if not all(tag in tags for tag in (_WIDTH, _LENGTH)) or not (
            _STRIPS in tags or _TILES in tags
        ):
            super()._setup()  # which says what is missing
            return
        kind = _kind(tags)
        deep = _GRAY.get((kind.formats[0], kind.bits[0]))
        gray = kind.photometric in (_WHITE_IS_ZERO, _BLACK_IS_ZERO) and kind.samples == 1
        self.unsupported = _reason(kind, tags)
        if self.unsupported or (gray and deep):
            self._setup_as_bytes(deep, kind)
            return
        try:
            super()._setup()
        except SyntaxError:
            self.unsupported = f"a TIFF of {kind}"
            self._setup_as_bytes(None, kind)
            return
        if kind.planar == _SEPARATE and kind.bits[0] == 16 and not self.use_load_libtiff:
            order = "B" if tags.prefix == TiffImagePlugin.MM else "L"
            self._decode_with([f"{band};16{order}" for band in self._forms()])

    def _setup_as_bytes(self, deep: _Deep | None, kind: _Kind) -> None:
        """Sets everything up as of a byte a pixel, which Pillow knows, then for what it is."""
        tags: Any = self.tag_v2
        put = {_PHOTOMETRIC: _BLACK_IS_ZERO, _BITS: 8, _SAMPLES: 1, _FORMAT: 1}
        put |= {_FILL_ORDER: 1, _PLANAR: 1}
        before = {tag: tags.get(tag) for tag in (*put, _EXTRA)}
        for tag in before:
            if tag in tags:
                del tags[tag]
        for tag, value in put.items():
            tags[tag] = value
        try:
            super()._setup()
        finally:
            for tag, value in before.items():
                if tag in tags:
                    del tags[tag]
                if value is not None:
                    tags[tag] = value
        if deep is None:
            return
        self._mode = deep.mode
        self.stored = Stored(deep.white, kind.photometric == _WHITE_IS_ZERO, deep.view)
        big = tags.prefix == TiffImagePlugin.MM
        name = deep.native if self.use_load_libtiff else deep.big if big else deep.little
        self._decode_with([name] * len(self.tile), kind.bits[0])

    def _forms(self) -> list[str]:
        """Pillow's name of how the pixels of each tile lie in the file."""
        return [tile.args[0] for tile in self.tile if isinstance(tile.args, tuple)]

    def _decode_with(self, names: list[str], bits: int = 8) -> None:
        tiles = []
        for tile, name in zip(self.tile, names, strict=True):
            assert isinstance(tile.args, tuple)
            rest: Any = tile.args[1:]
            if not self.use_load_libtiff:  # the bytes of a row, in tiles that reach over the edge
                rest = (rest[0] * bits // 8, *rest[1:])
            tiles.append(tile._replace(args=(name, *rest)))
        self.tile = tiles


def _kind(tags: TiffImagePlugin.ImageFileDirectory_v2) -> _Kind:
    def numbers(tag: int, default: tuple[int, ...]) -> tuple[int, ...]:
        value = tags.get(tag, default)
        return value if isinstance(value, tuple) and value else (value,)

    compression = tags.get(_COMPRESSION, 1)
    photometric = _YCBCR if compression == 6 else tags.get(_PHOTOMETRIC, 0)
    bits, formats = numbers(_BITS, (1,)), numbers(_FORMAT, (1,))
    jpeg = compression in (6, 7) and photometric in (2, _YCBCR)
    samples = tags.get(_SAMPLES, 3 if jpeg else 1)
    extra = numbers(_EXTRA, ()) if _EXTRA in tags else ()
    # Untyped data is what most readers take for unsigned.
    formats = tuple(1 if one == 4 else one for one in formats)
    return _Kind(photometric, bits, formats, samples, extra, tags.get(_PLANAR, 1))


def _reason(kind: _Kind, tags: TiffImagePlugin.ImageFileDirectory_v2) -> str:
    """What it is, where Pillow reads it wrong or an array of as many channels is refused."""
    others = kind.samples - kind.bands
    if others > 1 or (kind.photometric < 2 and others == 1 and kind.extra == (0,)):
        return f"a TIFF of {kind}"
    if len(set(kind.bits)) > 1 or len(set(kind.formats)) > 1:
        return f"a TIFF of {kind}"
    if kind.formats[0] == 2 and kind.bits[0] == 8:
        return f"a TIFF of {kind}"
    deep = (kind.formats[0], kind.bits[0]) in _GRAY
    raw = tags.get(_COMPRESSION, 1) == 1
    if deep and kind.samples == 1 and tags.get(_FILL_ORDER, 1) == 2 and raw:
        return f"a TIFF of {kind} with its bits in reverse order"
    if kind.photometric == _YCBCR and raw and tags.get(_SUBSAMPLING, (2, 2)) != (1, 1):
        return "an uncompressed TIFF of subsampled YCbCr"
    return ""


def as_stored(values: np.ndarray, stored: Stored | None) -> np.ndarray:
    """Decoded numbers in the type that they are of."""
    if stored is None or stored.view is None:
        return values
    return np.ascontiguousarray(values).view(stored.view)


def picture_pages(file: IO[bytes]) -> list[int]:
    """The places in the file of pages that are pictures of their own, from the first on.

    Reduced copies of another page (thumbnails, pyramids) and transparency masks are left out,
    unless there is nothing else. Ends where the chain of pages is damaged.
    """
    pages, all_pages = [], 0
    file.seek(0)
    header = file.read(8)
    header += file.read(8) if header[2:3] == b"+" else b""
    directory = TiffImagePlugin.ImageFileDirectory_v2(header)
    seen: set[int] = set()
    place = directory.next
    try:
        while place and place not in seen and all_pages < _MAX_PAGES:
            seen.add(place)
            file.seek(place)
            directory.load(file)
            if not len(directory):
                break
            subfile = directory.get(_SUBFILE, 0)
            old = directory.get(_OLD_SUBFILE, 0)
            if not subfile & (_REDUCED | _TRANSPARENCY_MASK) and old != _OLD_REDUCED:
                pages.append(all_pages)
            all_pages += 1
            place = directory.next
    except Exception:  # what Pillow raises for damaged tags
        pass
    file.seek(0)
    return pages or list(range(all_pages)) or [0]
