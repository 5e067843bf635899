"""Success and utility after every epoch of a training run."""

from mithridate.evaluation.measurement import Evaluation, Measurement
from mithridate.report.document import Curve, Figure, Table


def by_epoch(e: Evaluation) -> tuple[Table, Figure] | None:
    """A column, and a curve, for each measure; None where no epochs were measured."""
    kept = [m for m in e.measurements if m.epoch is not None]
    if not kept:
        return None
    epochs = sorted({m.epoch for m in kept if m.epoch is not None})
    found = {(_name(e, m), m.epoch): m.value for m in kept}
    measures = list(dict.fromkeys(name for name, _ in found))
    x, curves = tuple(map(float, epochs)), []
    for name in measures:
        each = [found[name, epoch] for epoch in epochs]
        lows, highs = [v.low for v in each if v.low is not None], [v.high for v in each if v.high is not None]
        ends = (tuple(lows), tuple(highs)) if len(lows) == len(highs) == len(each) else ((), ())
        curves.append(Curve(name, x, tuple(v.value for v in each), low=ends[0], high=ends[1]))
    rows = tuple((epoch, *(found[name, epoch] for name in measures)) for epoch in epochs)
    title, note = "After each epoch", "Epochs counted from 1, as kept by the training run. 95 % intervals."
    return (
        Table("by-epoch", title, ("epoch", *measures), rows, note),
        Figure("by-epoch", title, "line", "epoch", "share", tuple(curves), note),
    )


def _name(e: Evaluation, m: Measurement) -> str:
    return f"{m.metric} {e.short_name(m.goal)}".strip()
