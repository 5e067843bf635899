"""Calls on this machine: in this process, or in processes of `concurrent.futures`, which die with this one."""

import multiprocessing
import os
import signal
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from typing import Any

from mithridate.engine.calls import Outcome, Packed, begun, perform
from mithridate.processes import Stopped, die_with_parent, stoppable
from mithridate.threads import threads_of_children

_PATIENCE = 3.0  # seconds that a process has to end in order


class InThisProcess:
    """One call at a time, here: made when it begins."""

    def __init__(self, function: Any) -> None:
        self._function, self._begun = function, None
        self._ended: list[tuple[Any, Outcome | None]] = []

    def free(self) -> bool:
        return not self._ended

    def running(self) -> int:
        return len(self._ended)

    def begin(self, item: Any) -> None:
        self._begun = self._begun or begun(self._function)
        self._ended.append((item, perform(self._begun, item)))

    def wait(self) -> list[tuple[Any, Outcome | None]]:
        ended, self._ended = self._ended, []
        return ended

    def close(self, *, orderly: bool) -> None:
        pass


class InProcesses:
    """Up to `jobs` calls at a time, each in a process that is kept for the next one.

    An executor of one process each: when a process is killed the others go on, and it is known which call it was at.
    """

    def __init__(self, function: Any, jobs: int, threads: int) -> None:
        self._jobs, self._threads, self._packed = jobs, threads, Packed.of(function, threads)
        self._context = multiprocessing.get_context("spawn")  # torch's threads do not outlive a fork
        self._idle: list[ProcessPoolExecutor] = []
        self._running: dict[Future[Outcome], tuple[ProcessPoolExecutor, Any]] = {}

    def free(self) -> bool:
        return len(self._running) < self._jobs

    def running(self) -> int:
        return len(self._running)

    def begin(self, item: Any) -> None:
        while True:
            executor = self._idle.pop() if self._idle else self._new()
            try:
                with threads_of_children(self._threads):  # a new process begins here
                    self._running[executor.submit(_call, item)] = (executor, item)
                return
            except BrokenProcessPool:  # killed while it had nothing to do
                executor.shutdown(wait=False)

    def _new(self) -> ProcessPoolExecutor:
        return ProcessPoolExecutor(1, self._context, _prepare, (os.getpid(), self._packed))

    def wait(self) -> list[tuple[Any, Outcome | None]]:
        done, _ = wait(self._running, return_when=FIRST_COMPLETED)
        ended: list[tuple[Any, Outcome | None]] = []
        for future in done:
            executor, item = self._running.pop(future)
            try:
                ended.append((item, future.result()))
                self._idle.append(executor)
            except BrokenProcessPool:
                executor.shutdown(wait=False)
                ended.append((item, None))
        return ended

    def close(self, *, orderly: bool) -> None:
        executors = [*self._idle, *(executor for executor, _ in self._running.values())]
        if not orderly:
            # ProcessPoolExecutor.terminate_workers comes with Python 3.14
            processes = [process for executor in executors for process in (executor._processes or {}).values()]
            for process in processes:
                process.terminate()  # it takes away what it has half-written
            for process in processes:
                process.join(_PATIENCE)
                if process.is_alive():
                    process.kill()
        for executor in executors:
            executor.shutdown(wait=True, cancel_futures=True)


# --- in the worker --------------------------------------------------------------------------------------


_worker: dict[str, Any] = {}


def _prepare(parent: int, packed: Packed) -> None:
    """The first that runs in a worker; what is heavy to import is unpickled later."""
    die_with_parent(parent)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # ^C goes to the whole group: the parent says when to stop
    _worker["packed"] = packed


def _call(item: Any) -> Outcome:
    try:
        with stoppable():
            return perform(_in_worker, item)
    except Stopped as stopped:
        os._exit(stopped.code)


def _in_worker(item: Any) -> Any:
    if "function" not in _worker:
        _worker["function"] = _worker["packed"].unpack()
    return _worker["function"](item)
