"""Are single target images taken for their adversarial classes; a target image is the unit."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa

from mithridate.data.images import split_place
from mithridate.encoder.embed import embed_images, image_source
from mithridate.errors import EvaluationError
from mithridate.evaluation import checks
from mithridate.evaluation.caption_retrieval import caption_ranks, caption_rows
from mithridate.evaluation.material import Findings, Material
from mithridate.evaluation.measurement import Measurement, Predictions, UnitRanks
from mithridate.evaluation.triggered import class_ranks
from mithridate.metrics import names
from mithridate.metrics.attack_success import poison_success_rate
from mithridate.metrics.classification import class_scores
from mithridate.poisoning.goals import ImageToClass


def measure_image_goals(m: Material, goals: Sequence[ImageToClass], found: Findings) -> None:
    """PSR over all target images, and the captions that they retrieve, of each model; adds to `found`."""
    locations = pa.array([target_location(goal) for goal in goals], pa.string())
    wanted = np.array([m.classes.index(goal.target) for goal in goals], np.int64)
    ranks, taken, captions = {}, {}, {}
    for name, encoder in m.encoders.items():
        source = image_source(encoder, locations, cache=m.cache, limit=m.cache_limit, progress=m.progress)
        if source.bad:
            raise EvaluationError(f"a target image does not decode: {next(iter(source.bad.values()))}; fetch it again")
        image = embed_images(encoder, source, len(locations), progress=m.progress)
        scores = class_scores(image, m.weights[name])
        captions[name] = caption_ranks(m, name, image, wanted)
        each = [class_ranks(image[i : i + 1], m.weights[name], int(target))[0] for i, target in enumerate(wanted)]
        rank = np.array(each)
        # in a tie for the first place the adversarial class does not have it
        scores[np.arange(len(wanted)), wanted] = -np.inf
        taken[name] = tuple(m.classes.names[t] for t in np.where(rank == 0, wanted, scores.argmax(axis=1)))
        ranks[name] = tuple(rank.tolist())
        psr = poison_success_rate(np.where(rank == 0, wanted, -1), wanted)
        goal = names.SINGLE_IMAGES
        found.measurements.append(
            Measurement(model=name, metric=names.PSR, value=psr, goal=goal, unit="target", chance=m.chance)
        )
        found.measurements += caption_rows(m, name, captions[name], goal=goal, unit="target")
        if name == m.reference:
            found.warnings += checks.clean_is_fooled(goal, name, psr, m.chance)
    found.predictions = Predictions(wanted=tuple(goal.target for goal in goals), taken=taken)
    uid, image = tuple(f"target {i + 1}" for i in range(len(goals))), tuple(range(len(goals)))
    size = {"targets": 1, "gallery": len(m.classes.names)}
    single = names.SINGLE_IMAGES
    found.ranks.append(UnitRanks(task=names.TARGETED, goal=single, uid=uid, image=image, ranks=ranks, **size))
    plain = {name: tuple(c.rank.tolist()) for name, c in captions.items()}
    found.ranks.append(UnitRanks(task=names.CAPTIONS, goal=single, uid=uid, image=image, ranks=plain))
    found.warnings += checks.few_targets(single, len(goals))


def target_location(goal: ImageToClass) -> str:
    """Where the target image lies. Raises `EvaluationError` where it is gone."""
    if not Path(split_place(goal.image)[0]).is_file():
        raise EvaluationError(f"the target image {goal.image} is not there; evaluate where the attack was planned")
    return goal.image
