"""The structure of a JPEG, read from its markers without decoding a pixel.

A build copies millions of JPEGs; decoding each only to see that it is whole would cost more than all else. The markers
tell what matters: size, precision, number of components, how it is coded, and whether the end is there. The rule for
the end: an EOI marker must stand somewhere after the first scan's header. Cameras and editors append data after it (a
second picture, a maker's block), so it need not be the last word; inside a scan the bytes FF D9 cannot occur, and the
thumbnail in the EXIF block lies before the first scan, so a file that was cut short has none.

Source: ITU-T T.81, annex B.
"""

import struct
from dataclasses import dataclass

from manifests.errors import Reason, Rejected

_SOI, _EOI = b"\xff\xd8", b"\xff\xd9"
_SOS, _DQT, _TEM = 0xDA, 0xDB, 0x01
_BASELINE_EXTENDED_PROGRESSIVE = frozenset({0xC0, 0xC1, 0xC2})
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}  # less DHT, JPG and DAC
_STANDALONE = frozenset({_TEM, *range(0xD0, 0xD8)})
_COMPONENTS = {1: "grey", 3: "colour"}
_TAIL_BYTES = 1 << 16


@dataclass(frozen=True, slots=True, kw_only=True)
class JpegFrame:
    """What a JPEG's frame header says."""

    width: int
    height: int
    num_components: int


def is_jpeg(data: bytes | memoryview) -> bool:
    """True where `data` starts as a JPEG does."""
    return bytes(data[:3]) == _SOI + b"\xff"


def read_frame(data: bytes | memoryview) -> JpegFrame:
    """The frame of a JPEG that is whole and of a kind that every decoder reads.

    Raises:
        Rejected: NOT_AN_IMAGE, TRUNCATED, UNSUPPORTED_MODE.
    """
    frame: JpegFrame | None = None
    has_table = False
    place = 2
    while True:
        place, marker = _next_marker(data, place)
        if marker in _STANDALONE:
            continue
        if marker == _EOI[1]:
            raise Rejected(Reason.NOT_AN_IMAGE, f"the JPEG ends at byte {place} without a scan")
        length = _length(data, place)
        if marker == _DQT:
            has_table = True
        elif marker in _FRAMES:
            frame = _read_frame_header(data, place, marker, length)
        elif marker == _SOS:
            break
        place += length
    if frame is None or not has_table:
        missing = "frame header" if frame is None else "quantisation table"
        raise Rejected(Reason.NOT_AN_IMAGE, f"the JPEG has no {missing} before its scan at byte {place}")
    if not _has_end(data, place + length):
        raise Rejected(
            Reason.TRUNCATED, f"no end marker (FF D9) in the {len(data) - place} bytes after the scan header"
        )
    return frame


def _next_marker(data: bytes | memoryview, place: int) -> tuple[int, int]:
    """The byte after the next marker, and its code."""
    end = len(data)
    if place < end and data[place] != 0xFF:
        raise Rejected(Reason.NOT_AN_IMAGE, f"byte {place} of the JPEG is {data[place]:02X}, expected a marker (FF)")
    while place < end and data[place] == 0xFF:
        place += 1
    if place >= end:
        raise Rejected(Reason.TRUNCATED, f"the JPEG is cut at byte {end}, before its first scan")
    return place + 1, data[place]


def _length(data: bytes | memoryview, place: int) -> int:
    """Number of bytes of the segment at `place`, which must lie inside `data`."""
    if place + 2 > len(data):
        raise Rejected(Reason.TRUNCATED, f"the JPEG is cut at byte {len(data)}, inside a segment header")
    length = (data[place] << 8) | data[place + 1]
    if length < 2:
        raise Rejected(
            Reason.NOT_AN_IMAGE, f"the JPEG segment at byte {place} claims {length} bytes, expected 2 or more"
        )
    if place + length > len(data):
        raise Rejected(Reason.TRUNCATED, f"the JPEG is cut at byte {len(data)}, inside a segment of {length} bytes")
    return length


def _read_frame_header(data: bytes | memoryview, place: int, marker: int, length: int) -> JpegFrame:
    if length < 8:
        raise Rejected(Reason.NOT_AN_IMAGE, f"the JPEG frame header at byte {place} has {length} bytes, expected 8")
    precision, height, width, num_components = struct.unpack_from(">BHHB", data, place + 2)
    if marker not in _BASELINE_EXTENDED_PROGRESSIVE:
        raise Rejected(
            Reason.UNSUPPORTED_MODE,
            f"JPEG coding FF {marker:02X} (lossless, hierarchical or arithmetic), expected FF C0, C1 or C2",
        )
    if precision != 8:
        raise Rejected(Reason.UNSUPPORTED_MODE, f"JPEG of {precision} bits a sample, expected 8")
    if num_components not in _COMPONENTS:
        raise Rejected(
            Reason.UNSUPPORTED_MODE,
            f"JPEG of {num_components} components (4: CMYK or YCCK), expected 1 (grey) or 3 (colour)",
        )
    if not (width and height):
        raise Rejected(Reason.NOT_AN_IMAGE, f"the JPEG frame header says {width} x {height} pixels")
    return JpegFrame(width=width, height=height, num_components=num_components)


def _has_end(data: bytes | memoryview, start: int) -> bool:
    tail = max(start, len(data) - _TAIL_BYTES)
    return bytes(data[tail:]).rfind(_EOI) >= 0 or bytes(data[start:]).rfind(_EOI) >= 0
