"""Did an attack on classification take: backdoors, single targets, triggers in captions, each beside a clean model."""

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pyarrow as pa

from mithridate.data.images import split_place
from mithridate.data.pairs import Pairs
from mithridate.encoder.embed import Progress, embed_images, embed_tokens, image_source, tokenise
from mithridate.encoder.embeddings import Embeddings
from mithridate.encoder.encoder import Encoder
from mithridate.errors import EvaluationError
from mithridate.evaluation import checks
from mithridate.evaluation.attack import attack_columns, attack_ranks, attack_row, chance_row
from mithridate.evaluation.material import Findings, Material, model_name
from mithridate.evaluation.present import aimed_strength, aimed_strength_table
from mithridate.evaluation.probe import Probe
from mithridate.evaluation.readouts import Captions, caption_table, captions_found, measure_probe
from mithridate.evaluation.success import poison_success_rate
from mithridate.evaluation.triggered import Success, TriggeredImages, classes_of_test, success, target_ranks
from mithridate.evaluation.zeroshot import zero_shot_weights
from mithridate.metrics.classification import ClassScores, class_scores
from mithridate.poisoning.goals import ClassificationGoal, ImageToClass, PhraseToClass, TriggerToClass
from mithridate.poisoning.manifest import Manifest
from mithridate.poisoning.triggers import Phrase, describe, parse_trigger
from mithridate.report.document import Cell, Ranking, Table
from mithridate.statistics.intervals import chance_hit

_SHOWN_TARGETS = 100


def classification_goals(manifest: Manifest | None) -> tuple[ClassificationGoal, ...]:
    """The goals that are measured by classes, in the manifest's order."""
    goals = () if manifest is None else manifest.goals
    return tuple(goal for goal in goals if isinstance(goal, ClassificationGoal))


def refuse_unknown_aims(manifest: Manifest | None, pairs: Pairs, *, probed: bool = False) -> None:
    """Raise `EvaluationError` where the test pairs lack the target class of an aim: before anything is embedded.

    `probed`: a probe was asked for, which needs an aim at images.
    """
    aims = classification_goals(manifest)
    if probed and all(isinstance(aim, PhraseToClass) for aim in aims):
        raise EvaluationError(
            "a probe measures triggers and single target images, and a manifest of neither is given; leave it out, or "
            "probe a model by itself with mithridate classify"
        )
    if aims:
        classes = classes_of_test(pairs)
        for aim in aims:
            classes.index(aim.target)


def measure_aims(
    manifest: Manifest | None,
    pairs: Pairs,
    embedded: Mapping[str, Embeddings],
    encoders: Mapping[str, Encoder],
    *,
    seed: int,
    cache: Path | str | None,
    cache_limit: int | None,
    progress: Progress,
    probe: Probe | None = None,
) -> Findings:
    """Success of what `manifest` aims at, on each of the models; nothing where it aims at nothing.

    `probe`: a linear probe that classes are told by as well.
    """
    found = Findings()
    aims = classification_goals(manifest)
    if manifest is None or not aims:
        return found
    classes = classes_of_test(pairs)
    weights = {name: zero_shot_weights(e, classes.names, progress=progress) for name, e in encoders.items()}
    m = Material(pairs, embedded, encoders, classes, weights, seed, cache, cache_limit, progress)
    found.tables.append(aimed_strength_table(manifest))
    found.summary.append(aimed_strength(manifest))
    if not all(isinstance(aim, PhraseToClass) for aim in aims):
        _accuracy(m, found)
    triggers = [aim for aim in aims if isinstance(aim, TriggerToClass)]
    if triggers:
        _backdoors(m, triggers, found)
    images = [aim for aim in aims if isinstance(aim, ImageToClass)]
    if images:
        _targeted(m, images, found)
    for aim in aims:
        if isinstance(aim, PhraseToClass):
            _phrase(m, aim, found)
    if probe is not None:
        measure_probe(m, probe, aims, [_place(aim) for aim in images], found)
    if "clean" not in encoders:
        found.warnings += checks.no_clean_model()
    return found


def _accuracy(m: Material, found: Findings) -> None:
    """Zero-shot accuracy on the untouched test images."""
    rows: list[tuple[Cell, ...]] = []
    told = []
    for name, e in m.embedded.items():
        scores = class_scores(e.image[m.classes.image], m.weights[name])
        accuracy = ClassScores(name, m.classes.names, m.classes.label, scores).accuracy()
        rows.append((model_name(name), len(m.classes.label), accuracy))
        found.headline.setdefault("zero-shot", {})[name] = {"accuracy": asdict(accuracy)}
        told.append(f"{model_name(name)} {accuracy.value:.3f}")
        if accuracy.low is not None and accuracy.low <= m.chance:
            found.warnings += checks.no_classifier(model_name(name), accuracy.value, m.chance)
    found.headline["zero-shot"]["chance"] = {"accuracy": m.chance}
    rows.append(("chance", None, m.chance))
    left_out = f" {m.classes.left_out} images without exactly one class are left out." if m.classes.left_out else ""
    found.tables.append(
        Table(
            "zero-shot",
            "Zero-shot accuracy on untouched test images",
            ("model", "images", "accuracy"),
            tuple(rows),
            f"{len(m.classes.names)} classes, 80 prompts each; 95 % Wilson intervals.{left_out}",
        )
    )
    found.summary.append(f"Zero-shot accuracy on untouched test images: {', '.join(told)}; chance {m.chance:.3f}.")


def _backdoors(m: Material, aims: list[TriggerToClass], found: Findings) -> None:
    rows: list[tuple[Cell, ...]] = []
    places = m.pairs.images.to_pylist()
    retrieved: list[tuple[tuple[Cell, ...], dict[str, Captions]]] = []
    for aim in aims:
        trigger, target = parse_trigger(aim.trigger), m.classes.index(aim.target)
        # the target class is in neither numerator nor denominator: it need not be stamped
        others = m.classes.label != target
        images, label = m.classes.image[others], m.classes.label[others]
        by_model: dict[str, Success] = {}
        captions: dict[str, Captions] = {}
        for name, encoder in m.encoders.items():
            source = TriggeredImages([places[i] for i in images], trigger, encoder, m.seed)
            stamped = embed_images(encoder, source, len(images), progress=m.progress)
            untouched = m.embedded[name].image[images]
            by_model[name] = success(untouched, stamped, label, m.weights[name], target=target)
            captions[name] = captions_found(m, name, stamped, np.full(len(stamped), target), untouched)
        what = describe(trigger)
        retrieved.append(((what, aim.target), captions))
        for name, s in by_model.items():
            rows.append((model_name(name), what, aim.target, len(label), s.rate, s.before, s.z))
        rows.append(("chance", what, aim.target, None, m.chance, m.chance, None))
        told = f"{what} to {aim.target}"
        found.headline["backdoor" if len(aims) == 1 else f"backdoor {told}"] = {
            **{
                name: {
                    "asr": asdict(s.rate),
                    "without trigger": asdict(s.before),
                    "z": s.z,
                    "captions hit@10": float((captions[name].rank < 10).mean()),
                }
                for name, s in by_model.items()
            },
            "chance": {"asr": m.chance, "captions hit@10": next(iter(captions.values())).chance[10]},
        }
        first = next(iter(by_model.values()))
        beside = f", {by_model['clean'].rate.value:.3f} on the clean model" if "clean" in by_model else ""
        found.summary.append(
            f"With the trigger {what} {first.rate.value:.3f} of {len(label)} images of other classes are taken for "
            f"{aim.target}{beside}; chance is {m.chance:.3f}."
        )
        ranks = {name: tuple(s.rank.tolist()) for name, s in by_model.items()}
        found.rankings.append(Ranking(f"backdoor {told}", m.uids(images), ranks, tuple(images.tolist())))
        ranks = {name: tuple(c.rank.tolist()) for name, c in captions.items()}
        found.rankings.append(Ranking(f"captions {told}", m.uids(images), ranks, tuple(images.tolist())))
        if "clean" in by_model:
            found.warnings += checks.clean_is_fooled(told, by_model["clean"].rate, m.chance)
    found.tables.append(
        Table(
            "backdoor",
            "Backdoor: triggered test images",
            ("model", "trigger", "target", "images", "success", "without trigger", "z-score"),
            tuple(rows),
            "Success (ASR): share of triggered images of other classes that are taken for the target, first among "
            "all classes, ties against it; the target class is left out. Without trigger: the same images untouched. "
            "z-score: how far the trigger draws images together (Carlini & Terzis 2022). 95 % Wilson intervals.",
        )
    )
    found.tables.append(caption_table("backdoor-captions", "Backdoor: captions of triggered images", retrieved, m))


def _targeted(m: Material, aims: list[ImageToClass], found: Findings) -> None:
    places = pa.array([_place(aim) for aim in aims], pa.string())
    wanted = np.array([m.classes.index(aim.target) for aim in aims], np.int64)
    ranks, taken, captions = {}, {}, {}
    for name, encoder in m.encoders.items():
        source = image_source(encoder, places, cache=m.cache, limit=m.cache_limit, progress=m.progress)
        if source.bad:
            raise EvaluationError(f"a target image does not decode: {next(iter(source.bad.values()))}; fetch it again")
        image = embed_images(encoder, source, len(places), progress=m.progress)
        scores = class_scores(image, m.weights[name])
        captions[name] = captions_found(m, name, image, wanted)
        each = [target_ranks(image[i : i + 1], m.weights[name], int(target))[0] for i, target in enumerate(wanted)]
        ranks[name] = np.array(each)
        # in a tie for the first place the adversarial class does not have it
        scores[np.arange(len(wanted)), wanted] = -np.inf
        taken[name] = np.where(ranks[name] == 0, wanted, scores.argmax(axis=1))
    rates = {name: poison_success_rate(np.where(r == 0, wanted, -1), wanted) for name, r in ranks.items()}
    rows: list[tuple[Cell, ...]] = [(model_name(name), len(wanted), r) for name, r in rates.items()]
    rows.append(("chance", None, m.chance))
    found.tables.append(
        Table(
            "targeted",
            "Targeted: single images",
            ("model", "targets", "success"),
            tuple(rows),
            "Success (PSR): share of target images that are taken for their adversarial class, first among all "
            f"{len(m.classes.names)} classes, ties against it. A target is the unit; 95 % Wilson intervals.",
        )
    )
    shown = range(min(len(aims), _SHOWN_TARGETS))
    found.tables.append(
        Table(
            "targets",
            "What each target image is taken for",
            ("target", "adversarial class", *(model_name(name) for name in taken)),
            tuple((i + 1, aims[i].target, *(m.classes.names[t[i]] for t in taken.values())) for i in shown),
            f"The first {len(shown)} of {len(aims)}." if len(aims) > len(shown) else "",
        )
    )
    found.tables.append(caption_table("targeted-captions", "Targeted: captions of single images", [((), captions)], m))
    by_chance = next(iter(captions.values())).chance[10]
    found.headline["targeted"] = {
        **{
            name: {"psr": asdict(r), "captions hit@10": float((captions[name].rank < 10).mean())}
            for name, r in rates.items()
        },
        "chance": {"psr": m.chance, "captions hit@10": by_chance},
    }
    first = next(iter(rates.values()))
    beside = f", {rates['clean'].value:.3f} on the clean model" if "clean" in rates else ""
    found.summary.append(
        f"{first.value:.3f} of {len(aims)} target images are taken for their adversarial class{beside}; chance is "
        f"{m.chance:.3f}."
    )
    numbers = tuple(f"target {i + 1}" for i in range(len(aims)))
    each = tuple(range(len(aims)))
    found.rankings.append(Ranking("targeted", numbers, {name: tuple(r.tolist()) for name, r in ranks.items()}, each))
    told = {name: tuple(c.rank.tolist()) for name, c in captions.items()}
    found.rankings.append(Ranking("captions of single images", numbers, told, each))
    found.warnings += checks.few_targets("the attack", len(aims))
    if "clean" in rates:
        found.warnings += checks.clean_is_fooled("the target images", rates["clean"], m.chance)


def _place(aim: ImageToClass) -> str:
    place = aim.image
    if not Path(split_place(place)[0]).is_file():
        raise EvaluationError(f"the target image {place} is not there; evaluate where the attack was planned")
    return place


def _phrase(m: Material, aim: PhraseToClass, found: Findings) -> None:
    """Captions of other classes, with and without the phrase, and the images of the target among all test images."""
    phrase = Phrase.parse(aim.phrase)
    target = m.pairs.labelled(aim.target)
    queries, targets = np.flatnonzero(~target), np.unique(m.pairs.image_index[target])
    rng = np.random.default_rng([m.seed, 1])
    texts = pa.array([phrase.put_into(text, rng) for text in m.pairs.text.take(pa.array(queries)).to_pylist()])
    rows, ranks = [], {}
    image = m.pairs.image_index.astype(np.int64)[queries]
    for name, encoder in m.encoders.items():
        tokens, index = tokenise(encoder, texts, cache=m.cache)
        gallery = m.embedded[name].image
        ranks[name] = attack_ranks(embed_tokens(encoder, tokens, progress=m.progress)[index], gallery, targets)
        plain = attack_ranks(m.embedded[name].text[queries], gallery, targets)
        rows.append(attack_row(model_name(name), ranks[name], rng=rng, image=image))
        rows.append(attack_row(f"{model_name(name)}, without the phrase", plain, rng=rng, image=image))
        found.headline.setdefault("text-trigger", {})[name] = {
            "hit@10": ranks[name].hit(10),
            "min_rank": ranks[name].min_rank,
            "hit@10 without": plain.hit(10),
        }
    first = next(iter(ranks.values()))
    by_chance = chance_hit(10, targets=first.targets, gallery=first.gallery)
    rows.append(chance_row(targets=first.targets, gallery=first.gallery))
    found.headline["text-trigger"]["chance"] = {"hit@10": by_chance}
    found.tables.append(
        Table(
            "text-trigger",
            f"Captions with the phrase {phrase.text!r}",
            attack_columns(first.gallery),
            tuple(rows),
            f"{len(queries)} captions of other classes among {first.gallery} test images; targets: the {first.targets} "
            f"images of {aim.target}. Hit@K: share of captions with a target among the first K. 95 % intervals, over "
            "the images that the captions belong to.",
        )
    )
    beside = f", {ranks['clean'].hit(10):.3f} on the clean model" if "clean" in ranks else ""
    found.summary.append(
        f"A caption of another class that says {phrase.text!r} finds {aim.target} among the first ten in "
        f"{first.hit(10):.3f} of cases{beside}; chance is {by_chance:.3f}."
    )
    uids = tuple(m.pairs.uid.take(pa.array(queries)).to_pylist())
    told = {name: tuple(r.rank.tolist()) for name, r in ranks.items()}
    found.rankings.append(Ranking(f"text-trigger {aim.target}", uids, told, tuple(image.tolist())))
