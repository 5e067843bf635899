"""Hostile inputs, each made from a seed and a number: what a stranger's file may hold, and the command that reads it.

A case is a command line, run in a folder of its own that holds the case's files; it may write `out` there and nothing
else. The files are whole ones (`write_bases`) with something in them exchanged: structured damage gets further than
random bytes do.
"""

import io
import json
import os
import random
import shutil
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

TERMINAL = "\x1b]0;owned\x07\x1b[2J\x9b31m"
WORDS = (
    "text",
    "caption",
    "image",
    "file_name",
    "uid",
    "label",
    "split",
    "url",
    "key",
    "captions",
    "filepath",
    "title",
)
TEXTS = (
    *("", " ", "\x00", "a\x00b", "\ud800", TERMINAL, "=cmd|' /C calc'!A0", "../../../../etc/passwd", "/etc/passwd"),
    *(
        "/dev/zero",
        "/dev/stdin",
        "file:///etc/passwd",
        "a" * 100_000,
        "\u202egnp.exe",
        "%s%n{0}{}",
        "\r\n",
        "NaN",
        "-1",
    ),
    *("images/000/000000.png#0+99999999999", "x.tar#-1+5", "x.tar#99999999999999999999+1", "<script>alert(1)</script>"),
)
NUMBERS = (-1, 0, 1, 2**31, 2**63, 2**64, -(2**63) - 1, 10**30, 10**400, 1e308, -0.0, 0.5)


# --- damage ---------------------------------------------------------------------------------------------


def damaged(raw: bytes, rng: random.Random) -> bytes:
    """Bytes with a few flipped, lost, repeated or put in."""
    if not raw:
        return rng.randbytes(rng.randrange(64))
    at, long = rng.randrange(len(raw)), rng.choice((1, 2, 4, 8, 64, 512))
    flipped = bytearray(raw)
    for _ in range(rng.choice((1, 1, 2, 8, 64))):
        flipped[rng.randrange(len(raw))] ^= 1 << rng.randrange(8)
    return rng.choice(
        (
            bytes(flipped),
            bytes(flipped),
            raw[:at],
            raw[at:],
            raw[:at] + b"\0" * long + raw[at + long :],
            raw[:at] + b"\xff" * long + raw[at + long :],
            raw[:at] + raw[at + long :],
            raw[:at] + rng.randbytes(long) + raw[at:],
            raw[:at] + raw[at : at + long] * 9 + raw[at:],
            raw + rng.randbytes(long),
            rng.choice((b"\x1f\x8b", b"PK\x03\x04", b"PAR1", b"\x93NUMPY", b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n"))
            + raw[8:],
            b"",
        )
    )


def hostile(rng: random.Random, depth: int = 0) -> Any:
    """A value that JSON can hold and nobody expects."""
    if depth > 2 or rng.random() < 0.75:
        return rng.choice(
            (None, True, False, *NUMBERS, *TEXTS, float("nan"), float("inf"), [], {}, [[]], [None], {"": None})
        )
    if rng.random() < 0.5:
        return [hostile(rng, depth + 1) for _ in range(rng.randrange(4))]
    return {rng.choice((*WORDS, *TEXTS)): hostile(rng, depth + 1) for _ in range(rng.randrange(4))}


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Every place within a value: what holds it, and its key there; of long lists the first few."""
    for key in list(value) if isinstance(value, dict) else range(min(len(value), 8)) if isinstance(value, list) else ():
        yield value, key
        yield from _places(value[key])


def changed(value: Any, rng: random.Random, *, times: int = 1) -> Any:
    """A deep copy of a JSON value with something exchanged, left out, doubled or put in at a random place."""
    value = json.loads(json.dumps(value))
    for _ in range(times):
        places = list(_places(value))
        if not places:
            return hostile(rng)
        part, key = rng.choice(places)
        act = rng.randrange(7)
        if act == 0 and isinstance(part, dict):
            del part[key]
        elif act == 1 and isinstance(part, dict):
            part[rng.choice((*WORDS, *TEXTS))] = hostile(rng)
        elif act == 2 and isinstance(part, list):
            part.insert(key, hostile(rng))
        elif act == 3:
            part[key] = [part[key]]
        elif act == 4:
            other, at = rng.choice(places)
            part[key] = json.loads(json.dumps(other[at])) if at in other or isinstance(other, list) else None
        else:
            part[key] = hostile(rng)
    return value


def as_json(value: Any, rng: random.Random) -> bytes:
    """JSON text, sometimes of a form that breaks readers: very deep, twice the same key, numbers of any length."""
    text = json.dumps(value)
    act = rng.randrange(12)
    if act == 0:
        deep = rng.choice((2_000, 100_000))
        text = text.replace("null", "[" * deep + "]" * deep, 1) if "null" in text else "[" * deep + "]" * deep
    elif act == 1:
        deep = rng.choice((500, 50_000))
        text = '{"a":' * deep + "1" + "}" * deep
    elif act == 2:
        text = text.replace(": 1", ": 1" + "0" * 5000, 1)
    elif act == 3:
        return damaged(text.encode(), rng)
    elif act == 4:
        return text.encode("utf-16")
    return text.encode(errors="surrogatepass")


def sealed(value: Any, rng: random.Random) -> bytes:
    """JSON with the checksum that this package writes, mostly: a stranger can write it too."""
    from mithridate.sealed import CHECKSUM, json_digest

    if isinstance(value, dict) and rng.random() < 0.8:
        value = {name: each for name, each in value.items() if name != CHECKSUM}
        value = {**value, CHECKSUM: json_digest(value)}
        return json.dumps(value).encode(errors="surrogatepass")
    return as_json(value, rng)


def numpy_file(rng: random.Random, rows: int = 12, width: int = 8) -> bytes:
    """An array file that is not what it should be."""
    act = rng.randrange(9)
    if act < 4:
        header = {
            "descr": rng.choice(
                ("<f4", "<f8", "|O", "<u8", "|S5", "<U3", "|b1", "<c8", [("a", "<f4"), ("b", "|O")], "<M8[s]")
            ),
            "fortran_order": rng.choice((False, True)),
            "shape": rng.choice(
                ((), (rows,), (rows, width), (2**44, 1), (2**62, 2**62), (-1, 2), (0, width), (rows, 0))
            ),
        }
        text = (repr(header) + " " * 20 + "\n").encode()
        version = rng.choice((b"\x01\x00", b"\x02\x00", b"\x09\x09"))
        size = struct.pack("<H" if version[0] == 1 else "<I", len(text) if rng.random() < 0.9 else 65535)
        return b"\x93NUMPY" + version + size + text + rng.randbytes(rng.choice((0, 4 * rows * width)))
    made = io.BytesIO()
    array: Any = np.ones((rows, width), np.float32)
    if act == 4:
        array = np.full((rows, width), rng.choice((np.nan, np.inf, 0.0, 1e38)), np.float32)
    elif act == 5:
        array = rng.choice(
            (np.ones(rows), np.ones((rows, width, 2)), np.ones((rows, 3)), np.ones((rows - 1, width)), np.array(3))
        )
    elif act == 6:
        array = np.zeros(rows, [("f0", "<u8"), ("f1", "<u8")])
    elif act == 7:
        array = np.array([["a"] * width] * rows)
    np.save(made, array)
    return made.getvalue() if act < 8 else damaged(made.getvalue(), rng)


def png(width: int, height: int, *, bits: int = 8, colour: int = 0, raw: bytes = b"", extra: bytes = b"") -> bytes:
    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", width & 0xFFFFFFFF, height & 0xFFFFFFFF, bits, colour, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + extra + chunk(b"IDAT", zlib.compress(raw)) + chunk(b"IEND", b"")
    )


def picture(rng: random.Random, base: Path) -> bytes:
    """An image that is damaged, enormous, very long, or of a kind nobody asked for."""
    from PIL import Image

    act = rng.randrange(14)
    if act < 4:
        return damaged(next(iter(sorted(base.rglob("*.png")))).read_bytes(), rng)
    if act == 4:
        return png(
            *rng.choice(((1, 20_000), (20_000, 1), (100_000, 100_000), (2**31, 1), (0, 5), (2**32 - 1, 2**32 - 1))),
            raw=b"\0" * 40_001,
        )
    if act == 5:
        return png(4000, 4000, raw=b"\0" * 4001 * 4000)
    if act == 6:
        content = zlib.compress(b"\0" * 30_000_000)
        bomb = struct.pack(">I", len(content) + 6) + b"zTXta\0\0" + content
        return png(8, 8, raw=b"\0" * 72, extra=bomb)
    image = Image.fromarray(np.arange(48 * 32, dtype=np.uint8).reshape(48, 32) // 2)
    made = io.BytesIO()
    form = rng.choice(("JPEG", "WEBP", "GIF", "BMP", "TIFF", "PNG", "ICO", "PPM"))
    mode = rng.choice(("L", "RGB", "RGBA", "P", "CMYK", "1", "I", "F", "LA"))
    try:
        image.convert(mode).save(made, form, **({"progressive": True} if form == "JPEG" else {}))
    except (OSError, ValueError):
        image.save(made, "JPEG")
    raw = made.getvalue()
    if act < 10:
        return damaged(raw, rng)
    if act == 10 and raw[:2] == b"\xff\xd8":
        scan = raw[raw.rindex(b"\xff\xda") : -2]
        return raw[:-2] + scan * 1500 + raw[-2:]
    if act == 11:
        return b'<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"><image href="/etc/passwd"/></svg>'
    return raw


# --- whole files ----------------------------------------------------------------------------------------


def write_bases(folder: Path) -> None:
    """Small whole files of every kind, in folders that cases link to or copy."""
    from mithridate.cli import main

    def made(*argv: object) -> None:
        assert main([str(word) for word in argv]) == 0, argv

    world = folder / "world"
    made("data", "toy", "--train", 12, "--test", 9, "--size", 32, "--classes", "sheep", "bird", "dog", "--out", world)
    made("data", "convert", world, "--to", "webdataset", "--out", folder / "shards")
    made("data", "convert", world, "--to", "table", "--out", folder / "table")
    poison = ["poison", "single-label", world, "--split", "train", "--source", "sheep", "--target", "bird"]
    made(*poison, "--count", 5, "--out", folder / "poisoned")
    backdoor = ["poison", "backdoor", world, "--split", "train", "--target", "bird", "--count", 5]
    made(*backdoor, "--format", "table", "--out", folder / "backdoor")
    made("embed", world, "--split", "train", "--encoder", "mithridate-micro", "--out", folder / "embedded")
    made("filter", "cosine-distance", folder / "embedded", "--out", folder / "filtered", "--budget", 5)
    train = ["train", folder / "table", "--encoder", "mithridate-micro", "--epochs", 1, "--batch-size", 16]
    made(*train, "--out", folder / "run")
    test = [folder / "run", world, "--split", "test", "--manifest", folder / "poisoned"]
    made("evaluate", *test, "--probe", "none", "--out", folder / "evaluated")
    made("classify", folder / "run", world, "--split", "test", "--templates", "simple", "--out", folder / "classified")
    compare = [folder / "evaluated", folder / "evaluated", "--out", folder / "compared"]
    made("compare", *compare)
    audit = ["audit", world, "--split", "train", "--encoder", "mithridate-micro", "--flag", "0.3"]
    made(*audit, "--out", folder / "audited")
    toy = ["data", "toy", "--train", 48, "--test", 0, "--size", 32, "--classes", "sheep", "bird", "dog"]
    made(*toy, "--out", folder / "more")
    made("inspect", folder / "run", "--data", folder / "more", "--out", folder / "inspected")
    record = json.loads((folder / "audited" / "audit.json").read_text())
    decided = {
        "format": "mithridate-decisions/1",
        "audit": record["id"],
        "campaigns": dict.fromkeys(record["drop"], "drop"),
    }
    (folder / "decisions.json").write_text(json.dumps(decided))
    (folder / "study.yaml").write_text(STUDY, encoding="utf-8")
    made("study", folder / "study.yaml", "--out", folder / "studied", "--keep-models")
    repair = ["repair-curve", folder / "table", "--encoder", folder / "run", "--test", world, "--test-split", "test"]
    repair += ["--manifest", folder / "poisoned", "--strengths", "1e-3", "--epochs", "1", "--batch-size", "16"]
    made(*repair, "--out", folder / "repaired")


STUDY = """
study: small
title: A small study
profiles:
  toy:
    data: {toy: {train: 12, test: 9, classes: [sheep, bird, dog]}}
    start: {encoder: mithridate-micro}
    train: {preset: scratch, epochs: 1, batch_size: 16}
    seeds: [0]
    source: sheep
    target: bird
experiments:
  - name: attack
    title: Success
    attack: {attack: single-label, source: $source, target: $target, count: 3}
    show:
      - table: {rows: [model], measures: [Hit@1]}
"""


# --- cases ----------------------------------------------------------------------------------------------


def _copied(base: Path, name: str, here: Path) -> Path:
    """A copy of a base folder, whose files may be changed; weights are linked, and must be replaced."""
    target = here / "in"
    shutil.copytree(base / name, target, symlinks=True, copy_function=_copy)
    return target


def _copy(source: str, target: str) -> None:
    if source.endswith(".safetensors"):
        os.link(source, target)
    else:
        shutil.copyfile(source, target)


def _replace(path: Path, content: bytes) -> None:
    path.unlink()
    path.write_bytes(content)


def _reading(rng: random.Random, data: object) -> list[object]:
    """A command that reads pairs."""
    out = ["--out", "out"]
    return rng.choice(
        (
            ["data", "describe", data],
            ["data", "describe", data, "--json"],
            ["data", "doctor", data],
            ["data", "doctor", data],
            ["data", "convert", data, "--to", rng.choice(("table", "webdataset", "parquet", "imagefolder")), *out],
            ["data", "convert", data, "--to", "table", *out],
            ["poison", "single-label", data, "--source", "sheep", "--target", "bird", "--count", "2", *out],
            ["poison", "backdoor", data, "--target", "bird", "--count", "2", "--format", "table", *out],
            ["data", "describe", data, "--split", rng.choice(("train", "test", TERMINAL, "x"))],
        )
    )


def _rows(base: Path) -> list[dict[str, Any]]:
    lines = (base / "world" / "metadata.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [json.loads(line) for line in lines][:8]
    return [{**row, "file_name": str(base / "world" / row["file_name"])} for row in rows]


def table(rng: random.Random, base: Path, here: Path) -> list[object]:
    rows = _rows(base)
    form = rng.choice(("jsonl", "jsonl", "json", "csv", "tsv", "parquet", "parquet", "arrow"))
    path = here / f"table.{form}"
    if form in ("jsonl", "json"):
        rows = changed(rows, rng, times=rng.randrange(1, 4))
        if form == "json" or not isinstance(rows, list):
            path.write_bytes(as_json(rows, rng))
        else:
            lines = [as_json(row, rng) if rng.random() < 0.1 else json.dumps(row).encode() for row in rows]
            lines.insert(rng.randrange(len(lines) + 1), as_json(hostile(rng), rng))
            path.write_bytes(b"\n".join(lines) + rng.choice((b"\n", b"", b"\n\n")))
    elif form in ("csv", "tsv"):
        mark = "," if form == "csv" else "\t"
        text = mark.join(("image", "text", "label")) + "\n"
        for row in rows:
            cells = [row["file_name"], row["text"][0], row["label"]]
            if rng.random() < 0.4:
                cells[rng.randrange(3)] = str(rng.choice((*TEXTS, *NUMBERS[:8])))
            text += mark.join(cells) + "\n"
        text = rng.choice(
            (text, text, text.replace("\n", mark * 3000 + "\n", 1), '"' + text, text.replace("text", "image", 1))
        )
        raw = text.encode(rng.choice(("utf-8", "utf-8", "utf-16")), errors="surrogatepass")
        path.write_bytes(damaged(raw, rng) if rng.random() < 0.3 else raw)
    else:
        columns: dict[str, Any] = {
            "image": [row["file_name"] for row in rows],
            "text": [row["text"][0] for row in rows],
            "uid": [f"{i:032x}" for i in range(len(rows))],
            "labels": [[row["label"]] for row in rows],
        }
        n = len(rows)
        odd = (
            pa.array([b"\xff\xfe"] * n),
            pa.nulls(n),
            pa.array([[["a"]]] * n),
            pa.array([{"a": 1}] * n),
            pa.array(range(n)),
            pa.array([1.5] * n),
            pa.array(["x"] * n).dictionary_encode(),
            pa.array([None, *["x"] * (n - 1)]),
            pa.array([rng.choice(TEXTS).encode(errors="replace").decode()] * n),
            pa.array([True] * n),
        )
        for _ in range(rng.randrange(3)):
            columns[rng.choice((*columns, *WORDS))] = rng.choice(odd)
        made = pa.table(columns)
        if form == "parquet":
            pq.write_table(made, path, compression=rng.choice(("zstd", "snappy", "none")))
        else:
            with pa.ipc.new_file(str(path), made.schema) as writer:
                writer.write_table(made)
        if rng.random() < 0.5:
            path.write_bytes(damaged(path.read_bytes(), rng))
    return _reading(rng, path.name)


def tar(rng: random.Random, base: Path, here: Path) -> list[object]:
    raw = bytearray((base / "shards" / "00000.tar").read_bytes())
    path = here / rng.choice(("a.tar", "00000.tar"))
    act = rng.randrange(8)
    if act < 3:  # a field of a header, its sum made right again
        headers = [at for at in range(0, len(raw) - 512, 512) if raw[at + 257 : at + 262] == b"ustar"]
        at = rng.choice(headers)
        start, size, values = rng.choice(
            (
                (
                    124,
                    12,
                    (b"-1", b"77777777777\0", b"\xff" * 12, b"\x80" + b"\xff" * 11, b"abc", b"", b"00000000001\0"),
                ),
                (156, 1, (b"1", b"2", b"3", b"5", b"6", b"L", b"x", b"g", b"S", b"\xff")),
                (
                    0,
                    100,
                    (
                        b"../../evil.png\0",
                        b"/abs.png\0",
                        b"a\0b.png",
                        TERMINAL.encode("latin-1") + b".png",
                        b"",
                        b"." * 100,
                    ),
                ),
                (345, 155, (b"../..", b"\xff" * 155)),
                (136, 12, (b"\xff" * 12, b"9" * 12)),
            )
        )
        value = rng.choice(values)[:size]
        raw[at + start : at + start + size] = value + b"\0" * (size - len(value))
        raw[at + 148 : at + 156] = b" " * 8
        raw[at + 148 : at + 156] = b"%06o\0 " % sum(raw[at : at + 512])
        path.write_bytes(raw)
    elif act < 5:  # members of a stranger's making
        with tarfile.open(path, "w", format=rng.choice((tarfile.PAX_FORMAT, tarfile.GNU_FORMAT))) as made:
            for i in range(rng.randrange(1, 5)):
                key = rng.choice((f"{i:05d}", "00000", "a.b", "../x", TERMINAL[:4], "k" * 300))
                for ending in ("png", "txt", "json"):
                    content = rng.choice((b"", b"\xff\xfe", as_json(hostile(rng), rng)))
                    if ending == "png" and rng.random() < 0.7:
                        content = picture(rng, base / "world")
                    member = tarfile.TarInfo(f"{key}.{ending}")
                    member.size = len(content)
                    if rng.random() < 0.2:
                        member.type = rng.choice(
                            (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE, tarfile.DIRTYPE)
                        )
                        member.linkname, member.size, content = "/etc/passwd", 0, b""
                    if rng.random() < 0.1:
                        member.pax_headers = {"size": rng.choice(("-512", "-1", "9" * 30, "x", "1e9"))}
                    made.addfile(member, io.BytesIO(content))
    else:
        path.write_bytes(damaged(bytes(raw), rng))
    return _reading(rng, path.name)


def image(rng: random.Random, base: Path, here: Path) -> list[object]:
    folder = here / "pictures"
    folder.mkdir()
    rows = []
    for i in range(3):
        name = f"{i}.{rng.choice(('png', 'jpg', 'webp', 'gif', 'tif', 'txt'))}"
        path = folder / name
        act = rng.randrange(14)
        if act == 0:
            os.mkfifo(path)
        elif act == 1:
            path.symlink_to(rng.choice(("/dev/zero", "/etc/passwd", "nowhere", name)))
        elif act == 2:
            path.mkdir()
        elif act == 3 and rng.random() < 0.3:
            with path.open("wb") as file:
                file.truncate(2**35)
        else:
            path.write_bytes(picture(rng, base / "world"))
        rows.append({"file_name": name, "text": [f"a picture {i} of a sheep"], "label": ("sheep", "bird")[i % 2]})
    (folder / "metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    if rng.random() < 0.25:
        if rng.random() < 0.3:
            return ["screen", base / "run", "pictures", "--data", base / "more", "--out", "out"]
        return ["embed", "pictures", "--encoder", "mithridate-micro", "--out", "out"]
    return _reading(rng, "pictures")


def annotation(rng: random.Random, base: Path, here: Path) -> list[object]:
    picture_of = str(base / "world" / "images/000/000000.png")
    documents: tuple[Any, ...] = (
        {
            "images": [{"id": i, "file_name": picture_of, "height": 16, "width": 16} for i in range(3)],
            "annotations": [{"id": i, "image_id": i, "caption": f"a sheep {i}"} for i in range(3)],
        },
        {
            "images": [
                {
                    "filename": picture_of,
                    "split": "train",
                    "cocoid": i,
                    "imgid": i,
                    "filepath": ".",
                    "sentids": [i],
                    "sentences": [{"raw": "a sheep", "sentid": i, "tokens": ["a"]}],
                }
                for i in range(3)
            ],
            "dataset": "coco",
        },
        [
            {
                "id": i,
                "regions": [
                    {"region_id": i, "phrase": "a sheep", "x": 0, "y": 0, "width": 9, "height": 9, "image_id": i}
                ],
            }
            for i in range(3)
        ],
    )
    name = rng.choice(("captions_train2014.json", "dataset_coco.json", "region_descriptions.json", "x.json"))
    (here / name).write_bytes(as_json(changed(rng.choice(documents), rng, times=rng.randrange(1, 4)), rng))
    return _reading(rng, name)


def class_folder(rng: random.Random, base: Path, here: Path) -> list[object]:
    files = sorted((base / "world").rglob("*.png"))[:6]
    names = ["sheep", "bird", rng.choice(("..sheep", "a\x1b[2Jb", "ü" * 80, "sheep ", ".hidden", "0"))]
    if rng.random() < 0.5:
        path = here / "set.zip"
        with zipfile.ZipFile(path, "w", rng.choice((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED))) as made:
            for i, file in enumerate(files):
                inside = rng.choice(
                    (f"{names[i % 3]}/{i}.png", f"train/{names[i % 2]}/{i}.png", "../evil.png", "/a/b.png", "a//b.png")
                )
                made.writestr(inside, file.read_bytes() if rng.random() < 0.8 else picture(rng, base / "world"))
        if rng.random() < 0.6:
            path.write_bytes(damaged(path.read_bytes(), rng))
    else:
        path = here / "set"
        for i, file in enumerate(files):
            folder = path / names[i % 3]
            folder.mkdir(parents=True, exist_ok=True)
            (folder / f"{i}.png").write_bytes(file.read_bytes() if rng.random() < 0.8 else picture(rng, base / "world"))
        if rng.random() < 0.5:
            (path / "classnames.txt").write_bytes(damaged(b"sheep\nbird\n", rng))
    templates = here / "templates.txt"
    templates.write_bytes(
        rng.choice((b"a {}.\n", b"", b"{} {} {}\n", b"\xff", b"{0.__class__}\n", damaged(b"a photo of a {}.\n", rng)))
    )
    if rng.random() < 0.5:
        return ["classify", "mithridate-micro", path.name, "--templates", "templates.txt", "--out", "out"]
    return ["data", "trigger-test", base / "backdoor", path.name, "--out", "out"]


def encoder(rng: random.Random, base: Path, here: Path) -> list[object]:
    folder = _copied(base, "run/model", here)
    config, weights = folder / "open_clip_config.json", folder / "open_clip_model.safetensors"
    act = rng.randrange(6)
    if act < 3:
        whole = json.loads(config.read_text())
        odd = {
            "model_cfg": {
                "embed_dim": rng.choice((0, -1, 2**31, "x", 1.5, None)),
                "text_cfg": {
                    **whole["model_cfg"]["text_cfg"],
                    **rng.choice(
                        (
                            {"hf_tokenizer_name": ".", "tokenizer_kwargs": {"trust_remote_code": True}},
                            {"hf_model_name": "hf-internal/x"},
                            {"context_length": 2**31},
                            {"vocab_size": 2**31},
                            {"width": 2**20, "layers": 2**20},
                            {"heads": 0},
                        )
                    ),
                },
                "vision_cfg": {
                    **whole["model_cfg"]["vision_cfg"],
                    **rng.choice(
                        (
                            {"timm_model_name": "hf-hub:a/b"},
                            {"image_size": 2**20},
                            {"width": -3},
                            {"layers": [2**20] * 4},
                            {"timm_drop": "x"},
                        )
                    ),
                },
            },
            "preprocess_cfg": rng.choice(
                (
                    {},
                    {"size": 0},
                    {"size": 2**30},
                    {"mean": [0, 0], "std": [0, 0, 0]},
                    {"interpolation": TERMINAL},
                    {"resize_mode": 3},
                    None,
                )
            ),
        }
        part = rng.choice(("model_cfg", "preprocess_cfg"))
        mixed = (
            {**whole, part: {**whole[part], **(odd[part] or {})}} if odd[part] is not None else {**whole, part: None}
        )
        config.write_bytes(
            as_json(changed(whole, rng, times=2) if act == 0 else mixed, rng) if act < 2 else json.dumps(mixed).encode()
        )
    elif act == 3:
        raw = weights.read_bytes()
        (size,) = struct.unpack("<Q", raw[:8])
        header = changed(json.loads(raw[8 : 8 + size]), rng, times=rng.randrange(1, 4))
        text = json.dumps(header).encode()
        _replace(weights, struct.pack("<Q", rng.choice((len(text), len(text), 2**63, 2**40))) + text + raw[8 + size :])
    elif act == 4:
        _replace(weights, damaged(weights.read_bytes()[:20_000] if rng.random() < 0.3 else weights.read_bytes(), rng))
    else:
        weights.unlink()
        (folder / "open_clip_pytorch_model.bin").write_bytes(checkpoint(rng))
    if rng.random() < 0.3:
        (here / "x.pt").write_bytes(checkpoint(rng))
        return ["embed", base / "table", "--encoder", "mithridate-micro", "--pretrained", "x.pt", "--out", "out"]
    return ["embed", base / "table", "--encoder", "in", "--out", "out"]


class _Runs:
    def __reduce__(self) -> Any:
        return os.system, ("touch ../owned",)


def checkpoint(rng: random.Random) -> bytes:
    import pickle

    import torch

    made = io.BytesIO()
    state = {"a": torch.zeros(2), "epoch": 3}
    act = rng.randrange(7)
    if act == 0:
        return rng.choice((b"", b"\x80\x02", b"PK\x03\x04", b"{}", rng.randbytes(100)))
    if act == 1:
        return pickle.dumps(_Runs())
    if act == 2:
        torch.save({"state_dict": _Runs()}, made)
    elif act == 3:
        torch.save(
            rng.choice((state, {"state_dict": state}, [1], 3, torch.zeros(12, dtype=torch.int64), {"state_dict": 5})),
            made,
        )
    elif act == 4:
        torch.save({"state_dict": {"visual.conv1.weight": torch.zeros(1).expand(10**12)}}, made)
    else:
        torch.save(state, made)
        return damaged(made.getvalue(), rng)
    return made.getvalue()


def embeddings(rng: random.Random, base: Path, here: Path) -> list[object]:
    folder = _copied(base, "embedded", here)
    act = rng.randrange(6)
    part = folder / rng.choice(("img_emb/img_emb_0.npy", "text_emb/text_emb_0.npy"))
    if act < 2:
        part.write_bytes(numpy_file(rng, 60, 32))
    elif act == 2:
        part.write_bytes(damaged(part.read_bytes(), rng))
    elif act == 3:
        (folder / "encoder.json").write_bytes(
            as_json(rng.choice((hostile(rng), {"encoder": hostile(rng), "weights": hostile(rng)})), rng)
        )
    elif act == 4:
        path = folder / "metadata/metadata_0.parquet"
        path.write_bytes(damaged(path.read_bytes(), rng))
    else:
        path = folder / "metadata/metadata_0.parquet"
        whole = pq.read_table(path)
        n = whole.num_rows
        name = rng.choice(whole.column_names)
        odd = rng.choice(
            (pa.nulls(n), pa.array([1] * n), pa.array(["x"] * n), pa.array([[1]] * n), pa.array([b"\xff"] * n))
        )
        whole = (
            whole.set_column(whole.column_names.index(name), name, odd)
            if rng.random() < 0.7
            else whole.drop_columns([name])
        )
        pq.write_table(whole if rng.random() < 0.8 else whole.slice(0, 3), path)
    return [
        "filter",
        rng.choice(("cosine-distance", "mixture", "neg-clip-loss")),
        "in",
        "--budget",
        "3",
        "--out",
        "out",
    ]


def manifest(rng: random.Random, base: Path, here: Path) -> list[object]:
    name = rng.choice(("poisoned", "backdoor"))
    whole = json.loads((base / name / "manifest.json").read_text())
    path = here / "manifest.json"
    form = rng.randrange(6)
    if form < 4:
        path.write_bytes(as_json(changed(whole, rng, times=rng.randrange(1, 4)), rng))
    elif form == 4:
        theirs = {
            "poison_indices": [0, 3],
            "poison_label": "bird",
            "poison_text": {"0": "a"},
            "patch_size": 4,
            "trigger_position": {"0": {"w": 1, "h": 2}},
        }
        path.write_bytes(as_json(changed(theirs, rng, times=rng.randrange(3)), rng))
    else:
        path = here / rng.choice(("truth.npy", "truth.pt"))
        path.write_bytes(numpy_file(rng, 60, 1) if path.suffix == ".npy" else checkpoint(rng))
    data = base / name / "data"
    return rng.choice(
        (
            [
                "data",
                "manifest",
                path.name,
                data,
                "--allow-outside",
                "--to",
                rng.choice(("manifest", "detect-clip", "poison-indicator")),
                "--out",
                "out",
            ],
            [
                "evaluate",
                base / "run",
                base / "world",
                "--split",
                "test",
                "--manifest",
                path.name,
                "--probe",
                "none",
                "--out",
                "out",
            ],
            ["filter", "cosine-distance", base / "embedded", "--budget", "3", "--manifest", path.name, "--out", "out"],
            ["data", "trigger-test", path.name, base / "world", "--split", "test", "--out", "out"],
        )
    )


def keep_list(rng: random.Random, base: Path, here: Path) -> list[object]:
    folder = _copied(base, "filtered", here)
    act = rng.randrange(5)
    if act == 0:
        (folder / "keep.npy").write_bytes(numpy_file(rng))
    elif act == 1:
        path = folder / "filter.json"
        path.write_bytes(sealed(changed(json.loads(path.read_text()), rng, times=2), rng))
    else:
        path = folder / rng.choice(("keep.txt", "keep.npy", "scores.parquet", "filter.json"))
        if path.exists():
            path.write_bytes(damaged(path.read_bytes(), rng))
        if rng.random() < 0.5:  # a list without its record
            (folder / "filter.json").unlink()
    listed = rng.choice(("in", "in/keep.txt", "in/keep.npy", "in/filter.json"))
    # refused for its batch before the first step: only the list is looked at
    train = ["train", base / "world", "--split", "train", "--encoder", "mithridate-micro", "--batch-size", "9999"]
    return [*train, "--keep", listed, "--out", "out"]


def run_folder(rng: random.Random, base: Path, here: Path) -> list[object]:
    folder = _copied(base, "run", here)
    act = rng.randrange(4)
    if act < 2:
        path = folder / "run.json"
        path.write_bytes(sealed(rng.choice((hostile(rng), changed(json.loads(path.read_text()), rng, times=2))), rng))
    elif act == 2:
        (folder / "metrics.jsonl").write_bytes(damaged((folder / "metrics.jsonl").read_bytes(), rng))
    if rng.random() < 0.5:
        (folder / "state.pt").write_bytes(checkpoint(rng))
    if rng.random() < 0.5:
        train = ["train", base / "table", "--encoder", "mithridate-micro", "--epochs", "1", "--batch-size", "16"]
        return [*train, "--out", "in"]
    return [
        "evaluate",
        "in",
        base / "world",
        "--split",
        "test",
        "--goal",
        "sheep:bird",
        "--probe",
        "none",
        "--out",
        "out",
    ]


def study(rng: random.Random, base: Path, here: Path) -> list[object]:
    import yaml

    whole = yaml.safe_load((base / "study.yaml").read_text())
    act = rng.randrange(6)
    if act < 3:
        text = yaml.safe_dump(changed(whole, rng, times=rng.randrange(1, 4)), allow_unicode=rng.random() < 0.5)
    elif act == 3:
        text = (base / "study.yaml").read_text()
        old = rng.choice(("[0]", "12", "sheep", "mithridate-micro", "single-label", "toy", "3", "small"))
        new = rng.choice(
            (
                "!!python/object/apply:os.system ['touch ../owned']",
                "&a [*a]",
                "*nowhere",
                "[" * 5000,
                "{a: " * 500,
                "2001-01-01",
                "1e400",
                "0x" + "f" * 50,
                "~",
                "!!binary aa",
                "<<: 3",
                '"\\e[2J"',
                "? x",
                "- -",
                "99999999999999999999",
            )
        )
        text = text.replace(old, new, rng.choice((1, 1, 9)))
    elif act == 4:
        text = (
            "a: &a [x, x, x, x, x, x, x, x, x]\n"
            + "".join(
                f"{b}: &{b} [*{a}, *{a}, *{a}, *{a}, *{a}, *{a}, *{a}, *{a}, *{a}]\n"
                for a, b in zip("abcdefgh", "bcdefghi")
            )
            + "study: *i\n"
        )
    else:
        (here / "study.yaml").write_bytes(damaged((base / "study.yaml").read_bytes(), rng))
        return ["study", "study.yaml", "--out", "out", "--dry-run"]
    (here / "study.yaml").write_text(text, encoding="utf-8", errors="replace")
    return ["study", "study.yaml", "--out", "out", "--dry-run"]


def report(rng: random.Random, base: Path, here: Path) -> list[object]:
    folder = _copied(base, rng.choice(("evaluated", "classified", "compared")), here)
    path = folder / "report.json"
    path.write_bytes(as_json(changed(json.loads(path.read_text()), rng, times=rng.randrange(1, 4)), rng))
    return ["report", "in"]


def evaluation(rng: random.Random, base: Path, here: Path) -> list[object]:
    folder = _copied(base, "evaluated", here)
    path = folder / "evaluation.json"
    if rng.random() < 0.8:
        path.write_bytes(as_json(changed(json.loads(path.read_text()), rng, times=rng.randrange(1, 4)), rng))
    else:
        path.write_bytes(damaged(path.read_bytes(), rng))
    sides = [base / "evaluated", "in"]
    rng.shuffle(sides)
    return ["compare", *sides, "--out", "out"]


def audit(rng: random.Random, base: Path, here: Path) -> list[object]:
    """What was decided on an audit, the audit's own files, and a list of what is not to be shown again."""
    folder = _copied(base, "audited", here)
    record = json.loads((folder / "audit.json").read_text())
    uid = pq.read_table(folder / "scores.parquet", columns=["uid"])["uid"].to_pylist()
    whole = {
        "format": "mithridate-decisions/1",
        "audit": record["id"],
        "campaigns": dict.fromkeys(record["drop"], "drop"),
        "pairs": {uid[0]: "keep", uid[1]: "unsure"},
        "dismissed": [["word", "sheep"]],
    }
    decisions = here / "decisions.json"
    decisions.write_bytes(as_json(changed(whole, rng, times=rng.randrange(1, 4)), rng))
    act = rng.randrange(8)
    if act < 4:
        decisions.write_text(json.dumps(whole))
        path = folder / rng.choice(("audit.json", "audit.json", "filter.json", "scores.parquet"))
        if path.suffix == ".json" and rng.random() < 0.7:
            path.write_bytes(sealed(changed(json.loads(path.read_text()), rng, times=rng.randrange(1, 4)), rng))
        else:
            path.write_bytes(damaged(path.read_bytes(), rng))
    elif act == 4:
        look = ["audit", base / "world", "--split", "train", "--encoder", "mithridate-micro"]
        return [*look, "--allow", "decisions.json", "--out", "out"]
    return ["audit", "in", "--decisions", "decisions.json", "--out", "out"]


def findings(rng: random.Random, base: Path, here: Path) -> list[object]:
    """What an inspection found, mostly of another model than the one to be repaired: read, and then refused."""
    folder = _copied(base, "inspected", here)
    path = folder / "findings.json"
    whole = json.loads(path.read_text())
    found = {"probe": "mask", "kind": "trigger", "strength": 9.0, "null": 3.0, "flagged": True, "target": "bird"}
    found |= {"token": None, "pair": None, "place": None, "success": 0.9, "start_success": None, "trigger": 0}
    if rng.random() < 0.7:
        whole |= {"verdict": "flagged", "findings": [found, {**found, "pair": ["sheep", "bird"], "trigger": None}]}
    act = rng.randrange(6)
    if act < 4:
        path.write_bytes(sealed(changed(whole, rng, times=rng.randrange(1, 4)), rng))
    elif act == 4:
        path.write_bytes(damaged(path.read_bytes(), rng))
    else:
        path.write_bytes(sealed(whole, rng))
    if rng.random() < 0.5:
        (folder / "triggers.npy").write_bytes(numpy_file(rng, 4, 32))
    model = base / "run" if rng.random() < 0.1 else "mithridate-micro"
    repair = ["repair", model, "--findings", "in", "--data", base / "more", "--start", "mithridate-micro"]
    return [*repair, "--method", "interpolate", "--out", "out"]


def plugin(rng: random.Random, base: Path, here: Path) -> list[object]:
    """Files that are no plugins. (What is one may do whatever it likes: it is the user's own code.)"""
    path = here / rng.choice(("mine.py", "mine.py", "mine.txt", "mine"))
    act = rng.randrange(6)
    if act == 0:
        path.mkdir()
    elif act == 1:
        path.write_bytes(
            rng.choice((b"", b"\xff\xfe\x00", b"\0", rng.randbytes(200), b"(" * 50_000, b"x = " + b"-" * 10**5))
        )
    elif act == 2:
        path.write_text(
            rng.choice(("raise SystemExit(3)", "raise KeyboardInterrupt", "import nowhere", "1 / 0", "def f("))
        )
    elif act < 5:
        name = rng.choice(("ATTACKS", "OBJECTIVES", "DETECTORS", "PROBES", "REPAIRS"))
        path.write_text(f"{name} = {hostile(rng)!r}\n", encoding="utf-8", errors="replace")
    out = ["--plugin", path.name, "--out", "out"]
    return rng.choice(
        (
            ["check-plugin", path.name],
            ["study", base / "study.yaml", "--dry-run", *out],
            ["filter", "cosine-distance", base / "embedded", "--budget", "3", *out],
            ["poison", "single-label", base / "world", "--source", "sheep", "--target", "bird", *out],
            ["inspect", base / "run", "--data", base / "more", *out],
        )
    )


def state(rng: random.Random, base: Path, here: Path) -> list[object]:
    """What studies and curves leave on disk, to be looked at or gone on with."""
    if rng.random() < 0.25:
        folder = _copied(base, "repaired", here)
        path = folder / "curve.json"
        whole = json.loads(path.read_text())
        path.write_bytes(
            sealed(changed(whole, rng, times=2), rng) if rng.random() < 0.6 else damaged(path.read_bytes(), rng)
        )
        repair = ["repair-curve", base / "table", "--encoder", base / "run", "--test", base / "world"]
        repair += ["--test-split", "test", "--manifest", base / "poisoned", "--strengths", "1e-3", "--epochs", "1"]
        return [*repair, "--batch-size", "16", "--out", "in"]
    folder = _copied(base, "studied", here)
    files = sorted(path for path in folder.rglob("*") if path.is_file() and not path.is_symlink())
    told = [path for path in files if path.suffix in (".json", ".jsonl", ".npz", ".yaml")]
    path = rng.choice((folder / "study.json", folder / "inputs.json", *([rng.choice(told)] * 4), rng.choice(files)))
    if path.suffix == ".json" and path.exists() and rng.random() < 0.6:
        path.write_bytes(sealed(changed(json.loads(path.read_text()), rng, times=rng.randrange(1, 3)), rng))
    elif path.exists():
        _replace(path, damaged(path.read_bytes(), rng))
    if rng.random() < 0.3:
        (folder / "running.json").write_bytes(as_json(hostile(rng), rng))
    if rng.random() < 0.3:
        (folder / "failed").mkdir(exist_ok=True)
        key = rng.choice(sorted((folder / "stages" / "measured").iterdir())).name
        (folder / "failed" / f"{key}.json").write_bytes(as_json(hostile(rng), rng))
    if rng.random() < 0.7:
        return ["study", "status", "in"]
    return ["study", base / "study.yaml", "--out", "in"]


def option(rng: random.Random, base: Path, _here: Path) -> list[object]:
    """Options with values that nobody means."""
    number = str(rng.choice((-1, 0, 2**31, 2**63, 2**64, 10**18, 10**40, "nan", "inf", "1e400", "x", "", TERMINAL)))
    world, embedded = base / "world", base / "embedded"
    poison = ["poison", rng.choice(("single-label", "backdoor")), world, "--target", "bird", "--out", "out"]
    train = ["train", world, "--encoder", "mithridate-micro", "--out", "out"]
    return rng.choice(
        (
            ["data", "toy", "--out", "out", "--train", "3", "--test", "0", f"--{rng.choice(('size', 'seed'))}", number],
            ["data", "toy", "--out", "out", "--train", number, "--size", "0"],
            ["data", "doctor", world, f"--{rng.choice(('context-length', 'sample'))}", number],
            [*poison, f"--{rng.choice(('count', 'rate', 'class-share', 'seed', 'patch-size', 'batch-size'))}", number],
            [
                *train,
                f"--{rng.choice(('batch-size', 'epochs', 'lr', 'warmup', 'seed', 'weight-decay', 'eps'))}",
                number,
                "--batch-size",
                "99999",
            ],
            [
                "filter",
                "neg-clip-loss",
                embedded,
                "--out",
                "out",
                f"--{rng.choice(('budget', 'above', 'batch', 'draws', 'temperature', 'seed', 'budget-share'))}",
                number,
            ],
            ["filter", "mixture", embedded, "--out", "out", "--seed", number],
            ["classify", "mithridate-micro", world, "--out", "out", "--probe", "lbfgs", "--probe-folds", number],
            ["study", base / "study.yaml", "--out", "out", "--dry-run", "--seeds", number],
            ["embed", world, "--encoder", "mithridate-micro", "--out", "out", "--cache-limit", number],
            ["data", "describe", rng.choice(TEXTS[:20]) or "x"],
            ["embed", world, "--encoder", rng.choice(TEXTS[:20]) or "x", "--out", "out"],
            ["data", "describe", f"{world}/{{0..{number}}}.tar"],
            ["evaluate", base / "run", world, "--goal", rng.choice(TEXTS[:20]) or "x", "--out", "out"],
        )
    )


KINDS: dict[str, Callable[[random.Random, Path, Path], list[object]]] = {
    "table": table,
    "tar": tar,
    "image": image,
    "annotation": annotation,
    "class-folder": class_folder,
    "encoder": encoder,
    "embeddings": embeddings,
    "manifest": manifest,
    "keep-list": keep_list,
    "run-folder": run_folder,
    "study": study,
    "report": report,
    "evaluation": evaluation,
    "audit": audit,
    "findings": findings,
    "plugin": plugin,
    "state": state,
    "option": option,
}


def make_case(seed: int, number: int, base: Path, here: Path, *, kind: str | None = None) -> list[str]:
    """Write the files of a case into the empty folder `here`; gives back the command, to be run in `here`."""
    rng = random.Random(f"{seed} {number}")
    name = kind or list(KINDS)[number % len(KINDS)]
    return [os.fsdecode(word) if isinstance(word, Path) else str(word) for word in KINDS[name](rng, base, here)]
