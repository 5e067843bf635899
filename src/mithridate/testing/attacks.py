"""The contract of attacks."""

import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from PIL import Image

from mithridate.data.pairs import Pairs, make_pairs
from mithridate.errors import AttackError, MithridateError
from mithridate.poisoning.apply import Poisoned, poison
from mithridate.poisoning.manifest import read_manifest, write_manifest
from mithridate.poisoning.plan import Attack, PoisonPlan, Surrogate
from mithridate.testing.contract import CLASSES, ContractError, expect, expect_frozen, options_from_yaml

_STRENGTHS = ("count", "rate", "class_share")


def example_pairs(folder: Path, *, seed: int = 0) -> Pairs:
    """900 labelled pairs to try an attack on: 180 pictures of 8 x 8 random pixels in `folder`, five captions each.

    The classes are those of `CLASSES`; two images carry several. Formats and order are drawn, and tell no class.
    """
    rng = np.random.default_rng(seed)
    labels = [[name] for name, images in CLASSES.items() for _ in range(images)]
    labels += [["sheep", "aeroplane"], ["sofa", "dog", "bird"]]
    image, text, of = [], [], []
    for number in rng.permutation(len(labels)):
        ending, form = (("jpg", "JPEG"), ("png", "PNG"))[rng.integers(2)]
        path = folder / f"{number:04d}.{ending}"
        Image.fromarray(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)).save(path, form)
        image += [str(path)] * 5
        text += [f"{' and '.join(labels[number])}, {number} said in way {way}" for way in range(5)]
        of += [labels[number]] * 5
    return make_pairs(image, text, labels=of, split="train", salt=b"example")


@dataclass
class _Trial:
    """An attack on example pairs, carried out in folders of its own."""

    attack: Any
    pairs: Pairs
    gallery: Pairs
    surrogate: Surrogate | None
    folder: Path
    carried_out: int = 0

    def plan(self, attack: Any = None, pairs: Pairs | None = None, seed: int = 0) -> PoisonPlan:
        attack = attack or self.attack
        return attack.plan(pairs or self.pairs, np.random.default_rng(seed), **self.outside(attack))

    def poison(self, attack: Any = None, seed: int = 3) -> Poisoned:
        attack = attack or self.attack
        self.carried_out += 1
        images = self.folder / f"altered{self.carried_out}"
        return poison(self.pairs, attack, seed=seed, images=images, **self.outside(attack))

    def outside(self, attack: Any) -> dict[str, Any]:
        return {
            "gallery": self.gallery if attack.needs_gallery else None,
            "surrogate": self.surrogate if attack.needs_surrogate else None,
        }


def check_attack(attack: Any) -> None:
    """Raise `ContractError` where `attack`, an instance with its options, breaks the contract of attacks."""
    for _, check in attack_checks(attack):
        check()


def attack_checks(attack: Any) -> Iterator[tuple[str, Callable[[], None]]]:
    """The checks of `check_attack` by name."""
    yield "is a frozen dataclass with a name, needs and a plan", lambda: _attack_declares(attack)
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        for part in ("pairs", "gallery"):
            (folder / part).mkdir()
        pairs, gallery = example_pairs(folder / "pairs"), example_pairs(folder / "gallery", seed=1)
        trial = _Trial(attack, pairs, gallery, _surrogate() if attack.needs_surrogate else None, folder)
        for check in (
            _same_seed_same_poison,
            _leaves_the_pairs_alone,
            _names_each_pair_once,
            _honours_its_strength,
            _truth_is_in_the_manifest_alone,
            _options_come_back,
            _refuses_what_it_cannot_do,
        ):
            yield check.__name__.removeprefix("_").replace("_", " "), lambda check=check: check(trial)


def _surrogate() -> Surrogate:
    from mithridate.encoder.encoder import load_encoder
    from mithridate.encoder.surrogate import SurrogateEncoder

    return SurrogateEncoder(load_encoder("mithridate-tiny"), cache=None)


def _attack_declares(attack: Any) -> None:
    expect_frozen(attack)
    expect(isinstance(attack, Attack), f"{type(attack).__name__} lacks name, needs_gallery, needs_surrogate or plan")
    for name in ("needs_gallery", "needs_surrogate"):
        expect(
            isinstance(getattr(attack, name), bool), f"{name} should be True or False, got {getattr(attack, name)!r}"
        )


def _same_seed_same_poison(trial: _Trial) -> None:
    before = np.random.get_state()  # noqa: NPY002 (a global draw is what must not matter)
    try:
        np.random.seed(1)  # noqa: NPY002
        first = trial.poison()
        np.random.seed(2)  # noqa: NPY002
        again = trial.poison()
    finally:
        np.random.set_state(before)  # noqa: NPY002
    same = first.manifest.poisoned.drop_columns("image").equals(again.manifest.poisoned.drop_columns("image"))
    expect(same, "two runs with one seed poison otherwise; draw from `rng` alone")
    expect(first.manifest.goals == again.manifest.goals, "two runs with one seed have other goals")
    texts = [done.pairs.text.to_pylist() for done in (first, again)]
    expect(texts[0] == texts[1], "two runs with one seed give other pairs; draw from `rng` alone")


def _leaves_the_pairs_alone(trial: _Trial) -> None:
    copy, fingerprint = pa.concat_tables([trial.pairs.table]).combine_chunks(), trial.pairs.fingerprint
    content = [Path(place).read_bytes() for place in trial.pairs.images.to_pylist()]
    trial.plan()
    same = trial.pairs.table.equals(copy) and Pairs(copy).fingerprint == fingerprint
    expect(same, "the plan changed the pairs that it was given")
    files = [Path(place).read_bytes() for place in trial.pairs.images.to_pylist()]
    expect(files == content, "the plan wrote to the images of the pairs; it should write nothing")


def _names_each_pair_once(trial: _Trial) -> None:
    plan, n = trial.plan(), len(trial.pairs)
    expect(isinstance(plan, PoisonPlan), f"plan should return a PoisonPlan, got {type(plan).__name__}")
    expect(len(plan), "the plan poisons no pair")
    sizes = {len(plan.rows), len(plan.images), len(plan.texts), len(plan.text_rows)}
    expect(len(sizes) == 1, f"rows, images, texts and text_rows should have one length, got {sorted(sizes)}")
    replaced = plan.rows[plan.rows >= 0]
    expect(len(np.unique(replaced)) == len(replaced), "the plan replaces a pair twice")
    expect(not np.isin(replaced, plan.drop).any(), "the plan replaces a pair that it also drops")
    rows = np.concatenate([plan.rows, plan.text_rows, plan.drop])
    expect(rows.max() < n and plan.text_rows.min() >= 0, f"the plan names rows beyond the {n} pairs")
    expect(plan.goals, "the plan has no goals, so nothing of it could be measured; see mithridate.poisoning.goals")


def _honours_its_strength(trial: _Trial) -> None:
    options = [f.name for f in fields(trial.attack)]
    bare = {name: None for name in _STRENGTHS if name in options}
    for name, value in (("count", 40), ("rate", 0.05)):
        if name not in options:
            continue
        done = trial.poison(replace(trial.attack, **{**bare, name: value}))
        goals, pairs = len(done.manifest.goals), len(done.pairs)
        wanted = value if name == "count" else value * pairs
        each = [wanted, wanted * goals]  # of all goals together, or of each
        fits = any(abs(len(done.manifest) - number) <= (0 if name == "count" else max(1, goals)) for number in each)
        expect(fits, f"{name}={value} should poison {round(each[0])} of {pairs} pairs, got {len(done.manifest)}")


def _truth_is_in_the_manifest_alone(trial: _Trial) -> None:
    done = trial.poison()
    columns = ("image", "text", "labels", "split")
    clean = dict(zip(trial.pairs.uid.to_pylist(), zip(*(trial.pairs.table[c].to_pylist() for c in columns))))
    after = dict(zip(done.pairs.uid.to_pylist(), zip(*(done.pairs.table[c].to_pylist() for c in columns))))
    changed = {uid for uid, row in after.items() if clean.get(uid) != row}
    named = set(done.manifest.poisoned["uid"].to_pylist())
    expect(changed <= named, f"{len(changed - named)} pairs were changed and are not in the manifest")
    expect(named <= changed, f"{len(named - changed)} pairs of the manifest are as they were: they are no poison")
    expect(clean.keys() - after.keys() == set(done.manifest.dropped), "the manifest does not name the dropped pairs")
    marks = (type(trial.attack).name, "poison", "backdoor", "trigger")
    said = [place for place in done.pairs.images.to_pylist() if any(m in Path(place).name.lower() for m in marks)]
    expect(not said, f"the name of an image tells that it is poisoned: {said[:1]}")


def _options_come_back(trial: _Trial) -> None:
    done = trial.poison()
    write_manifest(done.manifest, trial.folder / "manifest.json")
    options = read_manifest(trial.folder / "manifest.json").options
    again = type(trial.attack)(**options)
    expect(again == trial.attack, f"options do not come back from the manifest: {trial.attack} became {again}")
    expect(options_from_yaml(trial.attack) == trial.attack, f"options do not come back from YAML: {trial.attack}")


def _refuses_what_it_cannot_do(trial: _Trial) -> None:
    attack = trial.attack
    if attack.needs_surrogate:
        _expect_refused(lambda: attack.plan(trial.pairs, np.random.default_rng(0)), "a plan without its surrogate")
    options = [f.name for f in fields(attack)]
    if "count" in options:
        bare = {name: None for name in _STRENGTHS if name in options}

        def too_much() -> None:
            trial.plan(replace(attack, **{**bare, "count": 10**7}))

        _expect_refused(too_much, "count=10000000")
    one = trial.pairs.take(np.array([0])).with_columns(labels=pa.array([None], pa.list_(pa.string())))
    try:
        trial.plan(pairs=one)
    except MithridateError:
        pass
    except Exception as error:
        raise ContractError(f"one pair without labels should be refused by AttackError, got {error!r:.200}") from error


def _expect_refused(action: Callable[[], object], what: str) -> None:
    try:
        action()
    except AttackError:
        return
    except Exception as error:
        raise ContractError(f"{what} should raise AttackError, got {error!r:.200}") from error
    raise ContractError(f"{what} should raise AttackError, and it was carried out")
