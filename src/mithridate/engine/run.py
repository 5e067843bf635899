"""Three ways to do work that outgrows one process: a function mapped over shards, a graph of stages, and what a
function gives for many items, gathered.

What a call of the first two leaves is a file (or a folder) that is whole or not there, and a call whose result is there
is not made. So a run that was killed at any moment goes on where it was, on this machine or on another one that sees
the files. `gather` is for what leaves nothing, or belongs to an output that is written as a whole: reading, checking,
copying.
"""

from collections import Counter, deque
from collections.abc import Callable, Collection, Hashable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from graphlib import TopologicalSorter
from heapq import heappop, heappush
from pathlib import Path
from typing import Any, Generic, TypeVar

from mithridate.engine.calls import KILLED, Engine, Failure, Outcome, Pool, Resources, begun
from mithridate.engine.local import InProcesses, InThisProcess
from mithridate.errors import EngineError, OutputError

S = TypeVar("S", bound=Hashable)
R = TypeVar("R")


@dataclass(frozen=True)
class Mapped(Generic[S]):
    """Of a map over shards: how many were `done` now, were `there` before, and which `failed`."""

    done: int
    there: int
    failed: tuple[Failure[S], ...]


def map_shards(
    function: Any,
    shards: Collection[S],
    *,
    out: Callable[[S], Path],
    engine: Engine = Engine(),  # noqa: B008 (frozen)
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Mapped[S]:
    """Call `function(shard, path)` for each shard whose `path = out(shard)` is not there yet.

    The function writes `path` so that it is whole or not there. It must be picklable; if it has a method `begin`, that
    is called once in each worker and gives what is called on the shards: so one model serves all shards of a worker.
    `shards` is iterated once, and nothing is kept of those that are done. Raises `EngineError` without Ray or a cluster
    where the engine names one; errors of shards are given back.
    """
    there = 0
    failed: list[Failure[S]] = []

    def to_do() -> Iterator[tuple[S, Path]]:
        nonlocal there
        for shard in shards:
            path = out(shard)
            if path.exists():
                there += 1
            else:
                yield shard, path

    items, done = to_do(), 0

    def next_item() -> tuple[S, Path] | None:
        stop = engine.max_errors is not None and len(failed) > engine.max_errors
        return None if stop else next(items, None)

    def ended(item: tuple[S, Path], outcome: Outcome) -> None:
        nonlocal done
        if outcome.error is None:
            done += 1
        else:
            failed.append(Failure(item[0], outcome.error, outcome.trace))
        progress(there + done + len(failed), len(shards))

    first = next_item()
    if first is not None:
        ahead = [first]
        with _pool(_OnShard(function), engine) as pool:
            _drive(lambda: ahead.pop() if ahead else next_item(), pool, ended, retries=engine.retries)
    return Mapped(done, there, tuple(failed))


def run_graph(
    function: Any,
    needs: Mapping[str, Collection[str]],
    *,
    engine: Engine = Engine(),  # noqa: B008 (frozen)
    resources_of: Callable[[str], Resources] | None = None,
    on_begin: Callable[[str], None] = lambda key: None,
    on_end: Callable[[str, Outcome], None] = lambda key, outcome: None,
) -> tuple[Failure[str], ...]:
    """Call `function(key)` for every key of `needs`, each after the keys it needs; of those that can begin, the first.

    Needs that are no keys count as there. What stands on a failed key is not called. `function` is as for `map_shards`;
    `resources_of` a key is by default the engine's. Gives back what failed. Raises `graphlib.CycleError`.
    """
    place = {key: number for number, key in enumerate(needs)}
    sorter = TopologicalSorter({key: [need for need in of if need in needs] for key, of in needs.items()})
    sorter.prepare()
    ready: list[tuple[int, str]] = []
    failed: list[Failure[str]] = []

    def next_key() -> str | None:
        for key in sorter.get_ready():
            heappush(ready, (place[key], key))
        if not ready or (engine.max_errors is not None and len(failed) > engine.max_errors):
            return None
        return heappop(ready)[1]

    def ended(key: str, outcome: Outcome) -> None:
        if outcome.error is None:
            sorter.done(key)
        else:
            failed.append(Failure(key, outcome.error, outcome.trace))
        on_end(key, outcome)

    if needs:
        with _pool(function, engine, resources_of or (lambda _: engine.resources)) as pool:
            _drive(next_key, pool, ended, retries=engine.retries, on_begin=on_begin)
    return tuple(failed)


def gather(
    function: Callable[[Any], R] | Any,
    items: Iterable[Any],
    *,
    engine: Engine = Engine(),  # noqa: B008 (frozen)
    progress: Callable[[int], None] = lambda done: None,
) -> list[R]:
    """What `function(item)` gives for each item, in the order of `items`, which are taken as workers come free.

    `function` is as for `map_shards`. Nothing begins after the first error, which is raised: where a worker met it and
    it is none of this package's nor the system's, as an `EngineError`.
    """
    values: dict[int, R] = {}
    failed: dict[int, Outcome] = {}
    numbered = enumerate(items)

    def next_item() -> _Numbered | None:
        found = None if failed else next(numbered, None)
        return None if found is None else _Numbered(*found)

    def ended(item: _Numbered, outcome: Outcome) -> None:
        if outcome.error is None:
            values[item.number] = outcome.value
        else:
            failed[item.number] = outcome
        progress(len(values))

    first = next_item()
    if first is not None:
        ahead = [first]
        with _pool(_OnItem(function), engine) as pool:
            _drive(lambda: ahead.pop() if ahead else next_item(), pool, ended, retries=engine.retries)
    if failed:
        outcome = failed[min(failed)]
        if outcome.fault is not None:
            raise outcome.fault
        error = EngineError(f"{outcome.error}")
        error.add_note(outcome.trace)
        raise error
    return [values[number] for number in range(len(values))]


@dataclass(frozen=True, eq=False)
class _Numbered:
    number: int
    item: Any


@dataclass(frozen=True)
class _OnItem:
    """A function of an item as a function of a numbered one."""

    function: Any

    def begin(self) -> Callable[[_Numbered], Any]:
        call: Any = begun(self.function)
        return lambda numbered: call(numbered.item)


def _drive(
    next_item: Callable[[], Any],
    pool: Pool,
    ended: Callable[[Any, Outcome], None],
    *,
    retries: int,
    on_begin: Callable[[Any], None] = lambda item: None,
) -> None:
    """Keep the pool busy until `next_item` gives None and nothing runs; a call whose worker died is made again."""
    deaths: Counter[Any] = Counter()
    again: deque[Any] = deque()
    while True:
        item = None
        while pool.free():
            item = again.popleft() if again else next_item()
            if item is None:
                break
            on_begin(item)
            pool.begin(item)
        if not pool.running() and pool.free():
            return
        for item, outcome in pool.wait():
            if outcome is None:
                deaths[item] += 1
                if deaths[item] <= retries:
                    again.append(item)
                    continue
                outcome = Outcome(KILLED)
            deaths.pop(item, None)
            ended(item, outcome)


@contextmanager
def _pool(function: Any, engine: Engine, resources_of: Callable[[str], Resources] | None = None) -> Iterator[Pool]:
    """The workers that the engine names; they end with the block."""
    pool: Pool
    if engine.ray is not None:
        from mithridate.engine.cluster import InActors, InTasks

        pool = InActors(function, engine) if resources_of is None else InTasks(function, engine, resources_of)
    elif engine.alone:
        pool = InThisProcess(function)
    else:
        pool = InProcesses(function, engine.jobs or 1, engine.threads)
    orderly = False
    try:
        yield pool
        orderly = True
    finally:
        pool.close(orderly=orderly)


@dataclass(frozen=True)
class _OnShard:
    """A function of a shard and a path as a function of one item."""

    function: Any

    def begin(self) -> Callable[[tuple[Any, Path]], None]:
        call: Any = begun(self.function)

        def on_shard(item: tuple[Any, Path]) -> None:
            shard, path = item
            try:
                call(shard, path)
            except OutputError:
                if not path.exists():  # else a worker that was taken for lost has left it meanwhile, whole
                    raise
            if not path.exists():
                raise EngineError(f"{shard} left no {path}; a function that is mapped over shards writes its path")

        return on_shard


def failed_message(failed: Iterable[Failure[Any]], of: int, what: str) -> str:
    """One sentence about shards that failed, the first few with their errors."""
    failed = list(failed)
    first = "; ".join(f"{failure.item}: {failure.error}" for failure in failed[:3])
    return f"{len(failed)} of {of} {what} failed: {first}{'; ...' if len(failed) > 3 else ''}"
