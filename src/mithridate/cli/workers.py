"""Options of commands whose work the engine shares out."""

from dataclasses import dataclass

from mithridate.engine.calls import Engine, Resources
from mithridate.errors import MithridateError


@dataclass(frozen=True)
class WorkerOptions:
    """Where the work is done."""

    jobs: int | None = None
    """Processes that work side by side, each with its share of the cores; with --ray as many as fit, else 1."""
    ray: str | None = None
    """Work on the Ray cluster at this address (auto: the one of this machine)."""
    cpus: float = 1.0
    """CPUs of each task on the cluster."""
    memory: float | None = None
    """GiB of memory of each task on the cluster."""

    @property
    def engine(self) -> Engine:
        """Raises `MithridateError` for an option that has no use."""
        gpus = getattr(self, "gpus", 0.0)
        if self.ray is None and (self.cpus, gpus, self.memory) != (1.0, 0.0, None):
            raise MithridateError("--cpus, --gpus and --memory are of tasks on a Ray cluster; pass --ray ADDRESS too")
        memory = None if self.memory is None else int(self.memory * 2**30)
        resources = Resources(cpus=self.cpus, gpus=gpus, memory=memory)
        return Engine(jobs=self.jobs, ray=self.ray, resources=resources, max_errors=getattr(self, "max_errors", None))

    def refuse_idle(self, useful: bool, why: str) -> None:
        """Raise `MithridateError` where options are given and the engine has nothing to do."""
        if not useful and not self.engine.alone:
            raise MithridateError(f"{why}, so --jobs and --ray have no use; leave them out")


@dataclass(frozen=True)
class ModelWorkerOptions(WorkerOptions):
    """Where models are run."""

    gpus: float = 0.0
    """GPUs of each task that runs a model on the cluster."""


@dataclass(frozen=True)
class EngineOptions(ModelWorkerOptions):
    """Where parts are made, of which some may fail."""

    max_errors: int | None = None
    """Begin nothing more once more than so many parts have failed; by default the others go on."""
