"""How long a video file is by its own account, so that one that was cut is known.

Every container but the streams made for broadcast says how many bytes its parts have: a file whose
last part goes on past its end was cut, whatever is in it. Frame counts and durations do not tell:
they are off by some in files that are whole (edit lists, variable frame rates, longer sound).
"""

import os
import struct
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

# Boxes at the top of MP4 and QuickTime files; anything else there is what a camera appended.
_BOXES = frozenset(
    b"ftyp styp moov mdat moof mfra free skip wide uuid meta sidx ssix prft pdin udta emsg".split()
)
_EBML, _SEGMENT, _CLUSTER = 0x1A45DFA3, 0x18538067, 0x1F43B675
# What is found inside a Matroska segment, or a cluster.
_ELEMENTS = frozenset(
    (0x114D9B74, 0x1549A966, 0x1654AE6B, 0x1C53BB6B, 0x1254C367, 0x1941A469, 0x1043A770)
    + (_CLUSTER, 0xEC, 0xBF, 0xE7, 0xA3, 0xA0, 0xAB, 0xA7, 0x5854)
)
_ASF = bytes.fromhex("3026b2758e66cf11a6d900aa0062ce6c")
# Some programs count the eight bytes in front of a RIFF chunk as its own.
_RIFF_HEADER = 8
_FLV_TAGS = frozenset((8, 9, 18))


def missing_bytes(path: Path) -> int:
    """How many bytes a file lacks, at least, by what it says of its parts; 0 if it says nothing.

    MP4 and QuickTime, Matroska and WebM, AVI and WebP, FLV, ASF (WMV) and Ogg.

    Raises:
      OSError: it cannot be read.
    """
    with open(path, "rb") as file:
        size = os.fstat(file.fileno()).st_size
        start = file.read(16)
        end = _walker(start)(file, size)
    return 0 if end is None else max(0, end - size)


def _walker(start: bytes) -> Callable[[BinaryIO, int], int | None]:
    if start[4:8] in _BOXES:
        return _iso_end
    if start[:4] == _EBML.to_bytes(4, "big"):
        return _matroska_end
    if start[:4] == b"RIFF":
        return _riff_end
    if start[:3] == b"FLV":
        return _flv_end
    if start == _ASF:
        return _asf_end
    if start[:4] == b"OggS":
        return _ogg_end
    return lambda file, size: None


def _at(file: BinaryIO, place: int, count: int) -> bytes:
    file.seek(place)
    return file.read(count)


def _iso_end(file: BinaryIO, size: int) -> int | None:
    """ISO/IEC 14496-12, 4.2: a box has its length first, 1 for a longer one, 0 for the rest."""
    place = 0
    while place + 8 <= size:
        head = _at(file, place, 16)
        length = int.from_bytes(head[:4], "big")
        if head[4:8] not in _BOXES or length == 0:
            return place
        if length == 1:
            length = max(int.from_bytes(head[8:16], "big"), 16)
        place += max(length, 8)
    return place


def _matroska_end(file: BinaryIO, size: int) -> int | None:
    """RFC 8794: an element's ID, its length, its content; live streams leave lengths open."""
    place = 0
    while place < size:
        element = _matroska_element(_at(file, place, 16))
        if element is None:  # cut within the element's head, unless it is none
            return size + 1 if size - place < 12 else place
        name, head, length = element
        if name not in _ELEMENTS and name not in (_EBML, _SEGMENT):
            return place
        place += head
        if length is not None:
            place += length
            if name == _SEGMENT:
                return place
        elif name not in (_SEGMENT, _CLUSTER):
            return None
    return place


def _matroska_element(head: bytes) -> tuple[int, int, int | None] | None:
    """ID, bytes of ID and length, and the length (None: open) of an element; None if cut."""
    if not head or not head[0]:
        return None
    name_bytes = 9 - head[0].bit_length()
    if len(head) <= name_bytes or not head[name_bytes]:
        return None
    length_bytes = 9 - head[name_bytes].bit_length()
    field = head[name_bytes : name_bytes + length_bytes]
    if len(field) < length_bytes:
        return None
    open_ended = (1 << 7 * length_bytes) - 1
    length = int.from_bytes(field, "big") & open_ended
    name = int.from_bytes(head[:name_bytes], "big")
    return name, name_bytes + length_bytes, None if length == open_ended else length


def _riff_end(file: BinaryIO, size: int) -> int | None:
    """RIFF chunks, one after the other: long AVI files have several (OpenDML)."""
    place = 0
    while place + 8 <= size and _at(file, place, 4) == b"RIFF":
        length = int.from_bytes(_at(file, place + 4, 4), "little")
        if length == 0 or length >= 0xFFFFFFF0:  # left open by what wrote it
            return None
        end = place + length
        place = end + 8 + length % 2
    return end if place > size else place


def _flv_end(file: BinaryIO, size: int) -> int | None:
    """Adobe's FLV specification, E.3: tags of 11 bytes and their data, 4 bytes between them."""
    place = int.from_bytes(_at(file, 5, 4), "big") + 4
    while place < size:
        head = _at(file, place, 11)
        if head[0] & 0x1F not in _FLV_TAGS:
            return place
        if len(head) < 11:
            return size + 1
        place += 11 + int.from_bytes(head[1:4], "big") + 4
    return place


def _asf_end(file: BinaryIO, size: int) -> int | None:
    """Microsoft's ASF specification, 2.1: objects with a name of 16 bytes and their length."""
    place = 0
    while place + 24 <= size:
        length = struct.unpack("<Q", _at(file, place + 16, 8))[0]
        if length < 24:  # left open
            return None
        place += length
    return place


def _ogg_end(file: BinaryIO, size: int) -> int | None:
    """RFC 3533, 6: a page's head, the lengths of its segments, and these."""
    place = 0
    while place < size:
        head = _at(file, place, 27 + 255)
        if head[:4] != b"OggS"[: len(head)]:
            return place
        if len(head) < 27 or len(head) < 27 + head[26]:
            return size + 1
        place += 27 + head[26] + sum(head[27 : 27 + head[26]])
    return place
