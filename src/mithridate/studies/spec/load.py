"""A study file as a `Study`: `docs/studies.md` says what it may hold. Every error names file, line and field."""

# Above 350 lines: one reader for each section of the file, which name fields and lines alike.

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from importlib import resources
from pathlib import Path
from typing import Any

from mithridate.data.sources import expand_braces
from mithridate.errors import StudyError
from mithridate.studies.spec.build import (
    NAMED_BY,
    SECTIONS,
    bare,
    build_attack,
    build_audit,
    build_data,
    build_filter,
    build_inspect,
    build_objective,
    build_repair,
    build_start,
    build_train,
    refuse_unknown_classes,
    value_of,
)
from mithridate.studies.spec.cells import Axis, Combination, combinations
from mithridate.studies.spec.counts import COUNTS, counts_of
from mithridate.studies.spec.data import DataSpec, ToySpec
from mithridate.studies.spec.defences import unbundled, with_plugged
from mithridate.studies.spec.located import Located, read_located, shown, suggestion
from mithridate.studies.spec.shows import read_claim, read_floor, read_show
from mithridate.studies.spec.study import Cell, Experiment, Label, StartSpec, Study
from mithridate.training.clip import Clip

MEASURES = ("zero-shot", "probe", "shift", "epochs", "start")
FILES = "files"  # the profile that a folder is read by

_OF_STUDY = ("study", "title", "about", "profiles", "seeds", "measure", "floor", "experiments", *SECTIONS)
_OF_EXPERIMENT = (
    *(
        "name",
        "title",
        "asks",
        *SECTIONS,
        "vary",
        "unless_equal",
        "together",
        "seeds",
        "measure",
        "clean",
        "floor",
        "profiles",
        "show",
        "claims",
    ),
)
_WORD = re.compile(r"\$([A-Za-z_][\w-]*)")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9-]*")
# those that may be lists
_LISTS = ("data", "start", "train", "attack", "defence", "objective", "filter", "audit", "repair")


def preset_names() -> list[str]:
    """The studies that come with the package."""
    folder = resources.files("mithridate.studies") / "presets"
    return sorted(entry.name.removesuffix(".yaml") for entry in folder.iterdir() if entry.name.endswith(".yaml"))


def study_path(source: str | Path) -> Path:
    """The file that `source` names: a path, or a preset by its name. Raises `StudyError`."""
    path = Path(source)
    if path.is_file():
        return path
    names = preset_names()
    if str(source) in names:
        return Path(str(resources.files("mithridate.studies") / "presets" / f"{source}.yaml"))
    raise StudyError(f"no file and no preset is called {source}; presets are {', '.join(names) or 'none'}")


_SEEDS = "seeds must be distinct integers of at least 0"


def _are_seeds(seeds: Sequence[int]) -> bool:
    return len(seeds) > 0 and min(seeds) >= 0 and len(set(seeds)) == len(seeds)


def read_study(source: str | Path, *, data: str | None = None, seeds: Sequence[int] = ()) -> Study:
    """The study in a file, or the preset of that name.

    `data` names one of its profiles, or a folder: then profile `files` is read with the folder as its path. `seeds`
    take the place of the file's. Raises `StudyError` that names file, line and field.
    """
    path = study_path(source)
    name = path.stem if path.parent.name == "presets" and str(source) == path.stem else str(source)
    return study_of(read_located(path, f"{name}.yaml" if name == path.stem else name), data=data, seeds=seeds)


def study_of(root: Located, *, data: str | None = None, seeds: Sequence[int] = ()) -> Study:
    """As `read_study`, of a file that has been read."""
    top = root.items("a study file")
    _refuse_unknown(top, _OF_STUDY, "a study")
    for key in ("study", "experiments"):
        if key not in top:
            root.fail(f"a study file needs {key!r}")
    name = top["study"].text("study")
    if not _NAME.fullmatch(name):
        top["study"].fail(f"study must consist of letters, digits and dashes, got {shown(name)}")
    profile, words, folder = _profile(top, data)
    reader = _Reader(name, profile, words, folder, tuple(seeds))
    return reader.study(root)


def _profile(top: Mapping[str, Located], data: str | None) -> tuple[str, dict[str, Located], str]:
    """The name of the profile, its words, and the folder that its data lie in."""
    if "profiles" not in top:
        if data is None or data == "toy":
            return "", {}, ""
        return "", {}, data
    profiles = top["profiles"].items("profiles")
    if not profiles:
        top["profiles"].fail("profiles must name at least one")
    folder, name = "", ""
    if data is not None and "=" in data:
        name, _, folder = data.partition("=")
    if data is None:
        chosen = next(iter(profiles))
    elif data in profiles:
        chosen = data
    elif name in profiles and Path(folder).is_dir():
        chosen = name
    elif Path(data).is_dir():
        lie_there = (name for name, words in profiles.items() if name != FILES and _lies_in(words, Path(data)))
        chosen, folder = next(lie_there, FILES), data
        if chosen not in profiles:
            top["profiles"].fail(
                f"{data} has the files of no profile, and there is no profile {FILES!r} to read others by; profiles "
                f"are {', '.join(profiles)}"
            )
    else:
        top["profiles"].fail(f"{data!r} is neither a profile nor a folder; profiles are {', '.join(profiles)}")
    return chosen, dict(profiles[chosen].items(f"profiles.{chosen}")), folder


def _lies_in(profile: Located, folder: Path) -> bool:
    """Whether a profile's training and test data are files that `folder` has."""
    data = profile.value.get("data") if isinstance(profile.value, dict) else None
    named = [data.value[part].value for part in ("train", "test") if part in data.value] if data is not None else []
    return bool(named) and all(isinstance(name, str) and _is_there(folder / name) for name in named)


def _is_there(path: Path) -> bool:
    return all(Path(name).exists() for name in expand_braces(str(path)))


def _refuse_unknown(given: Mapping[str, Located], known: Sequence[str], what: str) -> None:
    for name, value in given.items():
        if name not in known:
            value.fail(f"{what} has no field {name!r}; {suggestion(name, known)}")


class _Reader:
    """What holds for the whole file while it is read."""

    def __init__(self, name: str, profile: str, words: dict[str, Located], folder: str, seeds: tuple[int, ...]) -> None:
        self.name, self.profile, self.words, self.folder, self.given_seeds = name, profile, words, folder, seeds

    def study(self, root: Located) -> Study:
        whole = ("profiles", "experiments")  # words of an experiment that is left out need not be there
        top = {key: node if key in whole else self.filled(node) for key, node in root.value.items()}
        inherited = {key: top[key] for key in (*SECTIONS, "seeds", "measure", "floor") if key in top}
        inherited |= {key: self.filled(node) for key, node in self.words.items() if key in (*SECTIONS, "seeds")}
        experiments: list[Experiment] = []
        for entry in top["experiments"].entries("experiments"):
            if self.left_out(entry, root):
                continue
            found = self.experiment(self.filled(entry), inherited)
            if found.name in [other.name for other in experiments]:
                entry.fail(f"two experiments are called {found.name!r}")
            experiments.append(found)
        if not experiments:
            top["experiments"].fail(f"the profile {self.profile!r} leaves no experiment")
        title = top["title"].text("title") if "title" in top else self.name
        about = " ".join(top["about"].text("about").split()) if "about" in top else ""
        return Study(name=self.name, title=title, about=about, profile=self.profile, experiments=tuple(experiments))

    def filled(self, node: Located) -> Located:
        """`node` with every `$word` as the profile has it."""
        if isinstance(node.value, dict):
            return replace(node, value={name: self.filled(entry) for name, entry in node.value.items()})
        if isinstance(node.value, list):
            return replace(node, value=[self.filled(entry) for entry in node.value])
        found = _WORD.fullmatch(node.value) if isinstance(node.value, str) else None
        if found is None:
            return node
        word = found[1]
        if word not in self.words:
            if not self.profile:
                node.fail(f"${word} stands for a value of a profile, and this file has no profiles")
            node.fail(f"profile {self.profile!r} does not define ${word}; {suggestion(word, self.words)}")
        return self.words[word]

    def left_out(self, node: Located, root: Located) -> bool:
        """Whether an experiment is one of other profiles."""
        given = node.items("an experiment")
        if "profiles" not in given:
            return False
        known = root.value["profiles"].value if "profiles" in root.value else {}
        for word in given["profiles"].words("profiles"):
            if word not in known:
                given["profiles"].fail(f"unknown profile {word!r}; {suggestion(word, known)}")
        return self.profile not in given["profiles"].words("profiles")

    def experiment(self, node: Located, inherited: Mapping[str, Located]) -> Experiment:
        given = node.items("an experiment")
        _refuse_unknown(given, _OF_EXPERIMENT, "an experiment")
        if "name" not in given:
            node.fail("an experiment needs 'name'")
        name = given["name"].text("name")
        if not _NAME.fullmatch(name):
            given["name"].fail(f"name must consist of letters, digits and dashes, got {shown(name)}")
        merged = {**inherited, **given}
        # what the experiment says comes in its order, after what holds for all
        merged = {key: merged[key] for key in (*(k for k in inherited if k not in given), *given)}
        sections = {key: with_plugged(key, _mapped(key, merged[key])) for key in SECTIONS if key in merged}
        axes = self._axes(merged, sections)
        measures = self._measures(merged)
        clean = value_of(bool, given["clean"], "clean") if "clean" in given else True
        if not clean and (merged.keys() & {"filter", "audit", "repair", "inspect"} or "shift" in measures):
            given["clean"].fail(
                "filters, audits, repairs, inspections and shifts are held against a clean model; leave out clean"
            )
        cells: list[Cell] = []
        for point in combinations(sections, axes, _pairs(merged.get("unless_equal")), _together(merged, axes)):
            cell = self._cell(name, point, measures, node)
            cells += [replace(cell, seed=seed, clean=clean) for seed in self._seeds(merged)]
        if not cells:
            node.fail(f"unless_equal leaves no combination of experiment {name!r}")
        labels = {axis.name: [label for label, _ in axis.entries] for axis in axes}
        if counts := sorted({count for cell in cells for count in counts_of(cell.attack)}):
            labels.setdefault(COUNTS, list(counts))
        floor = read_floor(merged["floor"]) if "floor" in merged else None
        shows = [read_show(e, labels, floor) for e in given["show"].entries("show")] if "show" in given else []
        claims = [read_claim(e, labels, floor) for e in given["claims"].entries("claims")] if "claims" in given else []
        return Experiment(
            name=name,
            title=given["title"].text("title") if "title" in given else name,
            asks=" ".join(given["asks"].text("asks").split()) if "asks" in given else "",
            cells=tuple(cells),
            shows=tuple(shows),
            claims=tuple(claims),
        )

    def _seeds(self, given: Mapping[str, Located]) -> tuple[int, ...]:
        if self.given_seeds or "seeds" not in given:
            seeds = self.given_seeds or (0,)
            if not _are_seeds(seeds):
                raise StudyError(f"{_SEEDS}, got {shown(list(seeds))}; choose other --seeds")
            return seeds
        seeds = value_of(tuple[int, ...], given["seeds"], "seeds")
        if not _are_seeds(seeds):
            given["seeds"].fail(f"{_SEEDS}, got {shown(list(seeds))}")
        return seeds

    def _measures(self, given: Mapping[str, Located]) -> tuple[str, ...]:
        found = given["measure"].words("measure") if "measure" in given else ()
        for measure in found:
            if measure not in MEASURES:
                given["measure"].fail(f"unknown measurement {measure!r}; {suggestion(measure, MEASURES)}")
        return tuple(measure for measure in MEASURES if measure in found)

    def _axes(self, given: Mapping[str, Located], sections: dict[str, Located]) -> list[Axis]:
        """The axes of an experiment; what is a list in `sections` is left to them."""
        axes: list[Axis] = []
        for key, node in given.items():
            if key in sections and isinstance(sections[key].value, list):
                if key not in _LISTS:
                    node.fail(f"{key} takes one value, not a list")
                axes.append(Axis(key, (key,), _labelled(key, sections[key])))
                sections[key] = axes[-1].entries[0][1]
            elif key == "vary":
                for name, values in node.items("vary").items():
                    path = tuple(name.split("."))
                    if len(path) < 2 or path[0] not in SECTIONS:
                        values.fail(
                            f"{name!r} cannot be varied; expected a section and an option of it, such as attack.count"
                        )
                    entries = values.entries(f"vary.{name}")
                    if not entries:
                        values.fail(f"vary.{name} needs at least one value")
                    labels = [_label(entry.plain()) for entry in entries]
                    if len(set(labels)) < len(labels):
                        values.fail(f"vary.{name} has the same value twice")
                    axes.append(Axis(name, path, tuple(zip(labels, entries))))
        return axes

    def _cell(self, experiment: str, point: Combination, measures: tuple[str, ...], node: Located) -> Cell:
        given = {key: value for key, value in unbundled(point.sections).items() if value.value is not None}
        data = self._below(build_data(given["data"])) if "data" in given else DataSpec(toy=ToySpec())
        start = self._start(build_start(given["start"])) if "start" in given else StartSpec()
        preset = "scratch" if bare(start) and start.pretrain is None else "finetune"
        train = build_train(given.get("train", Located({}, node.line, node.file)), "train", preset)
        attack = build_attack(given["attack"]) if "attack" in given else None
        test = self._below(build_data(given["test"], "test")) if "test" in given else None
        if test is None and data.toy is None and not (data.test or data.test_split):
            given["data"].fail("data needs 'test' or 'test_split' to test with")
        for worlds in (data, test):
            if attack is not None and worlds is not None and worlds.toy is not None:
                refuse_unknown_classes(attack, worlds.toy.classes, "the toy dataset", given["attack"])
        found = build_filter(given["filter"]) if "filter" in given else None
        if found is not None and found.encoder is not None:
            found = replace(found, encoder=self._start(found.encoder))
        audit = build_audit(given["audit"]) if "audit" in given else None
        if audit is not None and found is not None:
            given["audit"].fail(
                "a cell takes filter or audit, not both; make the other null, or an experiment of its own"
            )
        if audit is not None and audit.encoder is not None:
            audit = replace(audit, encoder=self._start(audit.encoder))
        repair = build_repair(given["repair"]) if "repair" in given else None
        if repair is not None and repair.on is not None:
            repair = replace(repair, on=self._below(repair.on))
        inspect = build_inspect(given["inspect"]) if "inspect" in given else None
        if inspect is not None and inspect.on is not None:
            inspect = replace(inspect, on=self._below(inspect.on))
        return Cell(
            experiment=experiment,
            axes=point.labels,
            seed=0,
            data=data,
            start=start,
            attack=attack,
            objective=build_objective(given["objective"]) if "objective" in given else Clip(),
            train=train,
            filter=found,
            audit=audit,
            repair=repair,
            test=test,
            inspect=inspect,
            measures=measures,
        )

    def _below(self, data: DataSpec) -> DataSpec:
        """`data` below the folder that was given."""
        if data.toy is not None or not self.folder or Path(data.path).is_absolute():
            return data
        return replace(data, path=str(Path(self.folder) / data.path))

    def _start(self, start: StartSpec) -> StartSpec:
        """An encoder that is a folder is looked for below the data too."""
        below = Path(self.folder) / start.encoder
        if self.folder and not Path(start.encoder).is_dir() and below.is_dir():
            start = replace(start, encoder=str(below))
        return start if start.on is None else replace(start, on=self._below(start.on))


def _mapped(section: str, node: Located) -> Located:
    """A section that is a word alone, as the mapping that it stands for; of a list each entry."""
    if isinstance(node.value, list):
        return replace(node, value=[_mapped(section, entry) for entry in node.value])
    if not isinstance(node.value, str):
        return node
    if section in NAMED_BY:
        return replace(node, value={NAMED_BY[section]: node})
    if section == "defence":
        node.fail(f"a defence is a mapping, such as {{objective: roclip}}, got {shown(node.value)}")
    return replace(node, value={"toy": replace(node, value={})} if node.value == "toy" else {"path": node})


def _labelled(section: str, node: Located) -> tuple[tuple[Label, Located], ...]:
    """The entries of a list with their labels: `label`, or the name of each."""
    if not node.value:
        node.fail(f"{section} needs at least one entry")
    found: dict[Label, Located] = {}
    for entry in node.value:
        given = entry.value if isinstance(entry.value, dict) else {}
        label = given["label"].value if "label" in given else _default_label(section, given)
        if not isinstance(label, str | int | float) or isinstance(label, bool):
            entry.fail(f"a label must be a word or a number, got {shown(label)}")
        if label in found:
            entry.fail(f"two entries of {section} are called {shown(label)}; give each a `label`")
        found[label] = entry
    return tuple(found.items())


def _default_label(section: str, given: Mapping[str, Located]) -> Any:
    if not given:
        return "none"
    if section == "data":
        return (
            "toy" if "toy" in given else (given.get("path") or given.get("train") or next(iter(given.values()))).value
        )
    if section == "defence":
        section, part = next((name, part) for name, part in given.items() if name != "label")
        return _default_label(section, part.value) if isinstance(part.value, dict) else part.value
    name = given.get(NAMED_BY.get(section, ""))
    if name is not None and isinstance(name.value, dict):
        name = name.value.get("objective")
    return section if name is None else name.value


def _label(value: Any) -> Label:
    if isinstance(value, bool) or value is None:
        return {True: "yes", False: "no", None: "none"}[value]
    if isinstance(value, list):
        return ", ".join(str(_label(entry)) for entry in value)
    return value if isinstance(value, str | int | float) else str(value)


def _together(given: Mapping[str, Located], axes: Sequence[Axis]) -> tuple[str, ...]:
    """`together`: names of axes with as many entries each."""
    if "together" not in given:
        return ()
    node, sizes = given["together"], {axis.name: len(axis.entries) for axis in axes}
    names = node.words("together")
    for name in names:
        if name not in sizes:
            node.fail(f"together: this experiment has no axis {name!r}; {suggestion(name, sizes)}")
    if len({sizes[name] for name in names}) > 1:
        node.fail(f"together: the axes need as many entries each, got {', '.join(f'{n} {sizes[n]}' for n in names)}")
    return names


def _pairs(node: Located | None) -> list[tuple[str, str]]:
    """`unless_equal`: lists of two paths, or one such list."""
    if node is None:
        return []
    entries = node.entries("unless_equal")
    if entries and not isinstance(entries[0].value, list):
        entries = [node]
    found = []
    for entry in entries:
        paths = entry.words("unless_equal")
        if len(paths) != 2:
            entry.fail(f"unless_equal takes two paths, got {shown(list(paths))}")
        found.append((paths[0], paths[1]))
    return found
