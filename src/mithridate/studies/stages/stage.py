"""What a stage of a study is: what it needs, does, costs and leaves, and the key by which it is known.

Equal stages have equal keys, whichever cell asks for them, so that each is done once.
"""

import json
import logging
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import fields, is_dataclass
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from mithridate.provenance import source_hash
from mithridate.sealed import DamagedFile, check_contents, content_digests, read_sealed_json, write_sealed_json

if TYPE_CHECKING:
    from mithridate.studies.store import Store

_log = logging.getLogger(__name__)

RECORD, CHECKSUMS = "stage.json", "checksums"
"""Written into a stage's folder when it is done: kind, seconds, and what its key was made from."""


class Stage:
    """A frozen dataclass whose fields are everything that decides its result; other stages among them are its inputs.

    A new kind of stage says its `kind` and how it is done (`run`); the rest has defaults.
    """

    kind: ClassVar[str]
    """The folder of its kind below `stages/`."""
    droppable: ClassVar[bool] = False
    """Whether what it leaves is deleted once no cell needs it any more."""
    work: ClassVar[str | None] = None
    """What many of them are called where an estimate by steps of training leaves them out; None: they take little."""

    def run(self, store: "Store") -> None:
        """Do it and leave the result in `store`; what it needs is there.

        Killed at any moment it is as if it had not begun, or goes on.
        """
        raise NotImplementedError

    def reads(self) -> Iterator["Stage"]:
        """The stages that whoever reads this one's result reads as well."""
        return iter(())

    def needs(self) -> Iterator["Stage"]:
        """The stages that must be done before this one."""
        return below([getattr(self, field.name) for field in fields(self)])  # type: ignore[arg-type]

    def epochs_of(self) -> Iterator["Stage"]:
        """The trainings whose models after every epoch it reads."""
        return iter(())

    def is_done(self, folder: Path, *, epochs: bool = False) -> bool:
        """Whether `folder` holds the whole result as it was written; with `epochs` the model of every epoch too."""
        return is_whole(folder)

    def drop(self, folder: Path) -> None:
        """Delete what takes room; it is made again when it is needed again."""
        remove(folder)

    def cost(self) -> float:
        """How much work it is, compared with other stages of its kind."""
        return 1.0

    def alike(self) -> list[tuple[str, ...]]:
        """Groups of stages that take as long for as much work, the narrowest first."""
        return [(self.kind,)]

    def sources(self) -> set[str]:
        """The modules that make it: its own, and those of the options it was given."""
        return {type(self).__module__, *(type(option).__module__ for option in options_in(self))}

    def conditions(self) -> dict[str, str]:
        """What decides the result besides options, inputs and source, such as how images are decoded."""
        return {}


class Keys:
    """The keys of stages, by the source as it is when each is first asked for; one of these a run."""

    def __init__(self) -> None:
        self._keys: dict[Stage, str] = {}
        self._sources: dict[tuple[str, ...], str] = {}

    def of(self, stage: Stage) -> str:
        """A hash of everything that decides the result: options, keys of inputs, conditions, source."""
        if stage not in self._keys:
            text = json.dumps([self.plain(stage, outermost=True), self.made_by(stage)], sort_keys=True)
            self._keys[stage] = blake2b(text.encode(), digest_size=12).hexdigest()
        return self._keys[stage]

    def made_by(self, stage: Stage) -> dict[str, str]:
        """What a stage's record says of how it was made: source hash and conditions."""
        modules = tuple(sorted(stage.sources()))
        if modules not in self._sources:
            self._sources[modules] = source_hash(*modules)
        return {"source": self._sources[modules], **stage.conditions()}

    def plain(self, value: Any, *, outermost: bool = False) -> Any:
        """`value` as JSON, other stages by their keys."""
        if isinstance(value, Stage) and not outermost:
            return {"is": type(value).__name__, "key": self.of(value)}
        return plain_of(value, self.plain)


def plain_of(value: Any, inner: Callable[[Any], Any] | None = None) -> Any:
    """All that decides what `value` means, as JSON; `inner` turns what it contains, by default this function.

    Options whose field says `decides: False` in its metadata are left out.
    """
    inner = inner or plain_of
    if is_dataclass(value) and not isinstance(value, type):
        deciding = [field.name for field in fields(value) if field.metadata.get("decides", True)]
        return {"is": type(value).__name__, **{name: inner(getattr(value, name)) for name in deciding}}
    if isinstance(value, tuple | list):
        return [inner(entry) for entry in value]
    return value


def stages_in(value: Any) -> Iterator[Stage]:
    """The stages that stand in a value, at any depth but not within each other."""
    if isinstance(value, Stage):
        yield value
    elif isinstance(value, tuple | list):
        for entry in value:
            yield from stages_in(entry)
    elif is_dataclass(value) and not isinstance(value, type):
        for field in fields(value):
            yield from stages_in(getattr(value, field.name))


def below(value: Any) -> Iterator[Stage]:
    """The stages that stand in a value, and those that reading them reads."""
    for stage in stages_in(value):
        yield stage
        yield from stage.reads()


def options_in(value: Any) -> Iterator[Any]:
    """The dataclasses among the options of a stage, at any depth; other stages are not gone into."""
    for field in fields(value):
        option = getattr(value, field.name)
        for entry in option if isinstance(option, tuple | list) else (option,):
            if is_dataclass(entry) and not isinstance(entry, type | Stage):
                yield entry
                yield from options_in(entry)


def write_record(folder: Path, record: dict[str, Any], parts: Iterable[str] | None = None) -> None:
    """Write down that a stage is done, with checksums of `parts` of its folder, by default of all that is in it."""
    parts = sorted(entry.name for entry in folder.iterdir()) if parts is None else parts
    sums = content_digests(folder, (part for part in parts if part != RECORD))
    write_sealed_json(folder / RECORD, {**record, CHECKSUMS: sums})


def read_stage_record(folder: Path) -> dict[str, Any]:
    """What `write_record` wrote. Raises `DamagedFile`, and `OSError`."""
    return read_sealed_json(folder / RECORD)


def is_whole(folder: Path, parts: Sequence[str] | None = None) -> bool:
    """Whether a stage is done, and `parts` of its folder, by default all that it left, are as they were written.

    What the disk damaged is said in a warning, and made again.
    """
    try:
        sums: Any = read_stage_record(folder).get(CHECKSUMS)
        check_contents(folder, sums, sums if parts is None else parts)
        return parts is None or set(parts) <= sums.keys()  # a training may have kept no epochs
    except FileNotFoundError:
        return False
    except (OSError, DamagedFile) as error:
        _log.warning("%s is damaged (%s); it is made again", folder, error)
        return False


def remove(folder: Path) -> None:
    """Delete a folder so that half of it is never found."""
    aside = folder.with_name(f".{folder.name}-gone")
    shutil.rmtree(aside, ignore_errors=True)
    if folder.is_dir():
        folder.rename(aside)
        shutil.rmtree(aside, ignore_errors=True)
