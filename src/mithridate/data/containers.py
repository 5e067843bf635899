"""The parts of image files: segments of a JPEG, chunks of a PNG and of RIFF (WebP). Nothing is decoded.

A damaged file ends the walk, or gives a part that is shorter than its header says; no walk raises.
"""

from collections.abc import Iterator

JPEG, PNG, RIFF = b"\xff\xd8", b"\x89PNG\r\n\x1a\n", b"RIFF"
"""What the files begin with."""


def jpeg_segments(raw: bytes) -> Iterator[tuple[int, int, int]]:
    """(marker, start, end) of each segment, up to and including the header of the first scan (marker 0xDA).

    A segment is `raw[start:end]`, its content `raw[start + 4 : end]`. Fill bytes and markers without content are
    passed over (ITU-T T.81, B.1.1).
    """
    at = len(JPEG)
    while at + 4 <= len(raw):
        if raw[at] != 0xFF:  # what is between segments means nothing
            at += 1
            continue
        marker = raw[at + 1]
        if marker in (0x00, 0x01, 0xFF) or 0xD0 <= marker <= 0xD8:
            at += 1 if marker == 0xFF else 2
            continue
        end = at + 2 + int.from_bytes(raw[at + 2 : at + 4], "big")
        yield marker, at, end
        if marker == 0xDA:
            return
        at = end


def png_chunks(raw: bytes) -> Iterator[tuple[bytes, bytes]]:
    """(type, content) of each chunk."""
    at = len(PNG)
    while at + 12 <= len(raw):
        size = int.from_bytes(raw[at : at + 4], "big")
        yield raw[at + 4 : at + 8], raw[at + 8 : at + 8 + size]
        at += 12 + size


def riff_chunks(raw: bytes) -> Iterator[tuple[bytes, bytes]]:
    """(type, content) of each chunk behind the file's header; contents of odd length are padded by a byte."""
    at = 12
    while at + 8 <= len(raw):
        size = int.from_bytes(raw[at + 4 : at + 8], "little")
        yield raw[at : at + 4], raw[at + 8 : at + 8 + size]
        at += 8 + size + size % 2
