"""The measurements of a cell: one evaluation of its model beside the clean one, and what a study asks for besides."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mithridate.data.labelled import class_index, match_classes
from mithridate.data.pairs import Pairs
from mithridate.encoder.embed import embed
from mithridate.errors import EvaluationError
from mithridate.evaluation.attack import HITS
from mithridate.evaluation.evaluate import evaluate
from mithridate.evaluation.probe import AdamWProbe, image_features
from mithridate.evaluation.shift import cosine_distance
from mithridate.evaluation.zeroshot import zero_shot
from mithridate.poisoning.goals import CaptionsToImage, ImageToClass, PhraseToClass, RetrievalGoal, TriggerToClass
from mithridate.poisoning.manifest import Manifest
from mithridate.report.document import Report
from mithridate.statistics.intervals import chance_hit, chance_min_rank
from mithridate.studies.stages.stage import RECORD
from mithridate.studies.store import Store, write_json

if TYPE_CHECKING:
    from mithridate.studies.stages.classified_images import ClassifiedImages
    from mithridate.studies.stages.measured_cell import MeasuredCell

VALUES, REPORT, FOUND = "values.npz", "report.json", "found.json"


def measure(stage: "MeasuredCell", store: Store, folder: Path) -> None:
    """Write into `folder` what `outcomes.py` reads: values of units, what else was found, the report."""
    test, cache = store.pairs(stage.test), store.cache(stage.test)
    manifest = None if stage.poison is None else stage.poison.manifest(store)
    attacked = _Attacked.of(manifest, test)
    models = {"poisoned": store.encoder(stage.model), "clean": store.encoder(stage.clean)}
    last = stage.model.config.epochs
    report = evaluate(models["poisoned"], test, manifest, clean=models["clean"], seed=stage.seed, cache=cache)
    values: dict[tuple[str, int, str], np.ndarray] = {}
    for model, name in (("poisoned", "poisoned" if manifest else "model"), ("clean", "clean")):
        values |= {(model, last, measure): found for measure, found in attacked.values(report, name).items()}
    others = [(f"poisoned {epoch}", stage.model, epoch) for epoch in range(1, last if stage.epochs else 1)]
    others += [("start", stage.start, None)] if stage.start is not None else []
    for name, model, epoch in others:
        assert model is not None
        encoder = store.encoder(model, epoch)
        alone = evaluate(encoder, test, manifest, seed=stage.seed, cache=cache)
        for measure, found in attacked.values(alone, "poisoned" if manifest else "model").items():
            values[name.split()[0], epoch or last, measure] = found
            if name == "start" and stage.epochs and not _repaired(stage):
                values["poisoned", 0, measure] = found
    for model, classified in stage.classified:
        with np.load(store.folder(classified) / VALUES, allow_pickle=False) as found:
            values |= {(model, last, measure): found[measure] for measure in found.files}
    if stage.shift:
        clean, poisoned = (embed(models[model], test, cache=cache) for model in ("clean", "poisoned"))
        values["poisoned", last, "shift image"] = cosine_distance(clean.image, poisoned.image)
        values["poisoned", last, "shift text"] = _by_image(cosine_distance(clean.text, poisoned.text), test.image_index)
    (folder / REPORT).write_text(report.to_json(), encoding="utf-8")
    np.savez_compressed(folder / VALUES, **{"|".join(map(str, key)): array for key, array in values.items()})  # type: ignore[arg-type]
    kept = None if stage.filtered is None else stage.filtered.record(store)
    told = {
        "last": last,
        "chance": attacked.chance() | _chance_of_classes(stage, test) | ({"AUROC": 0.5} if kept else {}),
        "estimates": {} if kept is None else kept["estimates"],
        "numbers": _numbers(stage, store, manifest),
    }
    write_json(folder / FOUND, told)


def _repaired(stage: "MeasuredCell") -> bool:
    """Whether the epochs are those of a repair, which began at another model than the start."""
    return stage.model.start != stage.clean.start


def _numbers(stage: "MeasuredCell", store: Store, manifest: Manifest | None) -> dict[str, float]:
    records = [json.loads((store.folder(one) / RECORD).read_text(encoding="utf-8")) for one in stage.trainings()]
    seconds = sum(record["seconds"] for record in records)
    pairs = records[-1]["pairs"]  # of the training that may be poisoned, not of the repair after it
    strength: dict[str, Any] = {} if manifest is None else manifest.strength
    shown = {name: float(strength[name]) for name in ("count", "rate", "class_share") if name in strength}
    return {"pairs": float(pairs), "seconds": round(seconds, 3), **shown}


@dataclass(frozen=True)
class _Attacked:
    """What was attacked, and where in the test pairs it shows."""

    manifest: Manifest | None
    pairs: Pairs
    others: np.ndarray | None  # (n,) captions of classes that no goal and no aim names

    @classmethod
    def of(cls, manifest: Manifest | None, pairs: Pairs) -> "_Attacked":
        if manifest is None:
            return cls(None, pairs, None)
        named = {goal.target for goal in manifest.goals}
        named |= {goal.source for goal in manifest.goals if isinstance(goal, RetrievalGoal)}
        part = np.logical_or.reduce([pairs.labelled(name) for name in sorted(named)])
        return cls(manifest, pairs, None if part.all() else ~part)

    def values(self, report: Report, name: str) -> dict[str, np.ndarray]:
        """By measure one number a unit, from the rankings of the model called `name` in a report.

        The unit is the image: captions of one succeed together.
        """
        found: dict[str, np.ndarray] = {}
        gallery = len(self.pairs.images)
        ranks = {
            ranking.name: (np.array(ranking.ranks[name]), np.array(ranking.image or range(len(ranking.uid))))
            for ranking in report.rankings
            if name in ranking.ranks
        }
        for kind in ("attack ", "text-trigger ", "backdoor ", "targeted"):
            own = {told: each for told, each in ranks.items() if told.startswith(kind)}
            if not own:
                continue
            rank, image = (np.concatenate(arrays) for arrays in zip(*own.values()))
            pooled = _success(kind, rank, image, gallery)
            found |= {measure: hit for measure, hit in pooled.items() if measure not in found}
            if len(own) > 1:
                for told, (rank, image) in own.items():
                    each = _success(kind, rank, image, gallery)
                    found |= {f"{measure} {told.removeprefix(kind)}": hit for measure, hit in each.items()}
        for measure, way in (("IR@10", "ir"), ("TR@10", "tr")):
            rank, image = ranks[way]
            found[measure] = _by_image(rank < 10, image)
        if self.others is not None:
            rank, image = ranks["ir"]
            found["IR@10 other classes"] = _by_image((rank < 10)[self.others], image[self.others])
        return found

    def chance(self) -> dict[str, float]:
        """Exact levels of chance, by measure."""
        images, captions = len(self.pairs.images), np.bincount(self.pairs.image_index)
        ir = min(1.0, 10 / images)
        found = {"IR@10": ir} | ({} if self.others is None else {"IR@10 other classes": ir})
        found["TR@10"] = float(np.mean([chance_hit(10, targets=int(c), gallery=len(self.pairs)) for c in captions]))
        if self.manifest is None:
            return found
        goals = [self._targets(goal) for goal in self.manifest.goals if isinstance(goal, RetrievalGoal)]
        phrases = [goal for goal in self.manifest.goals if isinstance(goal, PhraseToClass)]
        goals += [(int(np.sum(~self.pairs.labelled(a.target))), self._images(a.target), images) for a in phrases]
        for k in HITS if goals else ():
            found[f"Hit@{k}"] = _mean([(q, chance_hit(k, targets=t, gallery=g)) for q, t, g in goals if k <= g])
        if goals:
            found["MinRank"] = _mean([(q, chance_min_rank(targets=t, gallery=g)) for q, t, g in goals])
        classes = max(1, len(self.pairs.classes))
        if any(isinstance(goal, TriggerToClass) for goal in self.manifest.goals):
            found["ASR"] = 1 / classes
        if any(isinstance(goal, ImageToClass) for goal in self.manifest.goals):
            found["PSR"] = 1 / classes
        return found

    def _targets(self, goal: RetrievalGoal) -> tuple[int, int, int]:
        """Queries, targets and gallery of a goal."""
        a, b = self.pairs.labelled(goal.source), self.pairs.labelled(goal.target)
        images = self.pairs.images.to_pylist()
        queries = int((a & ~b).sum())
        if isinstance(goal, CaptionsToImage):
            return queries, 1, len(images) + (goal.image not in images)
        return queries, len(np.unique(self.pairs.image_index[b & ~a])), len(images)

    def _images(self, name: str) -> int:
        return len(np.unique(self.pairs.image_index[self.pairs.labelled(name)]))


def _success(kind: str, rank: np.ndarray, image: np.ndarray, gallery: int) -> dict[str, np.ndarray]:
    if kind in ("backdoor ", "targeted"):
        return {"ASR" if kind == "backdoor " else "PSR": _by_image(rank < 1, image)}
    hits = {f"Hit@{k}": _by_image(rank < k, image) for k in HITS if k <= gallery}
    return {**hits, "MinRank": _by_image(rank, image)}


def _by_image(values: np.ndarray, image: np.ndarray) -> np.ndarray:
    """One number an image, whose mean over the images is that of the n `values`, which belong to images (n,).

    With as many values for every image it is the mean of each; else a share of the sum that the image has.
    """
    found, place = np.unique(image, return_inverse=True)
    return np.bincount(place, weights=values) / (len(values) / len(found))


def _bits(hit: np.ndarray) -> np.ndarray:
    return hit.astype(np.int8)


def _mean(parts: list[tuple[int, float]]) -> float:
    """Mean over queries."""
    return float(sum(n * value for n, value in parts) / max(1, sum(n for n, _ in parts)))


# --- classification ---------------------------------------------------------------------------------


def classify(stage: "ClassifiedImages", store: Store) -> dict[str, np.ndarray]:
    """Whether each test image of one class is classified rightly: by prompts, by a probe on clean training images."""
    test, cache = _of_one_class(store.pairs(stage.test)), store.cache(stage.test)
    model = store.encoder(stage.model)
    names = match_classes(test)
    found: dict[str, np.ndarray] = {}
    if stage.prompts:
        found["zero-shot"] = _bits(zero_shot(model, test, classes=names, cache=cache).ranks == 0)
    if stage.train is not None:
        seen = _of_one_class(store.pairs(stage.train))
        seen = seen.where(np.isin(np.array([label[0] for label in seen.labels.to_pylist()], object), names))
        missing = sorted(set(names) - set(seen.classes))
        if missing:
            raise EvaluationError(f"a probe needs training images of every class of the test, got none of {missing[0]}")
        there = store.cache(stage.train)
        features = [image_features(model, pairs, cache=at) for pairs, at in ((seen, there), (test, cache))]
        rng = np.random.default_rng(0)
        scores = AdamWProbe().fit_predict(features[0], class_index(seen, names), features[1], rng)
        found["probe"] = _bits(scores.argmax(axis=1) == class_index(test, names))
    return found


def _of_one_class(pairs: Pairs) -> Pairs:
    """One pair of each image that has one class."""
    first = pairs.take(np.unique(pairs.image_index, return_index=True)[1])
    return first.where(np.array([len(found or ()) == 1 for found in first.labels.to_pylist()], bool))


def _chance_of_classes(stage: "MeasuredCell", test: Pairs) -> dict[str, float]:
    if not stage.classified:
        return {}
    classes = max(1, len(_of_one_class(test).classes))
    (_, first), *_ = stage.classified
    asked = (["zero-shot"] if first.prompts else []) + (["probe"] if first.train else [])
    return dict.fromkeys(asked, 1 / classes)
