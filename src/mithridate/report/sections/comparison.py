"""A comparison of evaluations as a report: a table a task, sentences, what the training runs differ in."""

from typing import Any

from mithridate.evaluation.compare import UTILITY, ComparedMetric, ComparedTask, Comparison, Side
from mithridate.evaluation.measurement import Evaluation
from mithridate.metrics import names
from mithridate.report.document import Cell, Figure, Headline, Report, Table
from mithridate.report.sections.curves import rank_figure
from mithridate.report.sections.differences import sentence
from mithridate.report.sections.warnings import worded
from mithridate.statistics.differences import inside_noise

_TITLES = {
    names.ATTACK: "Attack",
    names.TEXT_TRIGGER: "Captions with the phrase",
    names.BACKDOOR: "Backdoor",
    names.TARGETED: "Targeted",
    names.CAPTIONS: "Captions retrieved",
    names.PROBE: "Linear probe",
    names.ZERO_SHOT: "Zero-shot classification",
    names.PROBE_ACCURACY: "Classification by a linear probe",
    names.TEXT_RETRIEVAL: "Utility, image to text",
    names.IMAGE_RETRIEVAL: "Utility, text to image",
}


def comparison_report(c: Comparison) -> Report:
    """Everything that was compared, for people."""
    first = c.sides[0]
    left_out = tuple(
        f"{_title(first.evaluation, *key)} is not compared: {', '.join(without)} did not measure it."
        for key, without in c.left_out.items()
    )
    return Report(
        title=f"{' and '.join(s.name for s in c.sides[1:])} against {first.name}",
        summary=(*(_sentence(c, m) for m in _decisive(c)), *left_out),
        tables=(*(_table(c, task) for task in c.tasks), *_recipes(c)),
        figures=tuple(_figure(first.evaluation, task) for task in c.tasks if task.task not in UTILITY),
        warnings=worded(c.warnings),
        headlines=_headlines(c),
        provenance={
            "compared": {s.name: {"model": s.model, "provenance": s.evaluation.provenance} for s in c.sides},
            "test data": {"fingerprint": c.fingerprint},
            **c.provenance,
        },
    )


def _title(e: Evaluation, task: str, goal: str) -> str:
    return f"{_TITLES.get(task, task)}{f', {e.goal_name(goal)}' if goal else ''}"


def _slug(e: Evaluation, task: ComparedTask) -> str:
    return "-".join([task.task, *e.short_name(task.goal).replace(":", " ").split()])


def _table(c: Comparison, task: ComparedTask) -> Table:
    first = c.sides[0]
    mine = [m for m in c.metrics if (m.task, m.goal) == (task.task, task.goal)]
    rows: list[tuple[Cell, ...]] = [
        (
            m.name,
            m.metric,
            m.before,
            m.after,
            m.difference.estimate,
            m.difference.p,
            m.difference.corrected,
            "no" if inside_noise(m.difference) else "yes",
        )
        for m in mine
    ]
    ranks = "mean rank: mean 0-based rank of the right answer" if task.task in UTILITY else "MinRank: mean 0-based rank"
    return Table(
        f"difference-{_slug(first.evaluation, task)}",
        _title(first.evaluation, task.task, task.goal),
        ("model", "measure", f"of {first.name}", "of the model", "difference", "p", "p (Holm)", "significant"),
        tuple(rows),
        f"{task.queries} queries, the same for all models, in {mine[0].difference.n} units. {ranks}; lower is better "
        f"found. p: sign flips over units{' (all of them)' if all(m.difference.exact for m in mine) else ''}. "
        f"Holm: corrected for the {len(c.metrics)} differences of this report. Significant: p (Holm) below 0.05 and "
        "the 95 % interval without 0.",
    )


def _decisive(c: Comparison) -> list[ComparedMetric]:
    wanted = {names.MIN_RANK, *(metric(10) for metric in (names.hit, *UTILITY.values()))}
    return [m for m in c.metrics if m.metric in wanted]


def _sentence(c: Comparison, m: ComparedMetric) -> str:
    first = c.sides[0]
    title = _title(first.evaluation, m.task, m.goal)
    return f"{title}, {m.metric} of {m.name} against {first.name}: {sentence(m.difference)}."


def _headlines(c: Comparison) -> tuple[Headline, ...]:
    found: dict[tuple[str, str], dict[str, Cell]] = {}
    first = c.sides[0]
    for m in _decisive(c):
        group = "utility" if m.task in UTILITY else f"{m.task} {first.evaluation.short_name(m.goal)}".strip()
        measure = "min rank" if m.metric == names.MIN_RANK else m.metric.lower()
        difference = "difference" if len(c.sides) == 2 else f"difference of {m.name}"
        values = found.setdefault((group, measure), {first.name: m.before})
        values |= {m.name: m.after, difference: m.difference.estimate}
    return tuple(Headline(group, measure, values) for (group, measure), values in found.items())


def _figure(e: Evaluation, task: ComparedTask) -> Figure:
    return rank_figure(
        f"ranks-{_slug(e, task)}",
        f"Where the best target stands: {_title(e, task.task, task.goal)}",
        task.ranks,
        "Same queries for all models; a curve further left is a stronger attack.",
    )


def _recipes(c: Comparison) -> tuple[Table, ...]:
    """What the records of the training runs differ in: what else than the intention may explain a difference."""
    records = [_record(s) for s in c.sides]
    if not all(records):
        return ()
    keys = sorted({key for record in records for key in record})
    rows = tuple(
        (key, *(str(record.get(key, "–")) for record in records))
        for key in keys
        if len({str(record.get(key)) for record in records}) > 1
    )
    return (
        Table(
            "recipes",
            "How the training runs differ",
            ("what", *(s.name for s in c.sides)),
            rows,
            "From the record of each run. What is not here is the same for all.",
        ),
    )


def _record(s: Side) -> dict[str, Any]:
    return _flat(s.evaluation.runs.get(s.model))


def _flat(value: Any, path: str = "") -> dict[str, Any]:
    if not isinstance(value, dict):
        return {path: value} if path else {}
    return {k: v for key, item in value.items() for k, v in _flat(item, f"{path}.{key}" if path else str(key)).items()}
