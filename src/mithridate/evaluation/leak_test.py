"""Leak test: do files and positions alone tell poisoned from clean images, without a look at pixels or captions."""

# pyright: reportAttributeAccessIssue=false
# (pyarrow makes its compute functions at import, where pyright does not see them)

import hashlib
import io
import re
import tarfile
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float, Int
from PIL import Image, JpegImagePlugin

from mithridate.data.containers import JPEG, PNG, RIFF, jpeg_segments, png_chunks, riff_chunks
from mithridate.data.images import FORMATS, read_bytes, split_place
from mithridate.data.pairs import Pairs
from mithridate.errors import DataError, EvaluationError
from mithridate.metrics.detection import estimate, roc_area
from mithridate.randomness import stream
from mithridate.statistics.estimate import Estimate
from mithridate.threads import thread_count

FOLDS = 5
AT_MOST = 2000  # poisoned and clean samples that are looked at, of each
_TREES = 50
_RARE = 3  # a value that fewer samples have says "rare"

Feature = float | str


@dataclass(frozen=True)
class LeakTest:
    """`auroc`: how often the classifier finds a poisoned sample more suspicious than a clean one, 0.5 by chance.

    `samples` that it was tried on, of which `poisoned`. `by` names a leak: what a classifier reaches with that kind of
    feature alone; empty where there is none. `grouped`: copies of one image were kept together in a fold and count
    once, which needs ten poisoned images.
    """

    auroc: Estimate
    samples: int
    poisoned: int
    by: dict[str, Estimate]
    grouped: bool

    @property
    def leaks(self) -> bool:
        """Whether the 95 % interval lies above 0.5.

        An interval below 0.5 is no leak: what the classifier learned does not hold on images it had not seen.
        """
        assert self.auroc.low is not None
        return self.auroc.low > 0.5


def leak_test(
    pairs: Pairs,
    poisoned: Bool[np.ndarray, " n"],
    *,
    records: Int[np.ndarray, " n"] | None = None,
    seed: int = 0,
) -> LeakTest:
    """Try to tell the poisoned samples of `pairs` by pixel dimensions, format, coding, metadata, names and position.

    A sample is an image with its captions: `records` (n,) says which pairs are one (default: those of one image).
    A forest of random trees is cross-validated; the area is the mean over folds, its interval over images. Neither
    pixels nor captions are looked at, nor the size in bytes, which depends on the pixels. Raises `EvaluationError`
    where fewer than ten samples are poisoned, or clean.
    """
    units = _Units.of(pairs, poisoned, pairs.image_index if records is None else records, seed)
    columns = _features(units)
    bad = units.poisoned
    grouped = len(np.unique(units.content[bad])) >= 2 * FOLDS
    group = units.content if grouped else np.arange(len(bad))
    area = cross_validated(columns, bad, group, stream(seed, "leak test"))
    found = LeakTest(area, len(bad), int(bad.sum()), {}, grouped)
    if not found.leaks:
        return found
    kinds = sorted({name.split(":")[0] for name in columns})
    parts = {kind: {n: c for n, c in columns.items() if n.startswith(f"{kind}:")} for kind in kinds}
    by = {k: cross_validated(part, bad, group, stream(seed, f"leak test by {k}")) for k, part in parts.items()}
    return replace(found, by=by)


@dataclass(frozen=True)
class _Units:
    """m samples: location of the image, name (uid), share of the pairs before it, captions, number of its content."""

    locations: list[str]
    names: list[str]
    position: Float[np.ndarray, " m"]
    captions: Int[np.ndarray, " m"]
    poisoned: Bool[np.ndarray, " m"]
    content: Int[np.ndarray, " m"]

    @classmethod
    def of(cls, pairs: Pairs, poisoned: np.ndarray, records: np.ndarray, seed: int) -> "_Units":
        # poisoned and clean captions may share an image where images are pointed at, not copied
        ids = np.unique(records.astype(np.int64) * 2 + poisoned, return_inverse=True)[1].reshape(-1)
        _, first, captions = np.unique(ids, return_index=True, return_counts=True)
        bad = poisoned[first]
        for what, count in (("poisoned", int(bad.sum())), ("clean", int((~bad).sum()))):
            if count < 2 * FOLDS:
                raise EvaluationError(f"a leak test needs at least {2 * FOLDS} {what} images, got {count}")
        rng = stream(seed, "leak test samples")
        chosen = np.sort(
            np.concatenate([rng.permutation(np.flatnonzero(bad == which))[:AT_MOST] for which in (True, False)])
        )
        rows = first[chosen]
        locations = pairs.image.take(rows).to_pylist()
        return cls(
            locations,
            pairs.uid.take(rows).to_pylist(),
            rows / len(pairs),
            captions[chosen],
            bad[chosen],
            np.unique(_contents(locations), return_inverse=True)[1].reshape(-1),
        )


def _contents(locations: Sequence[str]) -> list[str]:
    def digest(location: str) -> str:
        try:
            return hashlib.blake2b(read_bytes(location), digest_size=12).hexdigest()
        except DataError:
            return location

    with ThreadPoolExecutor(thread_count()) as pool:
        return list(pool.map(digest, locations))


# --- what is looked at -----------------------------------------------------------------------------------


def _features(units: _Units) -> dict[str, Float[np.ndarray, " m"]]:
    """For each feature (`KIND:NAME`) its value for each of the m samples, values that are words as numbers."""
    with ThreadPoolExecutor(thread_count()) as pool:
        found = list(pool.map(file_features, units.locations))
    for row, name, at, count in zip(found, units.names, units.position.tolist(), units.captions.tolist()):
        row |= {f"name:uid {key}": value for key, value in _of_name(name).items()}
        row |= {"position:row": at, "position:captions": float(count)}
    columns = {}
    for name in sorted({name for row in found for name in row}):
        values = [row.get(name, "") for row in found]
        columns[name] = _as_numbers(values, units.content)
    return columns


def _as_numbers(values: list[Feature], content: Int[np.ndarray, " m"]) -> Float[np.ndarray, " m"]:
    """Numbers as they are; words by how many images have them, the rare ones as one.

    Images, not samples: what one image has alone (Huffman tables made for it) is rare however often the image is used.
    """
    if all(isinstance(value, float) for value in values):
        return np.array(values, np.float64)
    words = [str(value) for value in values]
    images = Counter(word for word, _ in set(zip(words, content.tolist())))
    known = [word for word, count in sorted(images.items(), key=lambda x: (-x[1], x[0])) if count >= _RARE]
    code = {word: float(number) for number, word in enumerate(known)}
    return np.array([code.get(word, -1.0) for word in words])


def file_features(location: str) -> dict[str, Feature]:
    """What the file of an image says besides its pixels: `KIND:NAME` to a number or a word."""
    try:
        raw = read_bytes(location)
    except DataError:
        return {"format:format": "not there"}
    found: dict[str, Feature] = {f"name:{key}": value for key, value in _of_place(location).items()}
    found |= _of_image(raw)
    parts = _parts(raw)
    found["coding:parts"] = " ".join(name for name, _ in parts)
    found["coding:header"] = _digest(b"".join(body for name, body in parts if name in ("IHDR", "ff c4", "ff dd")))
    found["coding:stream"] = next((body.decode() for name, body in parts if name == "IDAT"), "")
    meta = b"".join(name.encode() + body for name, body in parts if _is_metadata(name))
    found |= {"metadata:length": float(len(meta)), "metadata:content": _digest(meta)}
    return found


def _of_image(raw: bytes) -> dict[str, Feature]:
    """Size, format and coding; no pixels are decoded."""
    try:
        with Image.open(io.BytesIO(raw), formats=FORMATS) as image:
            found: dict[str, Feature] = {
                "size:width": float(image.width),
                "size:height": float(image.height),
                "size:aspect": image.width / image.height,
                "format:format": str(image.format),
                "format:mode": image.mode,
                "format:frames": float(getattr(image, "n_frames", 1)),
            }
            if isinstance(image, JpegImagePlugin.JpegImageFile):
                tables = image.quantization
                found |= {
                    "coding:tables": _digest(repr(sorted(tables.items())).encode()),
                    "coding:first steps": float(sum(sum(table[:6]) for table in tables.values())),
                    "coding:subsampling": float(JpegImagePlugin.get_sampling(image)),
                    "coding:progressive": float("progressive" in image.info),
                }
            return found
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError, Image.DecompressionBombWarning):
        return {"format:format": "does not decode"}


def _is_metadata(name: str) -> bool:
    return name.startswith(("ff e", "ff fe")) or (name.isalpha() and name not in ("IHDR", "IDAT", "PLTE", "IEND"))


def _parts(raw: bytes) -> list[tuple[str, bytes]]:
    """(name, content) of the parts before the pixels, and of PNG all: JPEG segments, PNG chunks, RIFF chunks."""
    if raw.startswith(JPEG):
        found = [(marker, raw[start + 4 : end]) for marker, start, end in jpeg_segments(raw)]
        return [(f"ff {marker:02x}", body) for marker, body in found if marker != 0xDA]
    parts: list[tuple[str, bytes]] = []
    if raw.startswith(PNG):
        chunks = [(kind.decode("latin-1"), body) for kind, body in png_chunks(raw)]
        for number, (name, body) in enumerate(chunks):
            if name != "IDAT":
                parts.append((name, body))
            elif number == 0 or chunks[number - 1][0] != "IDAT":
                # how long all of it is depends on the pixels; how hard it was compressed and how it is cut does not
                cut = str(len(body)) if chunks[number + 1 : number + 2] and chunks[number + 1][0] == "IDAT" else ""
                parts.append((name, f"{body[:2].hex()} {cut}".encode()))
    elif raw.startswith(RIFF):
        for kind, body in riff_chunks(raw):
            name = kind.decode("latin-1").strip()
            parts.append((name, b"" if name.startswith(("VP8", "ALPH", "ANMF")) else body))
    return parts


def _of_place(location: str) -> dict[str, Feature]:
    """Name, folder, and times and rights where they are kept."""
    path, offset, _ = split_place(location)
    if offset is None:
        status = Path(path).stat()
        # folders that names are drawn for (ab/abcdef.jpg) say no more than the names
        folders = [folder for folder in Path(path).parts[:-1] if not Path(path).name.startswith(folder)]
        return {
            "folder": "/".join(folders),
            "ending": Path(path).suffix,
            "time": float(status.st_mtime),
            "rights": float(status.st_mode),
            **_of_name(Path(path).stem),
        }
    with Path(path).open("rb") as file:
        file.seek(offset - tarfile.BLOCKSIZE)
        head = file.read(tarfile.BLOCKSIZE)
    try:
        member = tarfile.TarInfo.frombuf(head, "utf-8", "surrogateescape")
    except tarfile.TarError:  # a header of several blocks
        return {"ending": "", "shard": Path(path).name}
    stem, _, ending = Path(member.name).name.partition(".")
    return {
        "ending": ending,
        "time": float(member.mtime),
        "rights": f"{member.mode} {member.uid} {member.gid} {member.uname} {member.gname}",
        **_of_name(stem),
    }


def _of_name(name: str) -> dict[str, Feature]:
    """The form of a name, and where it stands among others."""
    form = re.sub(r"[0-9]+", "0", re.sub(r"[a-z]", "a", re.sub(r"[A-Z]", "A", name)))
    # of names drawn from hexadecimal digits no two have one form
    form = "hexadecimal" if re.fullmatch(r"[0-9a-f]{16,}", name) else form
    return {
        "form": form,
        "length": float(len(name)),
        "begins": float(int.from_bytes(name.encode(errors="replace")[:6].ljust(6, b"\0"), "big")),
        "ends": float(int.from_bytes(name.encode(errors="replace")[-4:].rjust(4, b"\0"), "big")),
    }


def _digest(content: bytes) -> str:
    return hashlib.blake2b(content, digest_size=8).hexdigest() if content else ""


# --- the classifier --------------------------------------------------------------------------------------


def _folds(poisoned: np.ndarray, group: np.ndarray, rng: np.random.Generator) -> list[tuple[np.ndarray, np.ndarray]]:
    """(train, test) of each fold: poison spread evenly, samples of one group in one fold."""
    from sklearn.model_selection import StratifiedGroupKFold

    split = StratifiedGroupKFold(FOLDS, shuffle=True, random_state=int(rng.integers(2**31)))
    folds = list(split.split(np.zeros((len(poisoned), 1)), poisoned, group))
    return [fold for fold in folds if all(len(np.unique(poisoned[part])) == 2 for part in fold)]


def cross_validated(
    columns: dict[str, Float[np.ndarray, " m"]],
    poisoned: Bool[np.ndarray, " m"],
    group: Int[np.ndarray, " m"],
    rng: np.random.Generator,
) -> Estimate:
    """Mean over folds of the area under the ROC curve of what the classifier has not seen; samples of one `group`
    are in one fold, and one unit of the interval."""
    from sklearn.ensemble import ExtraTreesClassifier

    folds = _folds(poisoned, group, rng)
    seed = int(rng.integers(2**31))
    x = np.stack(list(columns.values()), axis=1)
    x = x[:, (x != x[:1]).any(axis=0)]
    value, influence = 0.0, np.zeros(len(poisoned))
    for train, test in folds:
        score = np.zeros(len(test))
        if x.shape[1]:
            forest = ExtraTreesClassifier(_TREES, min_samples_leaf=3, class_weight="balanced", random_state=seed)
            score = forest.fit(x[train], poisoned[train]).predict_proba(x[test])[:, 1]
        # areas of folds are averaged: scores of two forests are not compared
        area, part = roc_area(score.astype(np.float64), poisoned[test])
        value += area / len(folds)
        influence[test] += part / len(folds)
    # what one fold is tested on others are trained on: Nadeau and Bengio's correction (2003) of the variance, without
    # which 95 % intervals of sets without a leak held 0.5 in 78 to 92 % of cases
    between = float(np.sqrt(1 + len(folds) / (len(folds) - 1))) if len(folds) > 1 else 1.0
    return estimate(value, between * influence, group, of=poisoned)
