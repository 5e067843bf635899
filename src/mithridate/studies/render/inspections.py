"""What inspections said of planted and of clean models: verdicts, each probe by itself, and what a repair left."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from mithridate.metrics import names
from mithridate.metrics.detection import detection
from mithridate.randomness import stream
from mithridate.report.document import Cell, Curve, Figure, Table
from mithridate.statistics.estimate import Estimate
from mithridate.statistics.intervals import bootstrap_mean, rate
from mithridate.studies.analysis.outcomes import Inspected, Outcome
from mithridate.studies.analysis.select import Group, chosen, grouped
from mithridate.studies.render.figures import with_ends
from mithridate.studies.render.tables import pooled
from mithridate.studies.spec.study import ShowInspections

_SUCCESS = (names.ASR, names.hit(10), names.PSR)
_UTILITY = (names.recall_of_images(10), "zero-shot")
_UNREPAIRED: dict[str, Any] = {"repair": False, "methods": (), "verify": True, "told": False}


def inspection_tables(shown: ShowInspections, outcomes: Sequence[Outcome], *, name: str) -> list[Table]:
    """The verdicts by kind of model, each probe's AUROC by kind, and where models were repaired what is left."""
    cells, groups = _kinds(shown, outcomes)
    if not cells:
        return []
    clean = _clean(cells)
    title = shown.title or "Inspections"
    note = f"The unit is a model; 95 % intervals over models. {_pooled(shown, cells)}".strip()
    tables = {"verdicts": _verdicts(groups, clean, title, note), "probes": _probes(groups, clean, title, note)}
    if any(outcome.again is not None for outcome in cells):
        tables["repairs"] = _repairs(groups, title, note)
    return [
        Table(f"{name}-{end}", table.title, table.columns, table.rows, table.note)
        for end, table in tables.items()
        if end in shown.tables
    ]


def inspection_figures(shown: ShowInspections, outcomes: Sequence[Outcome], *, name: str) -> list[Figure]:
    """By kind of model how many are suspicious and named right, and what the attack does before and after a repair."""
    cells, groups = _kinds(shown, outcomes)
    planted = {kind: group for kind, group in groups.items() if group[0].cell.attack is not None}
    if not planted:
        return []
    title, note, found = shown.title or "Inspections", "95 % intervals over models.", []
    seen = [[o.inspections["poisoned"] for o in group] for group in planted.values()]
    if "verdicts" in shown.tables:
        clean = _clean(cells)
        kinds = [*planted, *(["clean models"] if clean else [])]
        suspicious = [*map(_suspicious, seen), *([_suspicious(clean)] if clean else [])]
        right = [_share([each.right for each in models]) for models in seen]
        curves = (_curve("suspicious", suspicious, 0), _curve("named right", right, 1))
        found.append(_figure(f"{name}-verdicts", f"{title}: verdicts", kinds, "share of models", curves, note))
    if "repairs" in shown.tables and any(outcome.again is not None for outcome in cells):
        models = ("poisoned", "repaired", "clean")
        curves = tuple(_curve(m, [_success(g, m) for g in planted.values()], i) for i, m in enumerate(models))
        heading = f"{title}: what the attack does before and after the repair, and to clean models"
        found.append(_figure(f"{name}-repairs", heading, list(planted), "success", curves, f"Means; {note}"))
    return found


def inspections_in_words(shown: ShowInspections, outcomes: Sequence[Outcome]) -> str | None:
    """What was called suspicious, and of which kinds what was planted was named, in two sentences."""
    cells, groups = _kinds(shown, outcomes)
    planted = {kind: group for kind, group in groups.items() if group[0].cell.attack is not None}
    if not planted or "verdicts" not in shown.tables:
        return None
    seen = {kind: [o.inspections["poisoned"] for o in group] for kind, group in planted.items()}
    called = [each.verdict == "suspicious" for models in seen.values() for each in models]
    clean = _clean(cells)
    beside = f" and {sum(c.verdict == 'suspicious' for c in clean)} of {len(clean)} clean ones" if clean else ""
    right = {kind: (sum(each.right for each in models), len(models)) for kind, models in seen.items()}
    parts = {
        "in all models": [kind for kind, (hits, n) in right.items() if hits == n],
        "in some": [f"{kind} ({hits} of {n})" for kind, (hits, n) in right.items() if 0 < hits < n],
        "in none": [kind for kind, (hits, _) in right.items() if not hits],
    }
    named = "; ".join(f"{where}: {', '.join(kinds)}" for where, kinds in parts.items() if kinds)
    title = shown.title or "Inspections"
    return f"{title}: {sum(called)} of {len(called)} planted models{beside} are called suspicious. Named right {named}."


def _kinds(shown: ShowInspections, outcomes: Sequence[Outcome]) -> tuple[list[Outcome], dict[str, Group]]:
    """The cells with inspections, and the same by kind of model."""
    cells = [o for o in chosen(outcomes, shown.where) if "poisoned" in o.inspections]
    return cells, {", ".join(map(str, labels)): group for labels, group in grouped(cells, shown.rows).items()}


def _curve(label: str, found: Sequence[Estimate | None], series: int) -> Curve:
    middle, low, high = zip(*map(with_ends, found))
    return Curve(label, tuple(map(float, range(len(found)))), middle, series, low=low, high=high)


def _figure(name: str, title: str, kinds: Sequence[str], y: str, curves: tuple[Curve, ...], note: str) -> Figure:
    return Figure(name, title, "line", "model", y, curves, note, ticks=tuple(kinds))


def _clean(cells: Sequence[Outcome]) -> list[Inspected]:
    """The clean models, each once: those of cells that differ in their attack or in the repair are one."""
    found: dict[object, Inspected] = {}
    for outcome in cells:
        cell = outcome.cell
        if "clean" in outcome.inspections:
            looked = None if cell.inspect is None else replace(cell.inspect, **_UNREPAIRED)
            found[cell.seed, cell.data, cell.start, cell.train, looked] = outcome.inspections["clean"]
    return list(found.values())


def _verdicts(groups: dict[str, Group], clean: Sequence[Inspected], title: str, note: str) -> Table:
    rows: list[tuple[Cell, ...]] = []
    for kind, group in groups.items():
        seen = [outcome.inspections["poisoned"] for outcome in group]
        right = _share([each.right for each in seen]) if group[0].cell.attack is not None else None
        rows.append((kind, len(seen), _success(group, "poisoned"), _suspicious(seen), right, _seconds(seen)))
    if clean:
        rows.append(("clean models", len(clean), None, _suspicious(clean), None, _seconds(clean)))
    columns = ("model", "models", "success", "suspicious", "named right", "seconds")
    words = (
        "Success: of the attack on the test pairs, mean over models. Suspicious, of clean models: false alarms over "
        "all probes together. Named right: the leading finding is flagged and names the class of the attack, its pair "
        "of classes, or a word of its phrase. Seconds of processor time, mean."
    )
    return Table("", f"{title}: verdicts", columns, tuple(rows), f"{words} {note}")


def _probes(groups: dict[str, Group], clean: Sequence[Inspected], title: str, note: str) -> Table:
    planted = {kind: [o.inspections["poisoned"] for o in g] for kind, g in groups.items() if g[0].cell.attack}
    probes = dict.fromkeys(p for seen in (*planted.values(), clean) for each in seen for p in each.strengths)
    rows = []
    for probe in probes:
        alarms = _share([probe in each.flagged for each in clean]) if clean else None
        rows.append((probe, alarms, *(_area(seen, clean, probe) for seen in planted.values())))
    columns = ("probe", "false alarms", *(f"AUROC {kind}" for kind in planted))
    words = "AUROC: of the strength less its null, models of that kind against clean ones."
    return Table("", f"{title}: probes", columns, tuple(rows), f"{words} {note}")


def _repairs(groups: dict[str, Group], title: str, note: str) -> Table:
    rows: list[tuple[Cell, ...]] = []
    for kind, group in groups.items():
        done = [outcome for outcome in group if outcome.again is not None and outcome.again.methods]
        if group[0].cell.attack is None:
            continue
        losses = [_loss(group, measure) for measure in _UTILITY]
        verified = [o.again.left for o in done if o.again is not None and o.again.left is not None]
        left = _share([verdict == "nothing found" for verdict in verified]) if verified else None
        seconds = float(np.mean([o.again.seconds for o in done if o.again is not None])) if done else None
        levels = [_median(group, model) for model in ("poisoned", "repaired", "clean")]
        rows.append(
            (kind, f"{len(done)} of {len(group)}", *levels, _success(group, "repaired"), *losses, left, seconds)
        )
    columns = (
        *("model", "repaired", "success before, median", "after, median", "on clean models, median", "after, mean"),
        *(f"loss of {measure}" for measure in _UTILITY),
        *("nothing found again", "seconds"),
    )
    words = (
        "End to end without the truth: models that were not flagged stay as they are and count in every column but the "
        "last two. Losses: before less after, mean. Seconds of processor time of the repair alone."
    )
    return Table("", f"{title}: repairs", columns, tuple(rows), f"{words} {note}")


def _share(hits: Sequence[bool]) -> Estimate:
    return rate(np.array(hits, bool))


def _suspicious(seen: Sequence[Inspected]) -> Estimate:
    return _share([each.verdict == "suspicious" for each in seen])


def _seconds(seen: Sequence[Inspected]) -> float:
    return float(np.mean([each.seconds for each in seen]))


def _area(planted: Sequence[Inspected], clean: Sequence[Inspected], probe: str) -> Estimate | None:
    """The probability that a planted model exceeds its null by more than a clean one does."""
    kept = [
        [s - null for s, null in (e.strengths[probe] for e in side if probe in e.strengths)]
        for side in (planted, clean)
    ]
    if not all(kept):
        return None
    truth = np.repeat([True, False], [len(side) for side in kept])
    return detection(np.array([*kept[0], *kept[1]]), truth).auroc


def _values(group: Group, model: str, measures: Sequence[str]) -> np.ndarray:
    """By model its mean over units of the first of `measures` that it has."""
    found = []
    for outcome in group:
        own = [outcome.values.get((model, outcome.last, measure)) for measure in measures]
        known = next((values for values in own if values is not None and len(values)), None)
        if known is not None:
            found.append(float(np.mean(known)))
    return np.array(found)


def _success(group: Group, model: str) -> Estimate | None:
    values = _values(group, model, _SUCCESS)
    return bootstrap_mean(values, rng=stream(0, f"success over models, {model}")) if len(values) else None


def _median(group: Group, model: str) -> float | None:
    values = _values(group, model, _SUCCESS)
    return float(np.median(values)) if len(values) else None


def _loss(group: Group, measure: str) -> Estimate | None:
    before, after = (_values(group, model, (measure,)) for model in ("poisoned", "repaired"))
    if not len(after) or len(before) != len(after):
        return None
    return bootstrap_mean(before - after, rng=stream(0, f"loss over models, {measure}"))


def _pooled(shown: ShowInspections, cells: Sequence[Outcome]) -> str:
    axes = [*pooled(cells, (*shown.rows, *shown.where)), *(["seed"] if len({o.cell.seed for o in cells}) > 1 else [])]
    return f"Every row takes all of {', '.join(axes)} together." if axes else ""
