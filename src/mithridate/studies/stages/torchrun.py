"""A training of a study in several processes of this machine, one a GPU where there are GPUs, begun by torchrun."""

import os
import pickle
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING
from uuid import uuid4

from mithridate.errors import StudyError
from mithridate.plugins import SentPlugins
from mithridate.processes import Stopped, die_with_parent

if TYPE_CHECKING:
    from mithridate.studies.stages.trained_model import TrainedModel
    from mithridate.studies.store import Store


def train_in_processes(stage: "TrainedModel", store: "Store") -> int:
    """Train in `store.processes` processes; gives back the number of pairs. Raises `StudyError` where one fails."""
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=store.processes,
        run_id=uuid4().hex,
        rdzv_backend="c10d",
        rdzv_endpoint="localhost:0",
        max_restarts=0,
        start_method="spawn",
    )
    sent = pickle.dumps((SentPlugins(), stage, store.sendable()))
    try:
        with _own_signals():
            counts: dict[int, int] = elastic_launch(config, _one_of_several)(os.getpid(), sent)
    except SignalException as error:
        raise Stopped(error.sigval) from error
    except ChildFailedError as error:
        _, failure = error.get_first_failure()
        raise StudyError(f"a process of the training failed: {failure.message or failure.exitcode}") from error
    return counts[0]


@contextmanager
def _own_signals() -> Iterator[None]:
    """Signals are handled as before afterwards: torchrun takes them for itself, and does not give them back."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    named = (getattr(signal, name, None) for name in ("SIGTERM", "SIGINT", "SIGHUP", "SIGQUIT"))
    before = {number: signal.getsignal(number) for number in named if number is not None}
    try:
        yield
    finally:
        for number, handler in before.items():
            if handler is not None:  # None: not set from Python
                signal.signal(number, handler)


def _one_of_several(parent: int, sent: bytes) -> int:
    die_with_parent(parent)
    _, stage, store = pickle.loads(sent)  # noqa: S301 (from the process that began this one)
    return stage.train(store)
