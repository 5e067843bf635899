"""Premises of an evaluation that are checked, and what is said when one fails. Each code is a heading in
docs/warnings.md: raised if, means, do."""

from typing import Any

from mithridate.evaluation.result import Warning

FEW_QUERIES = 30
CLEAN_FACTOR = 1.5
COLLAPSE = 0.1
OVERALL = 0.05


def few_queries(name: str, queries: int) -> list[Warning]:
    if queries >= FEW_QUERIES:
        return []
    return [
        Warning(
            "few-queries",
            f"{name} is measured on {queries} queries; one of them moves Hit@K by {1 / queries:.3f}",
        )
    ]


def clean_succeeds(name: str, *, clean_hit: float, chance_hit: float) -> list[Warning]:
    if clean_hit <= CLEAN_FACTOR * chance_hit:
        return []
    return [
        Warning(
            "clean-model-succeeds",
            f"{name}: the clean model reaches Hit@10 {clean_hit:.3f}, chance is {chance_hit:.3f}; "
            "not all of the poisoned model's success is the attack's",
        )
    ]


def no_clean_model() -> list[Warning]:
    return [
        Warning("no-clean-model", "no clean model is given, so the attack's success has only chance to be held against")
    ]


def unequal_recipes(poisoned: dict[str, Any] | None, clean: dict[str, Any] | None) -> list[Warning]:
    """Compare the records of two training runs (`run.json`)."""
    if poisoned is None or clean is None:
        return []
    compared = [
        (name, *(run.get("config", {}).get(name) for run in (poisoned, clean)))
        for name in ("batch_size", "epochs", "lr", "min_lr", "freeze", "augment", "weight_decay", "precision")
    ] + [(name, poisoned.get(name), clean.get(name)) for name in ("encoder", "weights", "objective")]
    found = [f"{name} {first} and {second}" for name, first, second in compared if first != second]
    if not found:
        return []
    return [Warning("unequal-recipes", f"the poisoned and the clean model were trained with {'; '.join(found)}")]


def collapsed_class(utility: dict[str, dict[str, float]]) -> list[Warning]:
    """`utility`: for each group of images, the fall of TR@10 and IR@10 from the clean to the poisoned model."""
    overall = utility.get("all", {})
    if any(fall > OVERALL for fall in overall.values()):
        return []
    hidden = [
        f"{way.upper()}@10 of {group} by {fall:.3f}"
        for group, falls in utility.items()
        for way, fall in falls.items()
        if group not in ("all", "other classes") and fall > COLLAPSE
    ]
    if not hidden:
        return []
    return [Warning("collapsed-class", f"overall utility looks unharmed while the poison lowers {', '.join(hidden)}")]


def missing_poison(reason: str) -> list[Warning]:
    return [Warning("no-densities", f"the distances of poisoned pairs are not shown: {reason}")]


def target_added(place: str) -> list[Warning]:
    return [
        Warning(
            "target-added", f"the target image {place} is not in the gallery; it was added to it for the attack alone"
        )
    ]
