"""A repair curve as stages of a study: one training a strength, one evaluation an epoch, in one store."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from mithridate.data.pairs import Pairs
from mithridate.engine.calls import Engine
from mithridate.errors import StudyError
from mithridate.evaluation.measurement import Evaluation
from mithridate.evaluation.tradeoff import Point, measured_point
from mithridate.studies.execute import FAILED, Execution, failure
from mithridate.studies.graph import Graph
from mithridate.studies.spec.data import DataSpec
from mithridate.studies.stages.clean_pairs import CleanPairs
from mithridate.studies.stages.evaluated_model import EvaluatedModel, GivenManifest
from mithridate.studies.stages.initial_model import InitialModel
from mithridate.studies.stages.trained_model import TrainedModel
from mithridate.studies.store import OnStep, Progress, Store, silent
from mithridate.training.config import TrainConfig
from mithridate.training.run import METRICS

START, CLEAN = "start", "clean"
"""What the evaluations of the model before any repair, and of the clean one, are called."""


@dataclass(frozen=True, kw_only=True)
class RepairCurveStudy:
    """`start` repaired on clean `pairs` by each of `recipes` (objective and configuration, by strength).

    `clean`: the same model trained without poison, for its level. Everything lies in `out`; killed and started again
    it goes on.
    """

    out: Path
    varied: str
    recipes: Mapping[str, tuple[Any, TrainConfig]]
    start: InitialModel
    pairs: Pairs
    test: Pairs
    manifest: GivenManifest
    clean: InitialModel | None = None
    seed: int = 0

    @cached_property
    def trainings(self) -> dict[str, TrainedModel]:
        """The trainings by strength."""
        pairs = _given("train", self.pairs)
        return {
            strength: TrainedModel(self.start, pairs, objective, config)
            for strength, (objective, config) in self.recipes.items()
        }

    @cached_property
    def evaluations(self) -> dict[str, EvaluatedModel]:
        """The evaluations by name: `start`, every epoch of every strength, `clean`."""
        test = _given("test", self.test)

        def of(name: str, model: InitialModel | TrainedModel, epoch: int | None = None) -> EvaluatedModel:
            return EvaluatedModel(name, model, test, self.manifest, self.seed, epoch)

        found = {START: of(START, self.start)}
        for strength, model in self.trainings.items():
            for epoch in range(1, model.config.epochs + 1):
                name = self._name(strength, epoch)
                found[name] = of(name, model, epoch)
        return found if self.clean is None else {**found, CLEAN: of(CLEAN, self.clean)}

    def run(
        self,
        *,
        cache: Path | str | None = None,
        cache_limit: int | None = None,
        progress: Progress = silent,
        on_training: Callable[[str], OnStep] | None = None,
    ) -> dict[str, Evaluation]:
        """Train and evaluate what is not done yet; gives back the evaluations by name.

        `runs/` holds a link to every training. Raises `StudyError` where a stage fails.
        """
        graph = Graph.of_stages(((stage, None) for stage in self.evaluations.values()), self.out)
        strengths = {model: strength for strength, model in self.trainings.items()}
        store = Store(
            self.out,
            frozenset(graph.epochs),
            keys=graph.keys,
            cache=cache,
            cache_limit=cache_limit,
            progress=progress,
            on_training=None if on_training is None else lambda model: on_training(strengths[model]),
        )
        for part, pairs in (("train", self.pairs), ("test", self.test)):  # they were read already
            store.remember(_given(part, pairs), lambda _, pairs=pairs: pairs)
        for path in (self.out / FAILED).glob("*.json"):  # tried again
            path.unlink(missing_ok=True)
        Execution(graph, store, list(graph.cells), tell=lambda *_: None, keep_models=True).run(Engine())
        for stage in (*self.trainings.values(), *self.evaluations.values()):
            if (reason := failure(self.out, graph.keys.of(stage))) is not None:
                raise StudyError(reason["error"])
        for strength, model in self.trainings.items():
            store.link(f"runs/{self.varied}-{strength}", model)
        return {name: stage.read(store) for name, stage in self.evaluations.items()}

    def points(self, evaluations: Mapping[str, Evaluation]) -> list[Point]:
        """A point for every epoch of every strength, in order."""
        store, found = Store(self.out), []
        for strength, model in self.trainings.items():
            lines = (store.folder(model) / METRICS).read_text(encoding="utf-8").splitlines()
            steps = len(lines) // model.config.epochs
            for epoch in range(1, model.config.epochs + 1):
                evaluation = evaluations[self._name(strength, epoch)]
                found.append(measured_point(evaluation, strength=strength, epoch=epoch, steps=epoch * steps))
        return found

    def _name(self, strength: str, epoch: int) -> str:
        return f"{self.varied}-{strength}-{epoch:03d}"


def _given(part: str, pairs: Pairs) -> CleanPairs:
    """Pairs that were read already, known by what they are."""
    return CleanPairs(part, data=DataSpec(), fingerprint=pairs.fingerprint)
