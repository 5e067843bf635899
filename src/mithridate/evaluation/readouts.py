"""Success of triggers and of single targets read out otherwise than by prompts: by captions, and by a linear probe."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

import numpy as np
import pyarrow as pa
from jaxtyping import Float, Int

from mithridate.encoder.embed import image_source
from mithridate.evaluation.attack import AttackRanks, attack_ranks
from mithridate.evaluation.material import Findings, Material, model_name
from mithridate.evaluation.probe import PROBES, Probe, draw_folds, source_features
from mithridate.evaluation.success import attack_success_rate
from mithridate.evaluation.triggered import TriggeredImages
from mithridate.metrics.classification import ClassScores, true_ranks
from mithridate.poisoning.goals import ClassificationGoal, ImageToClass, TriggerToClass
from mithridate.poisoning.triggers import Trigger, describe, parse_trigger
from mithridate.report.document import Cell, Ranking, Table
from mithridate.statistics.differences import mean_over
from mithridate.statistics.estimate import Estimate
from mithridate.statistics.intervals import chance_hit, chance_min_rank, rate

FOLDS = 5
_HITS = (1, 5, 10)


# --- captions: what an image retrieves --------------------------------------------------------------------


@dataclass(frozen=True)
class Captions:
    """Where the best caption of the class wanted stands for n images, and for the same ones untouched, if there are."""

    rank: Int[np.ndarray, " n"]
    before: Int[np.ndarray, " n"] | None
    chance: dict[int, float]  # by K
    chance_rank: float


def captions_found(
    m: Material,
    name: str,
    images: Float[np.ndarray, "n d"],
    target: Int[np.ndarray, " n"],
    untouched: Float[np.ndarray, "n d"] | None = None,
) -> Captions:
    """Rank all test captions for each image; wanted are those of class `target` (n,), ties count against them."""
    text, n = m.embedded[name].text, len(images)
    ranks, before = np.zeros(n, np.int64), np.zeros(n, np.int64)
    hits: dict[int, float] = dict.fromkeys(_HITS, 0.0)
    mean = 0.0
    for each in np.unique(target):
        mine = target == each
        wanted = np.flatnonzero(m.pairs.labelled(m.classes.names[each]))
        found: AttackRanks = attack_ranks(images[mine], text, wanted)
        ranks[mine] = found.rank
        if untouched is not None:
            before[mine] = attack_ranks(untouched[mine], text, wanted).rank
        share = float(mine.mean())
        size = {"targets": len(wanted), "gallery": len(text)}
        hits = {k: value + share * chance_hit(k, **size) for k, value in hits.items()}
        mean += share * chance_min_rank(**size)
    return Captions(ranks, before if untouched is not None else None, hits, mean)


def caption_table(name: str, title: str, what: Sequence[tuple[tuple[Cell, ...], dict[str, Captions]]], m: Material):
    """`what`: for each attack the first cells of its rows (trigger, target), and what each model's images found."""
    told = len(what[0][0])
    before = any(c.before is not None for _, found in what for c in found.values())
    rows: list[tuple[Cell, ...]] = []
    for cells, found in what:
        for model, c in found.items():
            last = () if c.before is None else (rate(c.before < 10),)
            rng = np.random.default_rng([m.seed, 3])  # equal ranks, equal intervals
            numbers = (*(rate(c.rank < k) for k in _HITS), mean_over(c.rank, rng=rng), *last)
            rows.append((model_name(model), *cells, len(c.rank), *numbers))
        c = next(iter(found.values()))
        last = () if c.before is None else (c.chance[10],)
        rows.append(("chance", *cells, None, *(c.chance[k] for k in _HITS), c.chance_rank, *last))
    return Table(
        name,
        title,
        ("model", *("trigger", "target")[:told], "images", *(f"Hit@{k}" for k in _HITS), "MinRank")
        + (("Hit@10 without trigger",) if before else ()),
        tuple(rows),
        f"Each image ranks all {len(m.pairs):,} test captions. Hit@K: share of images with a caption of the class "
        "wanted among the first K. MinRank: 0-based rank of the best of them, mean over images; ties count against "
        "them. 95 % intervals: Wilson, and bootstrap over images.",
    )


# --- a linear probe on frozen features --------------------------------------------------------------------


@dataclass(frozen=True)
class Probed:
    """What probes say: of the test images, of each aim's triggered images, of the single targets, (n, classes) each."""

    untouched: Float[np.ndarray, "n c"]
    stamped: dict[int, Float[np.ndarray, "_ c"]]
    targets: Float[np.ndarray, "t c"] | None


def probe_scores(
    m: Material, name: str, probe: Probe, triggers: Mapping[int, tuple[Trigger, int]], targets: Sequence[str]
) -> Probed:
    """Scores of every image by a probe that has not seen it: of the other folds, triggered or not.

    `triggers`: by number of the aim the trigger and its class. Single `targets` (places) are scored by a probe of all
    test images but those at these places.
    """
    encoder, label = m.encoders[name], m.classes.label
    where = {"cache": m.cache, "limit": m.cache_limit, "progress": m.progress}
    source = image_source(encoder, m.pairs.images, **where)
    untouched = source_features(encoder, source, len(m.pairs.images), progress=m.progress)[m.classes.image]
    places = m.pairs.images.to_pylist()
    of_class, stamped = {}, {}
    for number, (trigger, target) in triggers.items():
        of_class[number] = np.flatnonzero(label != target)
        images = [places[i] for i in m.classes.image[of_class[number]]]
        stamping = TriggeredImages(images, trigger, encoder, m.seed)
        stamped[number] = source_features(encoder, stamping, len(images), progress=m.progress)
    classes = len(m.classes.names)
    scores = np.zeros((len(label), classes))
    found = {number: np.zeros((len(rows), classes)) for number, rows in of_class.items()}
    fold = draw_folds(label, FOLDS, np.random.default_rng([m.seed, 2]))  # the same for every model
    for number in range(FOLDS):
        test = fold == number
        held = {aim: test[rows] for aim, rows in of_class.items()}
        asked = [untouched[test], *(stamped[aim][mine] for aim, mine in held.items())]
        rng = np.random.default_rng([m.seed, 2, number])
        told = probe.fit_predict(untouched[~test], label[~test], np.concatenate(asked), rng)
        parts = np.split(told, np.cumsum([len(part) for part in asked])[:-1])
        scores[test] = parts[0]
        for (aim, mine), part in zip(held.items(), parts[1:]):
            found[aim][mine] = part
    if not targets:
        return Probed(scores, found, None)
    source = image_source(encoder, pa.array(targets, pa.string()), **where)
    wanted = source_features(encoder, source, len(targets), progress=m.progress)
    seen = ~np.isin(np.array(places, object)[m.classes.image], np.array(targets, object))
    rng = np.random.default_rng([m.seed, 2, FOLDS])
    return Probed(scores, found, probe.fit_predict(untouched[seen], label[seen], wanted, rng))


def measure_probe(
    m: Material, probe: Probe, aims: Sequence[ClassificationGoal], targets: Sequence[str], found: Findings
) -> None:
    """ASR and PSR where classes are told by a linear probe on each model's frozen features; adds to `found`.

    `targets`: places of the single target images, in the order of the aims that have one.
    """
    probe_name = next((name for name, kind in PROBES.items() if isinstance(probe, kind)), type(probe).__name__)
    triggers = {
        i: (parse_trigger(aim.trigger), m.classes.index(aim.target))
        for i, aim in enumerate(aims)
        if isinstance(aim, TriggerToClass)
    }
    wanted = np.array([m.classes.index(aim.target) for aim in aims if isinstance(aim, ImageToClass)], np.int64)
    label, names = m.classes.label, m.classes.names
    scores = {name: probe_scores(m, name, probe, triggers, targets) for name in m.encoders}
    accuracy = {n: ClassScores(n, names, label, s.untouched).accuracy() for n, s in scores.items()}
    rows: list[tuple[Cell, ...]] = []
    for name, right in accuracy.items():
        rows.append((model_name(name), "untouched images, own class", None, len(label), right, None))
    for number, (trigger, target) in triggers.items():
        others, what = label != target, describe(trigger)
        ranks = {}
        for name, s in scores.items():
            ranks[name] = true_ranks(s.stamped[number], np.full(int(others.sum()), target))
            after = _taken(ranks[name], label[others], target)
            before = _taken(true_ranks(s.untouched[others], np.full(int(others.sum()), target)), label[others], target)
            rows.append((model_name(name), what, names[target], int(others.sum()), after, before))
            key = "backdoor" if len(triggers) == 1 else f"backdoor {what} to {names[target]}"
            found.headline.setdefault(key, {}).setdefault(name, {})["asr of the probe"] = asdict(after)
        images = m.classes.image[others]
        told = {name: tuple(r.tolist()) for name, r in ranks.items()}
        found.rankings.append(Ranking(f"probe {what} to {names[target]}", m.uids(images), told, tuple(images.tolist())))
    for name, s in scores.items():
        if s.targets is not None:
            psr = rate(true_ranks(s.targets, wanted) == 0)
            rows.append((model_name(name), "single target images", "their own", len(wanted), psr, None))
            found.headline.setdefault("targeted", {}).setdefault(name, {})["psr of the probe"] = asdict(psr)
    rows.append(("chance", None, None, None, m.chance, m.chance if triggers else None))
    found.tables.append(
        Table(
            "probe",
            f"A linear probe ({probe_name}) on frozen features",
            ("model", "what", "target", "images", "success", "without trigger"),
            tuple(rows),
            f"Trained on untouched test images: each image is scored by a probe of the other {FOLDS - 1} of {FOLDS} "
            "folds, single targets by a probe of all but them. Success: of triggered images of other classes the share "
            "taken for the target (ASR), of single targets the share taken for their adversarial class (PSR), of "
            "untouched images the share taken for their own; ties count against the class. 95 % Wilson intervals; "
            "folds share training images, so they are a little too narrow.",
        )
    )
    told = ", ".join(f"{model_name(name)} {value.value:.3f}" for name, value in accuracy.items())
    found.summary.append(f"Linear probe ({probe_name}) on untouched test images: {told}; chance {m.chance:.3f}.")


def _taken(rank: Int[np.ndarray, " n"], label: Int[np.ndarray, " n"], target: int) -> Estimate:
    return attack_success_rate(np.where(rank == 0, target, -1), label, target=target)
