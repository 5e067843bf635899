"""Bytes of text: UTF-8, or the encoding that the user names; never a guess, never a question mark."""

from __future__ import annotations

import codecs

from mithridate.errors import DataError

_MARKS = (
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)


def decode_text(raw: bytes, where: str, encoding: str | None = None, *, option: bool = True) -> str:
    """`raw` as text, without a byte-order mark at its start.

    Raises `DataError` where it is not UTF-8 (or not `encoding`), with the encoding it is likely to be in.
    `option`: whether the command has an --encoding for it.
    """
    try:
        return raw.decode(encoding or "utf-8-sig").removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        if encoding is not None:
            raise DataError(f"{where} is not {encoding}: {error.reason} at byte {error.start}") from error
        likely = likely_encoding(raw)
        raise DataError(
            f"{where} is not UTF-8 (byte {error.start} is {raw[error.start]:#04x}); it looks like {likely}: "
            + (f"give --encoding {likely.split()[0]}, or save it as UTF-8" if option else "save it as UTF-8")
        ) from error


def check_encoding(name: str | None) -> None:
    """Raise `DataError` for the name of an encoding of text that Python does not know."""
    if name is None:
        return
    try:
        "".encode(name).decode(name)
    except (LookupError, UnicodeError, ValueError, AttributeError) as error:
        raise DataError(f"encoding {name!r} is unknown; expected a name such as utf-8, cp1252, gb18030") from error


def likely_encoding(raw: bytes) -> str:
    """The name of the encoding that bytes which are not UTF-8 are likely to be in."""
    for mark, name in _MARKS:
        if raw.startswith(mark):
            return name
    sample = raw[: 2**16]
    if sample.count(0) * 4 > len(sample):  # Latin letters in two bytes each
        return "utf-16-be" if sample[0::2].count(0) > sample[1::2].count(0) else "utf-16-le"
    high = sum(byte >= 0x80 for byte in sample)
    letters = sum(byte >= 0x80 or chr(byte).isalpha() for byte in sample)
    if high * 2 > letters:  # a Western text has few letters beyond ASCII
        for name in ("gb18030", "shift_jis", "big5", "euc-kr"):
            try:
                sample[: len(sample) // 2 * 2].decode(name)
            except UnicodeDecodeError:
                continue
            return f"{name} (or another encoding of Chinese, Japanese, Korean or Cyrillic)"
        return "cp1251 (or another encoding of Cyrillic)"
    try:
        sample.decode("cp1252")
    except UnicodeDecodeError:
        return "latin-1"
    return "cp1252"
