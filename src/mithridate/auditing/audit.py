"""From a corpus to a verdict: which groups of pairs look planted, how suspicious each pair is, which may stay."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np

from mithridate.auditing import calibration
from mithridate.auditing.campaigns import Campaign, campaigns
from mithridate.auditing.corpus import Corpus, corpus_of
from mithridate.auditing.evidence import Detector, Evidence
from mithridate.auditing.groups import Group
from mithridate.auditing.origins import Capacity, capacity
from mithridate.auditing.pixels import PixelFeatures
from mithridate.auditing.registry import audit_detectors
from mithridate.auditing.scores import Progress, silent
from mithridate.data.arrays import release
from mithridate.data.pairs import Pairs
from mithridate.encoder.embeddings import Embeddings
from mithridate.errors import FilterError
from mithridate.randomness import stream

LEAST_PAIRS = 50
_BH = 0.1
_TIES = 1e-3  # weight of ranks beside evidence
_ALIKE = (0.25, 0.75)  # shares of the corpus that may mismatch as the worse half of the clean pairs does
TRAINED = (
    "trained-encoder: the encoder was trained on these pairs, so it agrees with what is planted in them; mismatch, "
    "echo and group excess see little"
)


@dataclass(frozen=True, kw_only=True)
class AuditOptions:
    """How pairs are audited, whatever they come from."""

    detectors: Mapping[str, Detector] | None = None
    """Those of the registry that an audit runs, where there are none given."""
    flag: float = 6.0
    """The strength (-log10 of a tail probability) from which a group is flagged."""
    own: float = 0.1
    """Of a flagged group pairs whose mismatch has at most this p-value go."""
    allow: Iterable[tuple[str, str]] = ()
    """Kind and value of groups that a person dismissed before."""
    trained: bool = False
    """The encoder was trained on these pairs: detectors that need that are run too."""
    seed: int = 0


@dataclass(frozen=True)
class Calibration:
    """What p-values rest on: `images` and `pairs` known to be clean, the least p-value there can be (`floor`), and
    `fewest` alerts that Benjamini-Hochberg at 0.1 could give at all."""

    images: int
    pairs: int
    floor: float
    fewest: int


@dataclass(frozen=True)
class Audit:
    """What an audit says of n pairs.

    `suspicion` (n,) the combined ranking, `p_value` (n,) of it (NaN without clean pairs), `p` and `evidence` by
    detector, `campaigns` strongest first, `kept` (n,) which pairs stay. `null`: the strongest group where suspicions
    are dealt out at random. `left_out`: detectors that were not run, and why. `rejected`: pairs that the mismatch alone
    rejects at a false discovery rate of 0.1. `notes`: what a reader must know, each `code: sentence`.
    `capacity`: who holds how many pairs, whether they look planted or not. `flag`: the strength from which groups were
    flagged.
    """

    pairs: Pairs
    suspicion: np.ndarray
    p_value: np.ndarray
    evidence: Mapping[str, Evidence]
    p: Mapping[str, np.ndarray]
    campaigns: tuple[Campaign, ...]
    kept: np.ndarray
    null: float
    calibration: Calibration | None
    left_out: Mapping[str, str] = field(default_factory=dict)
    rejected: int = 0
    notes: tuple[str, ...] = ()
    capacity: Capacity | None = None
    flag: float = AuditOptions.flag

    @property
    def verdict(self) -> Literal["suspicious", "nothing found"]:
        return "suspicious" if self.campaigns else "nothing found"

    @property
    def flagged(self) -> int:
        return int((~self.kept).sum())


def audit_embeddings(
    pairs: Pairs,
    embeddings: Embeddings,
    *,
    clean: tuple[Pairs, Embeddings] | None = None,
    pixels: PixelFeatures | None = None,
    options: AuditOptions = AuditOptions(),
    progress: Progress = silent,
) -> Audit:
    """Run every detector that the inputs allow, calibrate, join groups to campaigns and say which pairs may stay.

    `embeddings` are those of `pairs`, by an encoder that was not trained on them. `clean`: pairs known to be clean,
    with embeddings by the same encoder; their images come after those of `pairs` in `pixels`. Never sees a manifest.
    Raises `FilterError` for fewer than 50 pairs, for clean pairs that are corpus pairs, and for embeddings of another
    encoder.
    """
    _refuse(pairs, embeddings, clean)
    beside, beside_pairs = (None, None) if clean is None else (clean[1], clean[0])
    trained = options.trained
    corpus = corpus_of(embeddings, beside, pairs=pairs, clean_pairs=beside_pairs, pixels=pixels, trained=trained)
    chosen = audit_detectors() if options.detectors is None else dict(options.detectors)
    lacking = {name: corpus.lacks(detector.needs) for name, detector in chosen.items()}
    left_out = {name: why for name, why in lacking.items() if why is not None}
    running = {name: d for name, d in chosen.items() if name not in left_out}
    n, evidence = len(pairs), {}
    for done, (name, detector) in enumerate(running.items()):
        evidence[name] = detector.examine(corpus, stream(options.seed, f"audit {name}"))
        release(corpus.embeddings.image, corpus.embeddings.text)
        progress("running detectors", done + 1, len(running))
    p = _each(corpus, evidence, options.seed)
    own_p = p["mismatch"] if "mismatch" in p else calibration.ranking_p(corpus.mismatch, np.ones(len(corpus), bool))
    groups = [group for e in evidence.values() for group in e.groups]
    allowed = frozenset(options.allow)
    groups = [group for group in groups if (group.kind, group.value) not in allowed]
    found = campaigns([_ours(group, n) for group in groups], own_p[:n], flag=options.flag, own=options.own)
    kept, strength = np.ones(n, bool), np.zeros(len(corpus))
    for group in groups:  # of clean pairs those that speak for a flagged group are as suspicious as others
        if group.strength >= options.flag:
            strength[group.tail] = np.maximum(strength[group.tail], group.strength)
    for campaign in found:
        kept[campaign.drop] = False
        strength[campaign.drop] = np.maximum(strength[campaign.drop], campaign.strength)
    suspicion, p_value = _combine(corpus, evidence, strength, options.seed)
    null = max((e.null for e in evidence.values()), default=0.0)
    calibrated, rejected = None, 0
    notes = [TRAINED] if trained else []
    if clean is not None:
        if "mismatch" in p and not trained:
            notes += _unlike(p["mismatch"][:n])
        images, count = int(corpus.clean_image.sum()), int(corpus.clean.sum())
        calibrated = Calibration(images, count, 1 / (count + 1), calibration.fewest_alerts(n, count, _BH))
        rejected = int(calibration.benjamini_hochberg(p["mismatch"], _BH).sum()) if "mismatch" in p else 0
    return Audit(
        pairs,
        suspicion[:n],
        p_value[:n],
        {name: _first(e, n) for name, e in evidence.items()},
        {name: values[:n] for name, values in p.items()},
        found,
        kept,
        null,
        calibrated,
        left_out,
        rejected,
        notes=(*notes, *(note for e in evidence.values() for note in e.notes)),
        capacity=capacity(pairs),
        flag=options.flag,
    )


def _each(corpus: Corpus, evidence: Mapping[str, Evidence], seed: int) -> dict[str, np.ndarray]:
    """Each detector's p-values: its own, or held against clean pairs where there are any."""
    own = {name: e.p for name, e in evidence.items() if e.p is not None}
    if not corpus.clean.any():
        return own
    held = {
        name: calibration.conformal(e.suspicion, e.suspicion[corpus.clean], stream(seed, f"ties {name}"))
        for name, e in evidence.items()
    }
    return held | own


def _combine(
    corpus: Corpus, evidence: Mapping[str, Evidence], strength: np.ndarray, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """The combined ranking and its p-value; `strength` is that of the flagged group that a pair is in, 0 without one.

    For each detector how much commoner such pairs are here than among clean ones, multiplied as if detectors were
    independent; ranks break the ties. A flagged group's tail is a factor more. Without clean pairs: ranks among all.
    The p-value is that of ranks among one half of the clean pairs, held against the other half: what is commoner here
    was read off the corpus itself, so that its pairs seem less clean by it than clean ones from elsewhere.
    """
    scores, clean = [e.suspicion for e in evidence.values()], corpus.clean

    def ranks(among: np.ndarray) -> np.ndarray:
        return calibration.surprise(np.stack([calibration.ranking_p(score, among) for score in scores]))

    if not clean.any():
        return strength + ranks(np.ones(len(corpus), bool)), np.full(len(corpus), np.nan)
    first = calibration.halves(corpus.image_index, clean, stream(seed, "calibration halves"))
    held = strength + ranks(first)
    p_value = calibration.conformal(held, held[clean & ~first], stream(seed, "ties combined"))
    commoner = np.sum([calibration.enrichment(score, clean) for score in scores], axis=0)
    return commoner + strength + _TIES * ranks(clean), p_value


def _unlike(p: np.ndarray) -> list[str]:
    """A note where p-values (n,) say that corpus and clean pairs are not alike: half of them should be below 0.5."""
    share = float((p <= 0.5).mean())
    if _ALIKE[0] <= share <= _ALIKE[1]:
        return []
    why = (
        "the encoder was trained on these pairs, or they are another kind of data"
        if share < _ALIKE[0]
        else "the clean pairs are another kind of data, or the encoder was trained on them"
    )
    said = f"{round(100 * share, 1)} % of the corpus mismatch as the worse half of the clean pairs does"
    return [f"clean-pairs-differ: {said}: {why}; p-values say little"]


def _ours(group: Group, n: int) -> Group:
    return replace(group, rows=group.rows[group.rows < n], tail=group.tail[group.tail < n])


def _first(evidence: Evidence, n: int) -> Evidence:
    p = None if evidence.p is None else evidence.p[:n]
    return replace(evidence, suspicion=evidence.suspicion[:n], reason=evidence.reason[:n], p=p)


def _refuse(pairs: Pairs, embeddings: Embeddings, clean: tuple[Pairs, Embeddings] | None) -> None:
    if len(pairs) < LEAST_PAIRS:
        raise FilterError(f"an audit needs at least {LEAST_PAIRS} pairs to compare, got {len(pairs)}")
    if not pairs.uid.equals(embeddings.uid):
        raise FilterError("the embeddings are of other pairs than the data; embed the data again")
    if clean is None:
        return
    shared = np.isin(clean[0].uid.to_pylist(), pairs.uid.to_pylist())
    if shared.any():
        raise FilterError(
            f"{int(shared.sum())} of the {len(shared)} clean pairs are pairs of the corpus, so they cannot say what "
            "clean pairs look like; give clean pairs from elsewhere"
        )
