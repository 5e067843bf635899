"""What a study file wants shown as tables: one row a combination of labels, one column a measure, published beside."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from mithridate.report.document import Cell, Published, Table
from mithridate.report.numbers import show
from mithridate.statistics.estimate import Estimate
from mithridate.studies.analysis.contrast import side_of_numbers
from mithridate.studies.analysis.outcomes import Outcome
from mithridate.studies.analysis.published import PublishedNumber, PublishedSet, beside, read_published, sources
from mithridate.studies.analysis.select import VIEWS, Group, chance, chosen, combine, epochs, grouped, models
from mithridate.studies.analysis.slopes import of_axis, slopes
from mithridate.studies.spec.study import Label, ShowSlopes, ShowTable, Where

CHANCE = "chance"


@dataclass(frozen=True)
class _Row:
    """The labels of a row, and the outcomes that it is made of."""

    labels: Mapping[str, Label]
    outcomes: Group

    @property
    def model(self) -> str:
        return str(self.labels.get("model", "poisoned"))

    @property
    def epoch(self) -> int | None:
        epoch = self.labels.get("epoch")
        return int(epoch) if epoch is not None else None


def study_table(shown: ShowTable, outcomes: Sequence[Outcome], *, name: str) -> Table:
    """The table with its numbers: means over seeds with their intervals, chance, published numbers."""
    cells = chosen(outcomes, shown.where)
    by_model = "model" in shown.rows
    rows = _rows(shown, cells)
    if by_model and "model" not in shown.where:
        rows = _with_chance(shown, rows)
    asked = [""] if by_model else models(cells, shown.measures, shown.where) or ["poisoned"]
    columns: list[str] = list(shown.rows)
    bodies: list[list[Cell]] = [[row.labels.get(axis, "all") for axis in shown.rows] for row in rows]
    published = read_published(shown.published) if shown.published else None
    used: list[PublishedNumber] = []
    for measure in shown.measures:
        for model in asked:
            ours = [_estimate(row, measure, model or row.model) for row in rows]
            if model not in ("", asked[0]) and not any(ours):
                continue  # what belongs to the cell is not the clean model's
            column = measure if model in ("", "poisoned") else f"{measure}, {model}"
            columns.append(column)
            for body, row, estimate in zip(bodies, rows, ours):
                body.append(_cell(row, measure, estimate))
            for dataset, cells_beside, found in _beside(published, rows, ours, measure, model):
                columns.append(f"{column} published, {dataset}")
                for body, cell in zip(bodies, cells_beside):
                    body.append(cell)
                used += found
    kept = [body for body in bodies if any(cell is not None for cell in body[len(shown.rows) :])]
    note = " ".join(filter(None, (_note(shown, cells, rows), _published_note(published, used))))
    return Table(name, shown.title or _title(shown), tuple(columns), tuple(map(tuple, kept)), note)


def slopes_table(shown: ShowSlopes, outcomes: Sequence[Outcome], *, name: str) -> Table:
    """The mean over seeds of each slope, with Student's interval."""
    found = slopes(chosen(outcomes, shown.where), shown.measure, shown.regress)
    rows = [(f"log {axis}", side_of_numbers(of_axis(found, i)).estimate) for i, axis in enumerate(shown.regress)]
    title = shown.title or f"Slopes of the logit of {shown.measure}"
    kept = tuple((axis, estimate) for axis, estimate in rows if estimate is not None)
    note = f"One logistic regression a seed, {len(found)} seeds; 95 % intervals over them (Student's t)."
    return Table(name, title, ("along", "slope"), kept, note if kept else "")


def _rows(shown: ShowTable, cells: Sequence[Outcome]) -> list[_Row]:
    axes = [axis for axis in shown.rows if axis not in VIEWS]
    found = []
    for labels, group in grouped(cells, axes).items():
        named = dict(zip(axes, labels))
        names = models(group, shown.measures, shown.where) if "model" in shown.rows else ["poisoned"]
        for model in names or ["poisoned"]:
            views: dict[str, Label] = {"model": model} if "model" in shown.rows else {}
            if "epoch" not in shown.rows:
                found.append(_Row({**named, **views, **_epoch(shown.where)}, group))
                continue
            known = {e for measure in shown.measures for e in epochs(group, measure, model, shown.where)}
            found += [_Row({**named, **views, "epoch": epoch}, group) for epoch in sorted(known)]
    # by the labels in the order of the rows' axes, model and epoch where the file puts them
    order = {axis: list(dict.fromkeys(row.labels[axis] for row in found)) for axis in shown.rows}
    order["epoch"] = sorted(order.get("epoch", []), key=float)
    return sorted(found, key=lambda row: [order[axis].index(row.labels[axis]) for axis in shown.rows])


def _epoch(where: Where) -> dict[str, Label]:
    """An epoch that `where` names by its number alone."""
    epoch = where.get("epoch")
    return {"epoch": epoch} if isinstance(epoch, int) and not isinstance(epoch, bool) else {}


def _with_chance(shown: ShowTable, rows: list[_Row]) -> list[_Row]:
    """One row of chance where it is the same for all; else one for each combination of labels."""
    levels = {tuple(chance(row.outcomes, measure) for measure in shown.measures) for row in rows}
    if levels == {(None,) * len(shown.measures)} or not rows:
        return rows
    if len(levels) == 1:
        return [*rows, _Row({"model": CHANCE}, rows[0].outcomes)]
    found: list[_Row] = []
    for i, row in enumerate(rows):
        found.append(row)
        following = rows[i + 1] if i + 1 < len(rows) else None
        if following is None or following.outcomes is not row.outcomes:
            found.append(_Row({**row.labels, "model": CHANCE}, row.outcomes))
    return found


def _estimate(row: _Row, measure: str, model: str) -> Estimate | None:
    if model == CHANCE:
        level = chance(row.outcomes, measure)
        return None if level is None else Estimate(level)
    return combine(row.outcomes, measure, model, row.epoch)


def _cell(row: _Row, measure: str, estimate: Estimate | None) -> Cell:
    """An estimate; a number of the cell without an interval as a plain one, whole where it is a count."""
    if estimate is None or estimate.low is not None:
        return estimate
    counted = any(measure in outcome.numbers for outcome in row.outcomes)
    return int(estimate.value) if counted and estimate.value.is_integer() and measure != "rate" else estimate.value


def _beside(
    published: PublishedSet | None,
    rows: Sequence[_Row],
    ours: Sequence[Estimate | None],
    measure: str,
    model: str,
) -> list[tuple[str, list[Published | None], list[PublishedNumber]]]:
    """For each data set with a number for one of the rows: its name, the cells, the numbers used."""
    if published is None:
        return []
    columns = []
    for dataset in published.datasets:
        numbers = [published.find(row.labels, measure, model or row.model, dataset) for row in rows]
        found = [number for number in numbers if number is not None]
        if found:
            cells = [beside(number, estimate) for number, estimate in zip(numbers, ours)]
            columns.append((dataset, cells, found))
    return columns


def _title(shown: ShowTable) -> str:
    return f"{', '.join(shown.measures)} by {', '.join(shown.rows)}" if shown.rows else ", ".join(shown.measures)


def _note(shown: ShowTable, cells: Sequence[Outcome], rows: Sequence[_Row]) -> str:
    """What the numbers are over."""
    if not cells:
        return "No cell was measured."
    parts = [over(cells)]
    open_axes = pooled(cells, (*shown.rows, *shown.where))
    if open_axes:
        parts.append(f"Every number takes all of {', '.join(open_axes)} together.")
    if "model" not in shown.rows:
        levels = {m: {chance(row.outcomes, m) for row in rows} for m in shown.measures}
        levels = [
            f"{m} {show(level).value}" for m, found in levels.items() if len(found) == 1 for level in found if level
        ]
        if levels:
            parts.append(f"Chance: {', '.join(levels)}.")
    return " ".join(parts)


def over(cells: Sequence[Outcome]) -> str:
    """How many seeds, and what the intervals are over."""
    seeds = {outcome.cell.seed for outcome in cells}
    if len(seeds) == 1:
        return "One seed; 95 % intervals over the test units."
    same = all(outcome.same_units for outcome in cells)
    return f"Means over {len(seeds)} seeds; 95 % intervals over seeds{' and test units' if same else ''}."


def pooled(cells: Sequence[Outcome], said: Sequence[str]) -> list[str]:
    """Axes of these cells that differ between them and that nothing tells apart."""
    labels: dict[str, set[Label]] = {}
    for outcome in cells:
        for axis, label in outcome.cell.axes:
            labels.setdefault(axis, set()).add(label)
    return [axis for axis, found in labels.items() if len(found) > 1 and axis not in said]


def _published_note(published: PublishedSet | None, used: Sequence[PublishedNumber]) -> str:
    if published is None:
        return ""
    if not any(number.value is not None for number in used):
        return f"{published.paper}: no number for these rows."
    about = " Some are read off prose that says about." if any(number.about for number in used) else ""
    return (
        f"Published: {published.paper} ({published.version}), {sources(used)}. Below each: how much higher or lower "
        f"ours is, and whether the published number lies inside our interval; –: not published.{about} {published.note}"
    ).strip()
