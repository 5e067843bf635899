"""The difference of evaluations on the same test pairs, query by query."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from jaxtyping import Int

from mithridate.errors import EvaluationError
from mithridate.evaluation.checks import few_queries
from mithridate.evaluation.curves import rank_figure
from mithridate.report.document import Cell, Figure, Ranking, Report, Table, Warning
from mithridate.report.sections.differences import sentence
from mithridate.statistics.differences import Difference, corrected, inside_noise, paired_difference
from mithridate.version import __version__

HITS = (1, 5, 10)
ATTACKED = ("poisoned", "model")  # what an evaluation calls the model it is about
_UTILITY = {"tr": ("TR", "Utility, image to text"), "ir": ("IR", "Utility, text to image")}


@dataclass(frozen=True)
class Side:
    """One of the models compared: `name` for people, `report` of its evaluation, `model` of that report."""

    name: str
    report: Report
    model: str


@dataclass(frozen=True)
class _Cell:
    ranking: str
    measure: str
    name: str
    values: tuple[float, float]
    difference: Difference


def side(name: str, report: Report, model: str | None = None) -> Side:
    """A side of the comparison; `model` is by default the attacked one. Raises `EvaluationError`."""
    known = {m for ranking in report.rankings for m in ranking.ranks}
    if not known:
        raise EvaluationError(f"{name} has no ranks of its queries to compare; evaluate it again")
    chosen = model or next((m for m in ATTACKED if m in known), None)
    if chosen not in known:
        raise EvaluationError(
            f"{name} has no model {chosen or 'poisoned'!r}; choose --model of {', '.join(sorted(known))}"
        )
    return Side(name, report, chosen)


def compare(sides: Sequence[Side], *, seed: int = 0, image: Mapping[str, int] | None = None) -> Report:
    """Each later side minus the first, paired on the queries of rankings that all of them have.

    Captions of one image are one unit: the evaluations tell which are, or `image`, by uid of the query. p-values are
    corrected (Holm) for all differences of the report. Raises `EvaluationError` where the test data differ.
    """
    if len(sides) < 2:
        raise EvaluationError(f"a comparison needs at least two evaluations, got {len(sides)}")
    if len({s.name for s in sides}) < len(sides):
        raise EvaluationError(f"the sides of a comparison need different names, got {', '.join(s.name for s in sides)}")
    fingerprint = _same_data(sides)
    shared, left_out = _shared_rankings(sides)
    rng = np.random.default_rng(seed)
    cells: list[_Cell] = []
    ranks: dict[str, dict[str, np.ndarray]] = {}
    queries: dict[str, tuple[str, ...]] = {}
    for name in shared:
        uid, ranks[name] = _aligned(name, sides)
        queries[name] = uid
        told = _ranking(sides[0], name)
        known = image if image is not None else dict(zip(told.uid, told.image)) or None
        cells += _differences(name, ranks[name], sides, rng, _clusters(uid, known))
    found = corrected([cell.difference for cell in cells])
    cells = [_Cell(c.ranking, c.measure, c.name, c.values, d) for c, d in zip(cells, found)]
    warnings = [w for name in shared if name not in _UTILITY for w in few_queries(_title(name), len(queries[name]))]
    by_image = image is not None or any(_ranking(sides[0], name).image for name in shared)
    if not by_image:
        warnings.append(
            Warning(
                "captions-as-units",
                "every caption counts as a unit of its own, so captions of one image make the intervals too narrow; "
                "give --data, the test pairs",
            )
        )
    first = sides[0].name
    return Report(
        title=f"{' and '.join(s.name for s in sides[1:])} against {first}",
        summary=(*_sentences(cells, first), *left_out),
        tables=(*(_table(name, cells, first, len(queries[name])) for name in shared), *_recipes(sides)),
        figures=tuple(_figure(name, ranks[name]) for name in shared if name not in _UTILITY),
        warnings=tuple(warnings),
        headline=_headline(cells, sides),
        provenance={
            "compared": {
                s.name: {"title": s.report.title, "model": s.model, "provenance": s.report.provenance} for s in sides
            },
            "test data": {"fingerprint": fingerprint},
            "units": "images" if by_image else "queries",
            "seed": seed,
            "versions": {"mithridate": __version__},
        },
    )


def _same_data(sides: Sequence[Side]) -> str:
    found = []
    for s in sides:
        data = s.report.provenance.get("test data")
        fingerprint = data.get("fingerprint") if isinstance(data, dict) else None
        if not isinstance(fingerprint, str):
            raise EvaluationError(f"{s.name} does not say on what test data it was made; evaluate it again")
        found.append(fingerprint)
    for s, fingerprint in zip(sides, found):
        if fingerprint != found[0]:
            raise EvaluationError(
                f"{sides[0].name} and {s.name} were evaluated on different test data (fingerprints {found[0][:12]} "
                f"and {fingerprint[:12]}); evaluate both on the same pairs"
            )
    return found[0]


def _shared_rankings(sides: Sequence[Side]) -> tuple[list[str], list[str]]:
    """Names that all sides have ranks of their model for, and a sentence for each that some lack."""
    having = [{r.name for r in s.report.rankings if s.model in r.ranks} for s in sides]
    everything = list(dict.fromkeys(r.name for s in sides for r in s.report.rankings if s.model in r.ranks))
    shared = [name for name in everything if all(name in names for names in having)]
    if not shared:
        raise EvaluationError("the evaluations have no goal and no utility in common, so nothing can be compared")
    return shared, [
        f"{_title(name)} is not compared: {', '.join(s.name for s, names in zip(sides, having) if name not in names)} "
        "did not measure it."
        for name in everything
        if name not in shared
    ]


def _aligned(name: str, sides: Sequence[Side]) -> tuple[tuple[str, ...], dict[str, np.ndarray]]:
    """The uids of the first side's queries, and for each side the ranks in that order."""
    uid = _ranking(sides[0], name).uid
    found = {}
    for s in sides:
        ranking = _ranking(s, name)
        place = {u: i for i, u in enumerate(ranking.uid)}
        if len(place) < len(ranking.uid) or place.keys() != set(uid):
            raise EvaluationError(
                f"{sides[0].name} and {s.name} have different queries for {_title(name)}; evaluate both again"
            )
        try:
            ranks = np.array(ranking.ranks[s.model], dtype=np.int64)
        except OverflowError as error:
            raise EvaluationError(f"{s.name} has a rank that is no position; evaluate it again") from error
        if not len(ranks) or ranks.min() < 0:
            raise EvaluationError(f"{s.name} has no query or a negative rank for {_title(name)}; evaluate it again")
        found[s.name] = ranks[[place[u] for u in uid]]
    return uid, found


def _ranking(s: Side, name: str) -> Ranking:
    return next(r for r in s.report.rankings if r.name == name and s.model in r.ranks)


def _clusters(uid: tuple[str, ...], image: Mapping[str, int] | None) -> Int[np.ndarray, " q"] | None:
    if image is None:
        return None
    unknown = [u for u in uid if u not in image]
    if unknown:
        raise EvaluationError(f"{len(unknown)} queries are not in the test pairs given (for one, {unknown[0]})")
    found = np.array([image[u] for u in uid], dtype=np.int64)
    # every query an image of its own: then it is the unit anyway
    return None if len(np.unique(found)) == len(found) else found


def _differences(
    name: str,
    ranks: dict[str, np.ndarray],
    sides: Sequence[Side],
    rng: np.random.Generator,
    cluster: Int[np.ndarray, " q"] | None,
) -> list[_Cell]:
    prefix = _UTILITY[name][0] if name in _UTILITY else "Hit"
    reference = ranks[sides[0].name]
    cells = []
    for s in sides[1:]:
        mine = ranks[s.name]
        measures = {f"{prefix}@{k}": (mine < k, reference < k) for k in HITS}
        measures["mean rank" if name in _UTILITY else "MinRank"] = (mine, reference)
        cells += [
            _Cell(
                name,
                measure,
                s.name,
                (float(before.mean()), float(after.mean())),
                paired_difference(after, before, rng=rng, cluster=cluster),
            )
            for measure, (after, before) in measures.items()
        ]
    return cells


def _title(name: str) -> str:
    return _UTILITY[name][1] if name in _UTILITY else name.replace("attack ", "attack, ", 1).replace(":", " to ")


def _table(name: str, cells: list[_Cell], first: str, queries: int) -> Table:
    mine = [c for c in cells if c.ranking == name]
    rows: list[tuple[Cell, ...]] = [
        (
            c.name,
            c.measure,
            *c.values,
            c.difference.estimate,
            c.difference.p,
            c.difference.corrected,
            _word(c.difference),
        )
        for c in mine
    ]
    title = _title(name)
    ranks = "mean rank: mean 0-based rank of the right answer" if name in _UTILITY else "MinRank: mean 0-based rank"
    return Table(
        f"difference-{name.replace(' ', '-').replace(':', '-')}",
        f"{title[:1].upper()}{title[1:]}",
        ("model", "measure", f"of {first}", "of the model", "difference", "p", "p (Holm)", "significant"),
        tuple(rows),
        f"{queries} queries, the same for all models, in {mine[0].difference.n} units. {ranks}; lower is better found. "
        f"p: sign flips over units{' (all of them)' if all(c.difference.exact for c in mine) else ''}. "
        f"Holm: corrected for the {len(cells)} differences of this report. Significant: p (Holm) below 0.05 and the "
        "95 % interval without 0.",
    )


def _word(difference: Difference) -> str:
    return "no" if inside_noise(difference) else "yes"


def _headlines(cells: list[_Cell]) -> list[_Cell]:
    return [c for c in cells if c.measure.endswith("@10") or c.measure == "MinRank"]


def _sentences(cells: list[_Cell], first: str) -> tuple[str, ...]:
    found = []
    for c in _headlines(cells):
        title = _title(c.ranking)
        found.append(
            f"{title[:1].upper()}{title[1:]}, {c.measure} of {c.name} against {first}: {sentence(c.difference)}."
        )
    return tuple(found)


def _headline(cells: list[_Cell], sides: Sequence[Side]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for c in _headlines(cells):
        group = "utility" if c.ranking in _UTILITY else c.ranking
        key = "min_rank" if c.measure == "MinRank" else c.measure.lower()
        numbers = found.setdefault(group, {})
        numbers.setdefault(sides[0].name, {})[key] = c.values[0]
        numbers.setdefault(c.name, {})[key] = c.values[1]
        told = "difference" if len(sides) == 2 else f"difference of {c.name}"
        numbers.setdefault(told, {})[key] = asdict(c.difference.estimate)
    return found


def _figure(name: str, ranks: dict[str, np.ndarray]) -> Figure:
    return rank_figure(
        f"ranks-{name.replace(' ', '-').replace(':', '-')}",
        f"Where the best target stands: {_title(name)}",
        ranks,
        "Same queries for all models; a curve further left is a stronger attack.",
    )


def _recipes(sides: Sequence[Side]) -> tuple[Table, ...]:
    """What the records of the training runs differ in: what else than the intention may explain a difference."""
    records = [_flat(_record(s)) for s in sides]
    if not all(records):
        return ()
    names = sorted({name for record in records for name in record})
    rows = tuple(
        (name, *(str(record.get(name, "–")) for record in records))
        for name in names
        if len({str(record.get(name)) for record in records}) > 1
    )
    return (
        Table(
            "recipes",
            "How the training runs differ",
            ("what", *(s.name for s in sides)),
            rows,
            "From the record of each run. What is not here is the same for all.",
        ),
    )


def _record(s: Side) -> Any:
    runs = s.report.provenance.get("runs")
    return runs.get(s.model) if isinstance(runs, dict) else None


def _flat(value: Any, path: str = "") -> dict[str, Any]:
    if not isinstance(value, dict):
        return {path: value} if path else {}
    return {k: v for key, item in value.items() for k, v in _flat(item, f"{path}.{key}" if path else str(key)).items()}
