"""What the engine's parts share: where work is done, a function on its way to workers, what came of a call."""

import os
import pickle
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Generic, Protocol, TypeVar

from mithridate.errors import EngineError, MithridateError
from mithridate.plugins import SentPlugins
from mithridate.threads import thread_count, use_threads

T = TypeVar("T")

KILLED = "a worker was killed running it (out of memory?)"


@dataclass(frozen=True, kw_only=True)
class Resources:
    """What one call occupies on a Ray cluster; `memory` in bytes. This machine's processes do without."""

    cpus: float = 1.0
    gpus: float = 0.0
    memory: int | None = None

    def __post_init__(self) -> None:
        if self.cpus <= 0 or self.gpus < 0 or (self.memory is not None and self.memory <= 0):
            raise EngineError(f"a call needs more than 0 cpus and memory, and no less than 0 gpus, got {self}")


@dataclass(frozen=True, kw_only=True)
class Engine:
    """Where work is done: in `jobs` processes of this machine (1: in this process), or on the Ray cluster at `ray`.

    On Ray None `jobs` are as many as there is room for. `max_errors`: once more calls have failed no further one
    begins; None goes on whatever fails. A call whose worker was killed is made again `retries` times.
    """

    jobs: int | None = None
    ray: str | None = None
    resources: Resources = field(default_factory=Resources)
    max_errors: int | None = None
    retries: int = 3

    def __post_init__(self) -> None:
        if self.jobs is not None and self.jobs < 1:
            raise EngineError(f"jobs must be at least 1, got {self.jobs}")
        if self.max_errors is not None and self.max_errors < 0:
            raise EngineError(f"max_errors must be at least 0, got {self.max_errors}")

    @property
    def alone(self) -> bool:
        """Whether all is done in this process."""
        return self.ray is None and self.jobs in (None, 1)

    @property
    def threads(self) -> int:
        """Threads of each call."""
        if self.ray is not None:
            return max(1, int(self.resources.cpus))
        return max(1, thread_count() // (self.jobs or 1))


@dataclass(frozen=True)
class Outcome:
    """What came of a call: `error` is None where it was done, and `value` what it gave. `pid` of its process.

    `fault`: the error itself; from another process only where it is one of ours or the system's.
    """

    error: str | None = None
    trace: str = ""
    seconds: float = 0.0
    pid: int = 0
    value: Any = None
    fault: Exception | None = None

    def __getstate__(self) -> dict[str, Any]:
        plain = type(self.fault).__module__ in ("builtins", "mithridate.errors")
        sent = plain and isinstance(self.fault, MithridateError | OSError)
        return {**self.__dict__, "fault": self.fault if sent else None}


@dataclass(frozen=True)
class Failure(Generic[T]):
    """An item whose call failed, with the error in a sentence and its traceback."""

    item: T
    error: str
    trace: str = ""


class Pool(Protocol):
    """Workers that call one function on items, several at a time."""

    def free(self) -> bool:
        """Whether a call can begin now."""
        ...

    def running(self) -> int:
        """How many calls have begun and not been given back by `wait`."""
        ...

    def begin(self, item: Any) -> None:
        """Begin a call; only where `free`."""
        ...

    def wait(self) -> list[tuple[Any, Outcome | None]]:
        """Wait until something has changed; the items whose calls have ended, None for one whose worker was killed."""
        ...

    def close(self, *, orderly: bool) -> None:
        """End the workers, in the middle of their calls unless `orderly`."""
        ...


def begun(function: Any) -> Callable[[Any], Any]:
    """What a worker calls on each item: what `function.begin()` gives, called once a worker, else the function."""
    begin = getattr(function, "begin", None)
    return function if begin is None else begin()


def perform(function: Callable[[Any], Any], item: Any) -> Outcome:
    """Call `function` on an item; an error becomes part of what is given back."""
    begin = time.perf_counter()
    try:
        value = function(item)
    except Exception as error:
        return Outcome(sentence(error), "".join(traceback.format_exception(error)), pid=os.getpid(), fault=error)
    return Outcome(seconds=time.perf_counter() - begin, pid=os.getpid(), value=value)


def sentence(error: Exception) -> str:
    """An error in one sentence."""
    return str(error) if isinstance(error, MithridateError) else f"{type(error).__name__}: {error}"


@dataclass(frozen=True)
class Packed:
    """A function on its way to a worker: pickled behind the plugins it may need, with the driver's folder, settings
    (environment variables of this package) and the number of threads."""

    content: bytes
    folder: str
    settings: tuple[tuple[str, str], ...]
    threads: int

    @classmethod
    def of(cls, function: Any, threads: int) -> "Packed":
        settings = {name: value for name, value in os.environ.items() if name.startswith("MITHRIDATE_")}
        return cls(pickle.dumps((SentPlugins(), function)), os.getcwd(), tuple(settings.items()), threads)  # noqa: PTH109

    def unpack(self) -> Callable[[Any], Any]:
        """In the worker: what it calls on each item."""
        os.environ.update(self.settings)
        os.chdir(self.folder)
        use_threads(self.threads)
        return begun(pickle.loads(self.content)[1])  # noqa: S301 (from the process that began this one)
