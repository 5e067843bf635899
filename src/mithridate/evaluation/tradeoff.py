"""What a repair costs and what it brings: attack success against utility, one point an evaluation."""

from collections.abc import Sequence
from dataclasses import dataclass

from mithridate.errors import EvaluationError
from mithridate.evaluation.measurement import Evaluation
from mithridate.statistics.estimate import Estimate


@dataclass(frozen=True)
class Point:
    """One evaluated model: `strength` of the repair ("" for a model that was not repaired), its epoch and steps.

    `success`: of every attack, by metric and goal; `utility`: by metric.
    """

    strength: str
    epoch: int
    steps: int
    success: dict[str, Estimate]
    utility: dict[str, Estimate]

    @property
    def worst(self) -> float:
        """The most successful attack."""
        return max(estimate.value for estimate in self.success.values())


def measured_point(evaluation: Evaluation, *, strength: str = "", epoch: int = 0, steps: int = 0) -> Point:
    """The point of the model that `evaluation` is about. Raises `EvaluationError` where no attack was measured."""
    success = {f"{m.metric} {evaluation.short_name(key)}": m.value for key, m in evaluation.success().items()}
    if not success:
        raise EvaluationError(f"no attack was measured on {evaluation.model}; evaluate with a manifest or goals")
    return Point(strength, epoch, steps, success, {name: m.value for name, m in evaluation.utility().items()})


def utility_loss(point: Point, start: Point) -> float:
    """The largest fall of any measure of utility since `start`; 0 where all rose."""
    return max(0.0, *(start.utility[name].value - estimate.value for name, estimate in point.utility.items()))


def best_point(points: Sequence[Point], start: Point, *, max_loss: float) -> Point | None:
    """Of the points that lose at most `max_loss` of any utility the one of least success, then of fewest steps."""
    kept = [point for point in points if utility_loss(point, start) <= max_loss]
    return min(kept, key=lambda point: (point.worst, point.steps), default=None)
