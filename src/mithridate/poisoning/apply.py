"""From a plan to poisoned pairs and the manifest that tells the truth about them."""

# pyright: reportAttributeAccessIssue=false
# (pyarrow makes its compute functions at import, where pyright does not see them)

from __future__ import annotations

import hashlib
import platform
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from mithridate.data.fields import Origin, other_columns
from mithridate.data.images import read_bytes
from mithridate.data.pairs import SCHEMA, Pairs, hexadecimal
from mithridate.errors import AttackError
from mithridate.poisoning.combined import recorded
from mithridate.poisoning.craft import Crafted, Progress, _silent, craft
from mithridate.poisoning.manifest import Manifest
from mithridate.poisoning.plan import Attack, PoisonPlan, Surrogate
from mithridate.randomness import stream
from mithridate.version import __version__


@dataclass(frozen=True)
class Poisoned:
    """What an attack made of a data set: `pairs` for a trainer, `manifest` for `evaluate` alone.

    `records` (n,): pairs of one number were one sample of the source (an image with its captions); when the set is
    written out each gets a file of its own, poisoned or not. `bases` (k,): the place that the image of each poisoned
    pair was made from, null where it is as it was. `origin` tells a writer whose other fields go with each pair.
    """

    pairs: Pairs
    manifest: Manifest
    records: np.ndarray
    bases: pa.Array | None = None
    origin: Origin | None = None


def poison(
    pairs: Pairs,
    attack: Attack,
    *,
    seed: int = 0,
    gallery: Pairs | None = None,
    surrogate: Surrogate | None = None,
    images: Path | None = None,
    progress: Progress = _silent,
) -> Poisoned:
    """Poison `pairs`; they are left as they are. The result depends on `pairs`, `attack` and `seed` only.

    `gallery`: pairs outside the training set, from which a target image may be taken; `surrogate`: an encoder that the
    attack works with. Both are refused where the attack declares no need of them. `images`: a new folder for altered
    images, which attacks that alter some need. Raises `AttackError` where the attack cannot be carried out on these
    pairs; then nothing is written.
    """
    if not len(pairs):
        raise AttackError("there are no pairs to poison")
    _refuse_unused(attack, gallery, surrogate)
    plan = attack.plan(pairs, stream(seed, "poison"), gallery=gallery, surrogate=surrogate)
    _check(plan, pairs)
    if plan.edits is not None and images is None:
        raise AttackError(
            f"{attack.name} writes {len(plan.edits)} altered images and has no folder for them; give images=FOLDER"
        )
    crafted, shown = None, plan.images
    if plan.edits is not None and images is not None:
        crafted = craft(plan.edits, _first_texts(plan), images, seed=seed, progress=progress)
        plan = replace(plan, images=_altered(plan, crafted))
    poisoned, records, rows, origin = _carry_out(pairs, plan, shown, seed)
    manifest = _manifest(pairs, attack, seed, plan, poisoned, rows, crafted)
    if surrogate is not None:
        manifest = replace(manifest, versions={**manifest.versions, "surrogate": surrogate.name})
    return Poisoned(poisoned, manifest, records, _bases(plan), origin)


def _refuse_unused(attack: Attack, gallery: Pairs | None, surrogate: Surrogate | None) -> None:
    """Raise `AttackError` where the attack is given what it does not use."""
    if gallery is not None and not attack.needs_gallery:
        raise AttackError(f"{attack.name} with these options takes no images from a gallery; leave out --gallery")
    if surrogate is not None and not attack.needs_surrogate:
        raise AttackError(f"{attack.name} with these options works without an encoder; leave out --surrogate")


def _bases(plan: PoisonPlan) -> pa.Array:
    if plan.edits is None or plan.edited is None:
        return pa.nulls(len(plan), pa.string())
    return plan.edits.base.take(pa.array(plan.edited, mask=plan.edited < 0))


def _first_texts(plan: PoisonPlan) -> list[str]:
    """For each altered image the first caption that it gets."""
    assert plan.edits is not None and plan.edited is not None  # checked before
    edited = np.flatnonzero(plan.edited >= 0)
    images, first = np.unique(plan.edited[edited], return_index=True)
    texts = [""] * len(plan.edits)
    for image, row in zip(images.tolist(), edited[first].tolist()):
        texts[image] = plan.texts[row].as_py()
    return texts


def _altered(plan: PoisonPlan, crafted: Crafted) -> pa.Array:
    """The images of the plan with the altered ones in their places."""
    assert plan.edited is not None
    known = pa.concat_arrays([plan.images, crafted.places])
    at = np.where(plan.edited >= 0, len(plan) + plan.edited, np.arange(len(plan)))
    return known.take(pa.array(at))


def _check(plan: PoisonPlan, pairs: Pairs) -> None:
    replaced = plan.rows[plan.rows >= 0]
    if len(np.unique(replaced)) != len(replaced):
        raise AttackError("the plan names a pair twice")
    if np.isin(replaced, plan.drop).any():
        raise AttackError("the plan replaces a pair that it also drops")
    if (plan.edits is None) != (plan.edited is None):
        raise AttackError("the plan alters images and does not say which pairs get them, or the other way round")
    if len(plan.drop) >= len(pairs) + (plan.rows < 0).sum():
        raise AttackError("the plan leaves no pairs")


def _carry_out(
    pairs: Pairs, plan: PoisonPlan, shown: pa.Array, seed: int
) -> tuple[Pairs, np.ndarray, np.ndarray, Origin]:
    """The poisoned pairs, the record of each, where in them the k poisoned ones stand, and where all are from.

    `shown` (k,): the images of the plan before they were altered.
    """
    n, k = len(pairs), len(plan)
    added = np.flatnonzero(plan.rows < 0)
    replaced = np.flatnonzero(plan.rows >= 0)
    # row i of the new table takes its text from `text_at[i]` of [clean texts, poison texts], its image likewise
    text_at = np.concatenate([np.arange(n), n + added])
    text_at[plan.rows[replaced]] = n + replaced
    like_rows = plan.text_rows if plan.like_rows is None else plan.like_rows
    source_row = np.concatenate([np.arange(n), like_rows[added]])
    # a label goes with its caption: one that contradicts it would be found by reading
    label_row = np.concatenate([np.arange(n), plan.text_rows[added]])
    label_row[plan.rows[replaced]] = plan.text_rows[replaced]

    codes = plan.images.dictionary_encode()
    places = pa.concat_arrays([pairs.images, codes.dictionary])
    image_at = np.concatenate([pairs.image_index, len(pairs.images) + codes.indices.to_numpy()[added]])
    image_at[plan.rows[replaced]] = len(pairs.images) + codes.indices.to_numpy()[replaced]

    before = shown.dictionary_encode()
    bases = pa.concat_arrays([pairs.images, before.dictionary])
    base_at = np.concatenate([pairs.image_index, len(pairs.images) + before.indices.to_numpy()[added]])
    base_at[plan.rows[replaced]] = len(pairs.images) + before.indices.to_numpy()[replaced]

    uids = pa.chunked_array([*pairs.uid.chunks, _new_uids(pairs.uid, len(added), stream(seed, "uids of added pairs"))])
    keep = np.ones(len(text_at), dtype=bool)
    keep[plan.drop] = False
    # clean pairs keep their order; what is added falls anywhere between them
    between = _places_between(pairs, like_rows[added], stream(seed, "places of added pairs"))
    position = np.concatenate([np.arange(n, dtype=np.float64), between])
    order = np.argsort(position, kind="stable")
    order = order[keep[order]]

    texts = pa.chunked_array([*pairs.text.chunks, plan.texts])
    columns = {
        "uid": uids.take(pa.array(order)),
        "image": places.take(pa.array(image_at[order])),
        "text": texts.take(pa.array(text_at[order])) if k else pairs.text,
        "labels": pairs.labels.take(pa.array(label_row[order])),
        "split": pairs.split.take(pa.array(source_row[order])),
    }
    record = np.unique(
        pairs.image_index[source_row].astype(np.int64) * (len(places) + 1) + image_at, return_inverse=True
    )
    row_of = np.full(len(text_at), -1)
    row_of[order] = np.arange(len(order))
    new_rows = np.where(plan.rows >= 0, plan.rows, 0)
    new_rows[added] = n + np.arange(len(added))
    poisoned = Pairs(pa.table({name: columns[name] for name in SCHEMA}))
    origin = Origin(
        pairs.images.take(pa.array(pairs.image_index[source_row][order])), bases.take(pa.array(base_at[order]))
    )
    others = other_columns(pairs, poisoned, source_row[order], origin, row_of[new_rows])
    return poisoned.with_columns(**others), record[1][order], row_of[new_rows], origin


def _places_between(pairs: Pairs, source_rows: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Where copies of `source_rows` (a,) go among the rows 0 to n-1: (a,) floats, equal for what stays together.

    Captions of one image that stood in a row stay in a row, and come between images, not between the captions of
    one: a pair that stands alone where all others stand in fives would be known by that.
    """
    image = pairs.image_index
    gaps = np.flatnonzero(np.r_[True, image[1:] != image[:-1], True]) - 0.5
    begins = np.ones(len(source_rows), dtype=bool)
    begins[1:] = (np.diff(source_rows) != 1) | (np.diff(image[source_rows]) != 0)
    # the second draw orders the runs that fall into one gap
    places = rng.choice(gaps, int(begins.sum())) + rng.uniform(-0.4, 0.4, int(begins.sum()))
    return places[np.cumsum(begins) - 1]


def _new_uids(known: pa.ChunkedArray, count: int, rng: np.random.Generator) -> pa.Array:
    """`count` uids that look like the known ones and equal none of them."""
    if not count:
        return pa.array([], pa.string())
    if pc.all(pc.match_substring_regex(known, "^[0-9a-f]{32}$")).as_py():
        return hexadecimal(rng.integers(0, 256, (count, 16), dtype=np.uint8))
    taken = set(known.to_pylist())
    signs: dict[int, tuple[list[list[str]], str, str]] = {}
    made: list[str] = []
    for _ in range(count):
        for _ in range(200):
            model = known[int(rng.integers(len(known)))].as_py()
            if len(model) not in signs:
                signs[len(model)] = _signs(known, len(model))
            seen, first, last = signs[len(model)]
            uid = "".join(_like(letter, choice, rng) for letter, choice in zip(model, seen))
            # numbered uids: one beyond the last number would show
            if uid not in taken and first <= uid <= last:
                break
        else:
            raise AttackError(
                "the uids of these pairs leave no room for more of their kind, so added pairs would show; "
                "use mode=replace, or data without a uid column"
            )
        taken.add(uid)
        made.append(uid)
    return pa.array(made)


def _signs(known: pa.ChunkedArray, length: int) -> tuple[list[list[str]], str, str]:
    """Of the uids of one length: the letters that each position has, and the first and last of them in order."""
    same = known.filter(pc.equal(pc.utf8_length(known), length))
    seen = [sorted(pc.unique(pc.utf8_slice_codeunits(same, at, at + 1)).to_pylist()) for at in range(length)]
    ends = pc.min_max(same).as_py()
    return seen, ends["min"], ends["max"]


def _like(letter: str, seen: list[str], rng: np.random.Generator) -> str:
    """Of the letters seen in its place, one of its kind."""
    for kind in (str.isdigit, str.islower, str.isupper):
        if kind(letter):
            same = [other for other in seen if kind(other)]
            return same[int(rng.integers(len(same)))]
    return letter


def _manifest(
    pairs: Pairs,
    attack: Attack,
    seed: int,
    plan: PoisonPlan,
    poisoned: Pairs,
    rows: np.ndarray,
    crafted: Crafted | None,
) -> Manifest:
    hashes = _Hashes()
    if crafted is not None:
        hashes.known.update(zip(crafted.places.to_pylist(), crafted.sha256))
    # what stood there before; of an added pair what its caption was taken from
    at = pa.array(np.where(plan.rows >= 0, plan.rows, plan.text_rows))
    before, after = pairs.image.take(at).to_pylist(), plan.images.to_pylist()
    edits: list[str | None] = [None] * len(plan)
    if plan.edits is not None and plan.edited is not None:
        names = [str(step) for step in plan.edits.steps]
        edits = [None if i < 0 else names[plan.edits.step[i]] for i in plan.edited.tolist()]
    targets = max(1, len(plan.goals))
    table = pa.table(
        {
            "uid": poisoned.uid.take(pa.array(rows)).combine_chunks(),
            "image": plan.images,
            "text": plan.texts,
            "text_before": pairs.text.take(at).combine_chunks(),
            "sha256_before": pa.array(hashes.of(before)),
            "sha256": pa.array(hashes.of(after)),
            "added": pa.array(plan.rows < 0),
            "edit": pa.array(edits, pa.string()),
        }
    )
    return Manifest(
        attack=attack.name,
        options=recorded(attack),
        seed=seed,
        goals=plan.goals,
        strength={
            "count": len(plan),
            "rate": len(plan) / len(poisoned),
            "class_share": plan.used_images / max(1, plan.class_images),
            "targets": targets,
            "rate_per_target": len(plan) / targets / len(poisoned),
            "images": plan.used_images,
            "class_images": plan.class_images,
            "pairs": len(poisoned),
        },
        data={"clean": pairs.fingerprint, "poisoned": poisoned.fingerprint},
        versions={"mithridate": __version__, "python": platform.python_version(), "numpy": np.__version__},
        poisoned=table,
        dropped=tuple(pairs.uid.take(pa.array(plan.drop)).to_pylist()),
        crafted={} if crafted is None else {"images": len(crafted.places), "not_kept": crafted.not_kept},
    )


class _Hashes:
    """SHA-256 of images, each read once."""

    @cached_property
    def known(self) -> dict[str, str]:
        return {}

    def of(self, places: Iterable[str]) -> list[str]:
        out = []
        for place in places:
            if place not in self.known:
                self.known[place] = hashlib.sha256(read_bytes(place)).hexdigest()
            out.append(self.known[place])
        return out
