"""Are images that carry a trigger taken for the target class: by prompts, and by the captions that they retrieve."""

import numpy as np

from mithridate.encoder.embed import embed_images
from mithridate.evaluation import checks
from mithridate.evaluation.caption_retrieval import caption_ranks, caption_rows
from mithridate.evaluation.examples import encoded
from mithridate.evaluation.material import Findings, Material
from mithridate.evaluation.measurement import Measurement, TriggeredImage, UnitRanks
from mithridate.evaluation.triggered import TriggeredImages, success
from mithridate.metrics import names
from mithridate.metrics.classification import class_scores
from mithridate.poisoning.goals import TriggerToClass
from mithridate.poisoning.triggers import parse_trigger
from mithridate.randomness import stream
from mithridate.statistics.estimate import Estimate

_SHOWN = 6


def measure_trigger_goal(m: Material, goal: TriggerToClass, found: Findings) -> None:
    """ASR with the trigger and without, z-score, and caption retrieval of each model; adds to `found`."""
    trigger, target = parse_trigger(goal.trigger), m.classes.index(goal.target)
    # the target class is in neither numerator nor denominator: it need not be stamped
    others = m.classes.label != target
    images, label = m.classes.image[others], m.classes.label[others]
    locations = m.pairs.images.to_pylist()
    wanted = np.full(len(images), target)
    ranks, captions = {}, {}
    chosen = _shown(m, goal, len(images))
    pictures, taken = [""] * len(chosen), [dict[str, str]() for _ in chosen]
    for name, encoder in m.encoders.items():
        source = TriggeredImages([locations[i] for i in images], trigger, encoder, m.seed)
        stamped = embed_images(encoder, source, len(images), progress=m.progress)
        untouched = m.embedded[name].image[images]
        if name == m.model:
            pictures = [encoded(pixels) for pixels in source.gather(chosen)]
        for at, best in enumerate(class_scores(stamped[chosen], m.weights[name]).argmax(axis=1)):
            taken[at][name] = m.classes.names[best]
        each = success(untouched, stamped, label, m.weights[name], target=target)
        ranks[name] = tuple(each.rank.tolist())
        captions[name] = caption_ranks(m, name, stamped, wanted, untouched)

        def row(
            metric: str, value: Estimate, group: str = names.ALL, chance: float | None = None, *, model: str = name
        ) -> Measurement:
            return Measurement(
                model=model, metric=metric, value=value, goal=goal.key, group=group, unit="image", chance=chance
            )

        found.measurements += [
            row(names.ASR, each.rate, chance=m.chance),
            row(names.ASR, each.before, names.UNTOUCHED, m.chance),
        ]
        if each.z is not None:
            found.measurements.append(row(names.Z_SCORE, Estimate(each.z)))
        found.measurements += caption_rows(m, name, captions[name], goal=goal.key)
        if name == m.reference:
            found.warnings += checks.clean_is_fooled(goal.key, name, each.rate, m.chance)
    found.triggered += [
        TriggeredImage(goal=goal.key, thumbnail=picture, label=m.classes.names[label[row]], taken=of)
        for picture, row, of in zip(pictures, chosen, taken, strict=True)
    ]
    uid, image = m.uids_of_images(images), tuple(images.tolist())
    classes = len(m.classes.names)
    found.ranks.append(
        UnitRanks(task=names.BACKDOOR, goal=goal.key, uid=uid, image=image, ranks=ranks, targets=1, gallery=classes)
    )
    plain = {name: tuple(c.rank.tolist()) for name, c in captions.items()}
    size = {"targets": int(m.pairs.labelled(goal.target).sum()), "gallery": len(m.pairs)}
    found.ranks.append(UnitRanks(task=names.CAPTIONS, goal=goal.key, uid=uid, image=image, ranks=plain, **size))


def _shown(m: Material, goal: TriggerToClass, count: int) -> np.ndarray:
    """The rows of the images that are shown with the trigger."""
    return np.sort(stream(m.seed, f"images shown with {goal.trigger}").permutation(count)[:_SHOWN])
