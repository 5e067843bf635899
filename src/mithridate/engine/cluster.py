"""Calls on a Ray cluster: tasks for functions that hold nothing, actors for those that hold a model.

Ray places calls and tells when a worker or a node is lost. Which calls are made again `engine.run` decides, for every
kind of workers, so Ray's own retries are off.
"""

import logging
import os
import signal
import threading
from hashlib import blake2b
from typing import Any

from mithridate.engine.calls import Engine, Outcome, Packed, Resources, perform, sentence
from mithridate.errors import EngineError, reason

_AHEAD = 2  # tasks handed to Ray for each that fits: the next begins without a round trip


def connect(address: str) -> Any:
    """The module `ray`, connected to the cluster at `address`. Raises `EngineError` without either."""
    try:
        import ray
    except ImportError as error:
        raise EngineError(
            "--ray needs the package ray, which is not installed: pip install 'mithridate[ray]'"
        ) from error
    if ray.is_initialized():
        return ray
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # no telemetry
    main = threading.current_thread() is threading.main_thread()
    before = signal.getsignal(signal.SIGTERM)
    try:
        ray.init(address=address, log_to_driver=False, logging_level=logging.WARNING)
    except (ConnectionError, ValueError, RuntimeError, OSError) as error:
        raise EngineError(
            f"no Ray cluster answers at {address}: {reason(error)}; start one (ray start --head), pass its address, or "
            "leave out --ray"
        ) from error
    finally:
        if main:
            signal.signal(signal.SIGTERM, before)  # ray takes it for itself
    return ray


def room(ray: Any, resources: Resources) -> int:
    """How many calls with these resources fit the living nodes at a time, at least one."""
    fits = 0.0
    for node in ray.nodes():
        if node["Alive"]:
            has = node["Resources"]
            wanted = {"CPU": resources.cpus, "GPU": resources.gpus, "memory": resources.memory or 0}
            fits += min(has.get(name, 0) // amount for name, amount in wanted.items() if amount)
    return max(1, int(fits))


def _options(resources: Resources) -> dict[str, Any]:
    found: dict[str, Any] = {"num_cpus": resources.cpus, "num_gpus": resources.gpus}
    return found if resources.memory is None else {**found, "memory": resources.memory}


class InTasks:
    """Each call is a task, with resources of its own."""

    def __init__(self, function: Any, engine: Engine, resources_of: Any) -> None:
        self._ray = connect(engine.ray or "auto")
        self._limit = engine.jobs or _AHEAD * room(self._ray, engine.resources)
        self._resources_of = resources_of
        packed = Packed.of(function, engine.threads)
        self._digest = blake2b(packed.content, digest_size=16).hexdigest()
        self._packed = self._ray.put(packed)
        self._task = self._ray.remote(_task)
        self._running: dict[Any, Any] = {}

    def free(self) -> bool:
        return len(self._running) < self._limit

    def running(self) -> int:
        return len(self._running)

    def begin(self, item: Any) -> None:
        options = _options(self._resources_of(item))
        self._running[self._task.options(max_retries=0, **options).remote(self._digest, self._packed, item)] = item

    def wait(self) -> list[tuple[Any, Outcome | None]]:
        ready, _ = self._ray.wait(list(self._running), num_returns=1)
        return [(self._running.pop(ref), outcome_of(self._ray, ref)) for ref in ready]

    def close(self, *, orderly: bool) -> None:
        for ref in self._running:
            self._ray.cancel(ref, force=True)


class InActors:
    """Each worker is an actor, which begins the function once and keeps what that loaded.

    Calls go to actors that have started: one that finds no room on a cluster that has lost a node delays nothing.
    """

    def __init__(self, function: Any, engine: Engine) -> None:
        self._ray = connect(engine.ray or "auto")
        self._packed = self._ray.put(Packed.of(function, engine.threads))
        self._actor = self._ray.remote(_Actor).options(max_restarts=0, max_task_retries=0, **_options(engine.resources))
        self._idle: list[Any] = []
        self._starting: dict[Any, Any] = {}
        self._running: dict[Any, tuple[Any, Any]] = {}
        self._failures, self._most = 0, 3
        for _ in range(engine.jobs or room(self._ray, engine.resources)):
            self._start()

    def _start(self) -> None:
        actor = self._actor.remote(self._packed)
        self._starting[actor.started.remote()] = actor

    def free(self) -> bool:
        return bool(self._idle)

    def running(self) -> int:
        return len(self._running)

    def begin(self, item: Any) -> None:
        actor = self._idle.pop()
        self._running[actor.call.remote(item)] = (actor, item)

    def wait(self) -> list[tuple[Any, Outcome | None]]:
        ready, _ = self._ray.wait([*self._running, *self._starting], num_returns=1)
        ended: list[tuple[Any, Outcome | None]] = []
        for ref in ready:
            if ref in self._starting:
                self._started(ref)
                continue
            actor, item = self._running.pop(ref)
            outcome = outcome_of(self._ray, ref)
            ended.append((item, outcome))
            if outcome is None:
                self._start()
            else:
                self._idle.append(actor)
        return ended

    def _started(self, ref: Any) -> None:
        actor = self._starting.pop(ref)
        try:
            self._ray.get(ref)
        except self._ray.exceptions.RayError as error:
            self._failures += 1
            if self._failures > self._most:
                raise EngineError(f"no worker starts on the Ray cluster: {reason(error)}") from error
            self._start()
        else:
            self._failures = 0
            self._idle.append(actor)

    def close(self, *, orderly: bool) -> None:
        for actor in (*self._idle, *self._starting.values(), *(actor for actor, _ in self._running.values())):
            self._ray.kill(actor)


def outcome_of(ray: Any, ref: Any) -> Outcome | None:
    """What came of a call; None where its worker or its node was lost."""
    try:
        return ray.get(ref)
    except ray.exceptions.RayTaskError as error:  # before or behind the function: what is sent does not unpickle
        return Outcome(sentence(error), str(error))
    except ray.exceptions.RayError:
        return None


# --- on the cluster -------------------------------------------------------------------------------------


_begun: dict[str, Any] = {}  # the function that this worker called last, by its content


def _task(digest: str, packed: Packed, item: Any) -> Outcome:
    def call(item: Any) -> Any:
        if digest not in _begun:
            _begun.clear()
            _begun[digest] = packed.unpack()
        return _begun[digest](item)

    return perform(call, item)


class _Actor:
    def __init__(self, packed: Packed) -> None:
        self._packed, self._function = packed, None

    def started(self) -> None:
        pass

    def call(self, item: Any) -> Outcome:
        def first(item: Any) -> Any:
            self._function = self._function or self._packed.unpack()
            return self._function(item)

        return perform(first, item)
