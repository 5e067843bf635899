"""An altered image in the container of the one it was: what is not pixels is taken over byte for byte.

Only the pixel data of JPEG and PNG are new. Everything else, from EXIF to comments, is spliced in from the source,
and the pixels are coded as they were: tables, subsampling, scans, mode, depth, palette.
"""

import io
import struct
import zlib
from collections.abc import Iterator
from functools import lru_cache

import numpy as np
from jaxtyping import UInt8
from PIL import Image, JpegImagePlugin

from mithridate.data.containers import JPEG, PNG, jpeg_segments, png_chunks, riff_chunks
from mithridate.data.images import FORMATS, decode, refuse_bomb, to_rgb
from mithridate.errors import AttackError

WRITABLE = ("JPEG", "PNG", "WEBP", "BMP")
_QUALITIES = (30, 40, 50, 60, 70, 75, 80, 85, 90, 95, 100)


def open_image(raw: bytes, place: str) -> Image.Image:
    """The image as it is coded, loaded. Raises `DataError`; `AttackError` for what is not written again."""
    decode_errors = (OSError, SyntaxError, ValueError, Image.DecompressionBombError, Image.DecompressionBombWarning)
    try:
        image = Image.open(io.BytesIO(raw), formats=FORMATS)
        refuse_bomb(raw, image, place)
        image.load()
    except decode_errors:
        image = decode(raw, place)  # the same sentence as everywhere else
    kind = "JPEG" if image.format == "MPO" else image.format
    if kind not in WRITABLE:
        raise AttackError(
            f"{place} is {kind or 'of no known kind'}: altered images are written as {', '.join(WRITABLE)}; convert "
            "it, or take its rows out"
        )
    return image


def colours(image: Image.Image) -> UInt8[np.ndarray, "h w 3"]:
    """The colours of an image of any mode, as they are trained on."""
    return np.asarray(image if image.mode == "RGB" else to_rgb(image))


def encode_like(raw: bytes, image: Image.Image, new: Image.Image) -> tuple[bytes, list[str]]:
    """`new`, of the mode of `image`, in the container of `raw`, which opens as `image`; and what could not be kept."""
    if image.format in ("JPEG", "MPO"):
        return _jpeg(raw, image, new)
    if image.format == "PNG":
        return _png(raw, image, new)
    if image.format == "WEBP":
        return _webp(raw, image, new)
    out = io.BytesIO()
    new.save(out, "BMP")
    return out.getvalue(), []


def in_mode(rgb: UInt8[np.ndarray, "h w 3"], image: Image.Image) -> Image.Image:
    """`rgb` in the mode of `image`: its transparency stays, and of palettes and deep greys whatever did not change."""
    new = Image.fromarray(np.ascontiguousarray(rgb))
    mode = image.mode
    if mode == "RGB":
        return new
    if mode in ("RGBA", "LA"):
        new = new.convert(mode[:-1])
        new.putalpha(image.getchannel("A"))
        return new
    if mode in ("P", "I;16"):
        changed = (rgb != colours(image)).any(axis=-1)
        old = np.asarray(image)
        if mode == "P":
            palette = image.copy()
            palette.info.pop("transparency", None)
            found = np.asarray(new.quantize(palette=palette, dither=Image.Dither.NONE))
            kept = Image.fromarray(np.where(changed, found, old).astype(np.uint8))
            kept.putpalette(image.getpalette() or [])
            return kept
        grey = np.asarray(new.convert("L")).astype(np.uint16) * 257
        return Image.fromarray(np.where(changed, grey, old).astype(np.uint16))
    if mode == "1":
        return new.convert("1", dither=Image.Dither.NONE)
    return new.convert(mode)


# --- JPEG -----------------------------------------------------------------------------------------------------


def _jpeg(raw: bytes, image: Image.Image, new: Image.Image) -> tuple[bytes, list[str]]:
    not_kept = []
    source = list(_segments(raw))
    markers = {marker for marker, _ in source}
    options: dict = {"qtables": image.quantization, "progressive": 0xC2 in markers}  # type: ignore[attr-defined]
    if len(image.getbands()) == 3:
        sampling = JpegImagePlugin.get_sampling(image)  # type: ignore[arg-type]
        options["subsampling"] = sampling if sampling >= 0 else 2
        if sampling < 0:
            not_kept.append("JPEG subsampling")
        options["keep_rgb"] = _stored_as_rgb(source)
    if not options["progressive"]:
        options["optimize"] = any(body not in _usual_huffman() for marker, body in source if marker == 0xC4)
    restart = next((body for marker, body in source if marker == 0xDD), None)
    if restart is not None:
        options["restart_marker_blocks"] = int.from_bytes(restart[:2], "big")
    if markers & {0xC9, 0xCA}:
        not_kept.append("JPEG arithmetic coding")
    out = io.BytesIO()
    new.save(out, "JPEG", **options)
    coded = out.getvalue()
    # the colours of CMYK are only right with the marker of whoever coded them
    taken = 0xEE if image.mode == "CMYK" else None
    parts = [JPEG, *(_segment(m, body) for m, body in source if _describes(m) and m != taken)]
    for marker, start, end in jpeg_segments(coded):
        if marker == 0xDA:
            parts.append(coded[start:])
        elif not _describes(marker) or marker == taken:
            parts.append(coded[start:end])
    return b"".join(parts), not_kept


def _segments(raw: bytes) -> Iterator[tuple[int, bytes]]:
    """(marker, body) of each segment before the first scan."""
    for marker, start, end in jpeg_segments(raw):
        if marker != 0xDA:
            yield marker, raw[start + 4 : end]


def _describes(marker: int) -> bool:
    """Application data and comments."""
    return 0xE0 <= marker <= 0xEF or marker == 0xFE


def _segment(marker: int, body: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, marker, len(body) + 2) + body


def _stored_as_rgb(segments: list[tuple[int, bytes]]) -> bool:
    """Whether the three channels are red, green and blue, not luma and chroma."""
    adobe = next((body for marker, body in segments if marker == 0xEE and body[:5] == b"Adobe"), b"")
    if len(adobe) >= 12:
        return adobe[11] == 0
    frame = next((body for marker, body in segments if marker in (0xC0, 0xC1, 0xC2)), b"")
    return not any(m == 0xE0 and body[:4] == b"JFIF" for m, body in segments) and frame[6:15:3] == b"RGB"


@lru_cache(maxsize=1)
def _usual_huffman() -> frozenset[bytes]:
    """The Huffman tables of the standard, which every encoder writes that does not count symbols first.

    Class and number, counts and symbols: each in a segment of its own, and all in one, which other libraries write.
    """
    out = io.BytesIO()
    Image.new("RGB", (8, 8)).save(out, "JPEG")
    tables = [body for marker, body in _segments(out.getvalue()) if marker == 0xC4]
    luma, chroma = tables[:2], tables[2:]
    return frozenset([*tables, b"".join(tables), b"".join(luma), b"".join(chroma)])


# --- PNG ------------------------------------------------------------------------------------------------------

_ANIMATION = {b"acTL", b"fcTL", b"fdAT"}


def _png(raw: bytes, image: Image.Image, new: Image.Image) -> tuple[bytes, list[str]]:
    source = list(png_chunks(raw))
    header = next(body for name, body in source if name == b"IHDR")
    data = [body for name, body in source if name == b"IDAT"]
    out = io.BytesIO()
    bits = {"bits": header[8]} if image.mode == "P" else {}
    # two bits of the stream say how hard it was compressed; these levels write the same two
    level = {0: 1, 1: 3, 2: 6, 3: 9}[data[0][1] >> 6 if len(data[0]) > 1 else 2]
    new.save(out, "PNG", compress_level=level, **bits)
    coded = list(png_chunks(out.getvalue()))
    written = next(body for name, body in coded if name == b"IHDR")
    pixels = b"".join(body for name, body in coded if name == b"IDAT")
    size = len(data[0]) if len(data) > 1 else max(1, len(pixels))

    not_kept = []
    if header[8:10] != written[8:10]:
        not_kept.append("PNG bit depth")
    if header[12]:
        not_kept.append("PNG interlacing")
    if any(name in _ANIMATION for name, _ in source):
        not_kept.append("PNG animation")
    first = next(i for i, (name, _) in enumerate(source) if name == b"IDAT")
    last = max(i for i, (name, _) in enumerate(source) if name == b"IDAT")
    before = [(name, written if name == b"IHDR" else body) for name, body in source[:first]]
    between = [(b"IDAT", pixels[at : at + size]) for at in range(0, len(pixels), size)]
    parts = [*before, *between, *source[last + 1 :]]
    kept = (_chunk(name, body) for name, body in parts if name not in _ANIMATION)
    return PNG + b"".join(kept), not_kept


def _chunk(name: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


# --- WebP -----------------------------------------------------------------------------------------------------


def _webp(raw: bytes, image: Image.Image, new: Image.Image) -> tuple[bytes, list[str]]:
    kept = {name: image.info[name] for name in ("exif", "icc_profile", "xmp") if image.info.get(name)}
    lossless = any(name == b"VP8L" for name, _ in riff_chunks(raw))
    options = {"lossless": True} if lossless else {"quality": _webp_quality(raw, image)}
    out = io.BytesIO()
    new.save(out, "WEBP", **options, **kept)
    return out.getvalue(), ["WebP animation"] if getattr(image, "n_frames", 1) > 1 else []


def _webp_quality(raw: bytes, image: Image.Image) -> int:
    """The quality at which the unaltered image would be nearest to its size: the file does not say which it was."""
    wanted = sum(len(body) for name, body in riff_chunks(raw) if name == b"VP8 ")
    low, high = 0, len(_QUALITIES) - 1
    sizes: dict[int, int] = {}

    def size(at: int) -> int:
        if at not in sizes:
            out = io.BytesIO()
            image.convert("RGB").save(out, "WEBP", quality=_QUALITIES[at])
            sizes[at] = sum(len(body) for name, body in riff_chunks(out.getvalue()) if name == b"VP8 ")
        return sizes[at]

    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if size(middle) < wanted else (low, middle)
    return _QUALITIES[min((low, high), key=lambda at: abs(size(at) - wanted))]
