"""Methods from outside the package: a Python file that the user names, or an installed package.

A plugin is a module with one or more of the dicts that `KINDS` names, from name to class. Once it
is loaded its classes stand in the registries beside the built-in ones, for every command and every study. It is code:
it runs with the rights of whoever names it. Installed packages are found by the entry point group `mithridate.plugins`.
"""

import dataclasses
import importlib
import sys
from collections.abc import Iterable, Mapping
from dataclasses import MISSING, dataclass
from hashlib import blake2b
from importlib.abc import InspectLoader
from importlib.machinery import ModuleSpec
from importlib.metadata import entry_points
from importlib.util import module_from_spec
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any

from mithridate.errors import PluginError

GROUP = "mithridate.plugins"


@dataclass(frozen=True)
class PluginKind:
    """What a plugin may export: the registry that takes it, and what each of its classes must have."""

    noun: str
    registry: str
    members: tuple[str, ...]
    defaults: bool = False  # whether every option needs one


KINDS = {
    "ATTACKS": PluginKind(
        "attack", "mithridate.poisoning.registry", ("name", "needs_gallery", "needs_surrogate", "plan")
    ),
    "OBJECTIVES": PluginKind("objective", "mithridate.training.registry", ("build",), defaults=True),
    "DETECTORS": PluginKind(
        "detector", "mithridate.auditing.registry", ("name", "measures", "own_level", "needs", "examine")
    ),
    "PROBES": PluginKind(
        "probe",
        "mithridate.inspection.registry",
        ("name", "kinds", "needs_start", "margin", "examine"),
        defaults=True,
    ),
    "REPAIRS": PluginKind(
        "repair",
        "mithridate.repairing.registry",
        ("name", "needs_start", "needs_findings", "candidates"),
        defaults=True,
    ),
}
"""By the name of the dict. The registries are imported when something is added to them, and no earlier."""

_loaded: dict[str, Path] = {}  # file of each plugin, by the name of its module
_owner: dict[tuple[str, str], Path] = {}  # (registry, name) -> the plugin that it is of


def load_plugins(paths: Iterable[Path | str]) -> None:
    """Import each file and add what it exports to the registries; a file that is loaded already stays as it is.

    Raises `PluginError` where a file is not there, does not import, exports nothing, takes the name of something else,
    or exports a class that lacks what its kind needs; then nothing of that file is added.
    """
    for path in paths:
        _load(Path(path).absolute())


def load_installed_plugins() -> None:
    """Import the modules that installed packages name as entry points of the group `mithridate.plugins`."""
    for point in entry_points(group=GROUP):
        try:
            module = importlib.import_module(point.value)
        except Exception as error:
            raise PluginError(f"the installed plugin {point.name} ({point.value}) does not import: {error}") from error
        _add(exports(module, point.value), Path(module.__file__ or point.value))


def plugin_files() -> dict[str, Path]:
    """The files that were loaded, by the names of their modules, which hold a hash of their source."""
    return dict(_loaded)


def plugged(kind: str) -> list[str]:
    """The names that plugins added to a registry: a key of `KINDS`."""
    return [name for registry, name in _owner if registry == kind]


def loaded_module(path: Path | str) -> ModuleType:
    """The module of a file that was loaded. Raises `StopIteration` for another."""
    return sys.modules[next(name for name, file in _loaded.items() if file == Path(path).absolute())]


class SentPlugins:
    """The loaded plugins on their way to another process: to unpickle it there loads them.

    It stands before everything else that is sent, so that values of plugins' classes can be unpickled behind it.
    """

    def __reduce__(self) -> tuple[Any, ...]:
        return _load_again, (plugin_files(),)


def _load_again(files: Mapping[str, Path]) -> SentPlugins:
    for name, path in files.items():
        if _load(path) != name:
            raise PluginError(f"{path} was changed since it was loaded; start the command again")
    return SentPlugins()


def _load(path: Path) -> str:
    """Import a file and add what it exports; gives back the name of its module."""
    if not path.is_file() or path.suffix != ".py":
        missing = "" if path.exists() else ", which does not exist"
        raise PluginError(f"expected a Python file (.py) as plugin, got {path}{missing}")
    source = path.read_bytes()
    # the same source has the same name in every process and folder, and other source another
    name = f"mithridate_plugin_{path.stem}_{blake2b(source, digest_size=8).hexdigest()}"
    if name in _loaded:
        return name
    spec = ModuleSpec(name, _Source(path, source), origin=str(path))
    spec.has_location = True
    module = module_from_spec(spec)
    sys.modules[name] = module  # where classes are pickled by name, and their docstrings are read
    try:
        spec.loader.exec_module(module)  # type: ignore[union-attr]
        _add(exports(module, str(path)), path)
    except PluginError:
        del sys.modules[name]
        raise
    except (Exception, SystemExit) as error:
        del sys.modules[name]
        raise PluginError(f"the plugin {path} does not import: {type(error).__name__}: {error}") from error
    _forget(path)
    _loaded[name] = path
    return name


def _forget(path: Path) -> None:
    """An earlier version of a file is loaded no longer."""
    for name in [name for name, file in _loaded.items() if file == path]:
        del _loaded[name]


class _Source(InspectLoader):
    """Runs the source as it was read: no bytecode is kept beside it, which could be of an earlier version."""

    def __init__(self, path: Path, source: bytes) -> None:
        self._path, self._source = path, source

    def get_source(self, fullname: str) -> str:
        return self._source.decode()

    def get_code(self, fullname: str) -> CodeType:
        return self.source_to_code(self._source, str(self._path))


def exports(module: ModuleType, where: str) -> dict[str, dict[str, type]]:
    """What a module exports, by dict and name, each class checked. Raises `PluginError`; `where` is named in it."""
    found = {kind: value for kind in KINDS if (value := vars(module).get(kind)) is not None}
    if not found:
        raise PluginError(f"the plugin {where} exports nothing: expected one of the dicts {', '.join(KINDS)}")
    for kind, classes in found.items():
        if not isinstance(classes, dict) or not classes:
            raise PluginError(f"{kind} of the plugin {where} should be a dict from name to class, got {classes!r:.60}")
        for name, cls in classes.items():
            wrong = _what_is_wrong(name, cls, KINDS[kind])
            if wrong is not None:
                raise PluginError(f"{kind}[{name!r}] of the plugin {where} {wrong}")
    return found


def _what_is_wrong(name: Any, cls: Any, kind: PluginKind) -> str | None:
    if not isinstance(name, str) or not name or not name.replace("-", "").isalnum():
        return "should have a name of letters, digits and hyphens"
    if not isinstance(cls, type) or not dataclasses.is_dataclass(cls):
        return f"should be a dataclass, got {cls!r:.60}"
    if not cls.__dataclass_params__.frozen:  # type: ignore[attr-defined]
        return "should be frozen: @dataclass(frozen=True, kw_only=True)"
    options = [field.name for field in dataclasses.fields(cls)]
    missing = [member for member in kind.members if not hasattr(cls, member) and member not in options]
    if missing:
        return f"lacks {' and '.join(missing)}; every {kind.noun} has {', '.join(kind.members)}"
    if "name" in kind.members and getattr(cls, "name", None) != name:
        return f"is called {getattr(cls, 'name', None)!r} by its class; the two names must be equal"
    bare = [f.name for f in dataclasses.fields(cls) if f.default is f.default_factory is MISSING]
    if kind.defaults and bare:
        return f"has no default for {' and '.join(bare)}; all options of such a class have one"
    return None


def _add(found: Mapping[str, Mapping[str, type]], path: Path) -> None:
    """Put classes into their registries, all of them or none."""
    for kind, classes in found.items():
        for name, cls in classes.items():
            known = _registry(kind).get(name)
            # a file that was edited takes the place of its former self
            if known is not None and known is not cls and _owner.get((kind, name)) != path:
                raise PluginError(
                    f"the plugin {path} adds the {KINDS[kind].noun} {name!r}, and there is one of this name already; "
                    "choose another"
                )
    for kind, name in [entry for entry, file in _owner.items() if file == path]:
        _registry(kind).pop(name)  # of its former self
        del _owner[kind, name]
    for kind, classes in found.items():
        for name, cls in classes.items():
            _registry(kind)[name] = cls
            _owner[kind, name] = path


def _registry(kind: str) -> dict[str, type]:
    return getattr(importlib.import_module(KINDS[kind].registry), kind)
