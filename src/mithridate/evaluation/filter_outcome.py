"""What a filter did, as values: how many pairs it removes and, with a manifest, which of them were poisoned."""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from jaxtyping import Bool

from mithridate.auditing.filter import Filtered
from mithridate.auditing.output import record
from mithridate.auditing.scores import Scores
from mithridate.data.pairs import Pairs
from mithridate.errors import EvaluationError
from mithridate.evaluation.measurement import Warning
from mithridate.metrics.detection import Detection, Losses, detection, losses
from mithridate.poisoning.manifest import Manifest

MUCH = 0.5  # of the pairs
_LISTED = 20


@dataclass(frozen=True, kw_only=True)
class SuspiciousPair:
    """One of the most suspicious pairs."""

    uid: str
    suspicion: float
    caption: str
    kept: bool


@dataclass(frozen=True, kw_only=True)
class FilterOutcome:
    """What `filtered` removes. With a manifest: `poisoned` (n,), the detector against it, and what the cut loses.

    `suspicious`: the most suspicious pairs, most suspicious first, where the pairs themselves are known.
    """

    filtered: Filtered
    poisoned: Bool[np.ndarray, " n"] | None = None
    detection: Detection | None = None
    losses: Losses | None = None
    suspicious: tuple[SuspiciousPair, ...] = ()
    warnings: tuple[Warning, ...] = ()
    provenance: dict[str, Any]

    def record(self) -> dict[str, Any]:
        """The numbers by detector, as JSON holds them."""
        name, n = self.filtered.detector.name, len(self.filtered.scores)
        removed = self.filtered.removed
        found: dict[str, Any] = {"filter": {name: {"pairs": n, "removed": removed, "removed share": removed / n}}}
        if self.detection is not None and self.losses is not None:
            found["detection"] = {
                name: {
                    "AUROC": asdict(self.detection.auroc),
                    "average precision": asdict(self.detection.average_precision),
                    "poison removed": asdict(self.losses.poison_removed),
                    "clean pairs lost": asdict(self.losses.clean_lost),
                }
            }
        return found


def filter_outcome(
    filtered: Filtered, *, manifest: Manifest | None = None, pairs: Pairs | None = None
) -> FilterOutcome:
    """Hold `filtered` against the truth in `manifest`, where there is one; `pairs` (those scored) give the captions.

    Raises `EvaluationError` where the manifest or the pairs are of another data set.
    """
    truth = None if manifest is None else poisoned_rows(filtered.scores, manifest)
    return FilterOutcome(
        filtered=filtered,
        poisoned=truth,
        detection=None if truth is None else detection(filtered.scores.suspicion, truth, filtered.image_index),
        losses=None if truth is None else losses(filtered.keep, truth, filtered.image_index),
        suspicious=() if pairs is None else _most_suspicious(filtered, pairs),
        warnings=tuple(_warnings(filtered)),
        provenance=record(filtered)
        | ({} if manifest is None else {"attack": manifest.attack, "attack options": manifest.options}),
    )


def poisoned_rows(scores: Scores, manifest: Manifest) -> Bool[np.ndarray, " n"]:
    """Which of the scored pairs are poisoned. Raises `EvaluationError` where the manifest is of another data set."""
    truth = manifest.poisoned["uid"]
    missing = int(pc.sum(pc.invert(pc.is_in(truth, value_set=scores.uid.cast(truth.type)))).as_py() or 0)  # type: ignore[attr-defined]
    if missing or not len(truth):
        raise EvaluationError(
            f"the manifest is of another data set: the scored pairs lack {missing} of its {len(truth)} poisoned pairs; "
            "embed and filter what the attack wrote"
        )
    return pc.is_in(scores.uid, value_set=truth.cast(scores.uid.type)).to_numpy()  # type: ignore[attr-defined]


def _most_suspicious(filtered: Filtered, pairs: Pairs) -> tuple[SuspiciousPair, ...]:
    order = filtered.scores.ranked()[:_LISTED]
    uids = filtered.scores.uid.take(pa.array(order))
    rows = pc.index_in(uids, value_set=pairs.uid.cast(uids.type))  # type: ignore[attr-defined]
    if rows.null_count:
        raise EvaluationError(
            f"the pairs are of another data set: they lack {rows.null_count} of the {len(order)} most suspicious uids; "
            "pass the data that were embedded"
        )
    return tuple(
        SuspiciousPair(uid=uid, suspicion=suspicion, caption=caption, kept=kept)
        for uid, suspicion, caption, kept in zip(
            uids.to_pylist(),
            filtered.scores.suspicion[order].tolist(),
            pairs.text.take(rows).to_pylist(),
            filtered.keep[order].tolist(),
        )
    )


def _warnings(filtered: Filtered) -> list[Warning]:
    n, removed = len(filtered.scores), filtered.removed
    if removed > MUCH * n:
        return [Warning(code="much-removed", values={"removed": removed / n})]
    if removed:
        return []
    return [
        Warning(
            code="nothing-removed", values={"level": filtered.level, "highest": float(filtered.scores.suspicion.max())}
        )
    ]
