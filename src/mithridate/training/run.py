"""A training run's folder: what it is, how far it came, what it measured, and the model at its end."""

import importlib.util
import json
import logging
import pickle
import platform
import shutil
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn

from mithridate.data.pairs import Pairs
from mithridate.disk import GO_ON, output_error
from mithridate.encoder.encoder import CONFIG, Encoder, save_encoder, weights_fingerprint
from mithridate.errors import DataError, OutputError
from mithridate.folders import AlreadyDone, new_folder, refuse_existing, write_atomically
from mithridate.sealed import (
    DamagedFile,
    read_sealed,
    read_sealed_json,
    write_sealed,
    write_sealed_json,
)
from mithridate.training.config import TrainConfig
from mithridate.training.objective import Objective
from mithridate.version import __version__

RUN, STATE, METRICS, MODEL = "run.json", "state.pt", "metrics.jsonl", "model"

_log = logging.getLogger(__name__)

# what may differ between a run and its continuation
_FREE = {option.name for option in fields(TrainConfig) if not option.metadata.get("decides", True)}


def epoch_folder(run: Path, epoch: int) -> Path:
    """Where the run in the folder `run` keeps the model as it is after `epoch` epochs (1-based)."""
    return run / "epochs" / f"{epoch:03d}"


@dataclass
class Run:
    """`folder` None keeps nothing. `record` is what decides the result: a state is only taken up by the same run."""

    folder: Path | None
    record: dict[str, Any]
    _board: Any = field(default=None, repr=False)

    @classmethod
    def open(
        cls,
        out: Path | None,
        encoder: Encoder,
        pairs: Pairs,
        objective: Objective,
        config: TrainConfig,
        *,
        overwrite: bool,
        extra: dict[str, Any] | None = None,
    ) -> "Run":
        """Start a run in `out`, or go on with the same one. Raises `OutputError` where `out` holds another.

        `extra`: what else decides the result.
        """
        record = {
            "encoder": encoder.name,
            "weights": weights_fingerprint(encoder.model),
            "data": pairs.fingerprint,
            "pairs": len(pairs),
            "objective": {"name": type(objective).__name__, **asdict(cast(Any, objective))},
            "config": asdict(config),
            **(extra or {}),
            "machine": {"threads": torch.get_num_threads()},
            "versions": {
                "mithridate": __version__,
                "torch": torch.__version__,
                "python": platform.python_version(),
            },
        }
        record = json.loads(json.dumps(record))  # tuples become lists, as they will be when read back
        if out is None:
            return cls(None, record)
        folder = Path(out)
        if (folder / RUN).is_file() and not overwrite:
            record["machine"] = _refuse_other(folder, record).get("machine")  # it goes on with as many threads
        elif folder.exists():
            refuse_existing(folder, overwrite=overwrite)
            shutil.rmtree(folder)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            write_sealed_json(folder / RUN, record)
        except OSError as error:
            raise output_error(folder, error) from error
        return cls(folder, record)

    def restore(self, model: nn.Module, loss: nn.Module, optimizer: torch.optim.Optimizer) -> int:
        """Take up the last state; gives back the step to go on with, 0 where there is none.

        A state that the disk has damaged is not taken up: training begins anew, with a warning, and ends in the same
        weights. Raises `OutputError` where a whole state is not of this model.
        """
        if self.folder is None:
            return 0
        state = self._state()
        if state is None:
            (self.folder / METRICS).unlink(missing_ok=True)
            return 0
        try:
            model.load_state_dict(state["model"])
            loss.load_state_dict(state["objective"])
            optimizer.load_state_dict(state["optimizer"])
            torch.set_rng_state(state["rng"])
            # sums are split over threads, and round otherwise with another number
            if state["threads"] != torch.get_num_threads():
                _log.warning("%s was begun with %s threads, and goes on with as many", self.folder, state["threads"])
                torch.set_num_threads(state["threads"])
        except (KeyError, TypeError, ValueError, RuntimeError, AttributeError) as error:
            raise OutputError(
                f"{self.folder / STATE} is no state of this training; delete it, and the training begins anew"
            ) from error
        lines: list[str] = []
        if state["step"] and (self.folder / METRICS).is_file():
            lines = (self.folder / METRICS).read_text(encoding="utf-8", errors="replace").splitlines()
        kept = [line for line in lines if _step_of(line) < state["step"]]
        write_atomically(self.folder / METRICS, "".join(f"{line}\n" for line in kept))
        return int(state["step"])

    def _state(self) -> dict[str, Any] | None:
        assert self.folder is not None
        path = self.folder / STATE
        try:
            return torch.load(read_sealed(path), map_location="cpu", weights_only=True)
        except FileNotFoundError:
            return None
        except (DamagedFile, pickle.UnpicklingError, RuntimeError) as error:
            _log.warning("%s is damaged (%s); the training begins anew", path, error)
            return None

    def save(self, step: int, model: nn.Module, loss: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        """Write the state after `step` steps; a kill leaves the state before or this one."""
        if self.folder is None:
            return
        state = {
            "step": step,
            "model": model.state_dict(),
            "objective": loss.state_dict(),
            "optimizer": optimizer.state_dict(),
            "rng": torch.get_rng_state(),
            "threads": torch.get_num_threads(),
        }
        try:
            write_sealed(self.folder / STATE, lambda file: torch.save(state, file))
        except OSError as error:
            raise output_error(self.folder, error, then=GO_ON) from error

    def log(self, steps: list[tuple[int, float, float]], *, per_epoch: int, speed: float) -> None:
        """Append (step, lr, loss) lines to the metrics, and to TensorBoard where it is installed."""
        if self.folder is None:
            return
        if self._board is None:
            self._board = _tensorboard(self.folder)
        try:
            with (self.folder / METRICS).open("a", encoding="utf-8") as file:
                for step, lr, loss in steps:
                    row = {
                        "step": step,
                        "epoch": step // per_epoch,
                        "lr": lr,
                        "loss": loss,
                        "pairs_per_s": speed,
                    }
                    file.write(json.dumps(row) + "\n")
        except OSError as error:
            raise output_error(self.folder, error, then=GO_ON) from error
        if self._board:
            for step, lr, loss in steps:
                self._board.add_scalar("loss", loss, step)
                self._board.add_scalar("lr", lr, step)

    def save_epoch(self, encoder: Encoder, epoch: int) -> None:
        """Keep the model as it is after `epoch` epochs (1-based)."""
        if self.folder is not None:
            location = epoch_folder(self.folder, epoch)
            with new_folder(location, overwrite=True) as folder:
                save_encoder(encoder, folder, location=location)

    def finish(self, encoder: Encoder) -> None:
        """Write the final model and drop the state."""
        if self.folder is None:
            return
        scratch = (self.folder / STATE,)
        with new_folder(self.folder / MODEL, overwrite=True, completes=self.folder, scratch=scratch) as folder:
            save_encoder(encoder, folder, location=self.folder / MODEL)
        if self._board:
            self._board.close()


def read_run(folder: Path) -> dict[str, Any] | None:
    """The record of the run in `folder`; None where it holds none. Raises `DataError` where it is damaged."""
    path = Path(folder) / RUN
    try:
        record = read_sealed_json(path, required=False)
        for name in ("config", "objective", "versions"):
            if not isinstance(record.get(name, {}), dict):
                raise DamagedFile(f"{name} should be an object")
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError) as error:
        raise DataError(f"{path} is damaged: {error}; delete it, or train again") from error
    return record


def _refuse_other(folder: Path, record: dict[str, Any]) -> dict[str, Any]:
    """The record of the unfinished run in `folder`.

    Raises `OutputError` where it is another, or finished, and then `AlreadyDone` where it is the same.
    """
    there = read_run(folder) or {}
    if (folder / MODEL / CONFIG).is_file() and not (folder / STATE).is_file():
        refusal = AlreadyDone if _deciding(there) == _deciding(record) else OutputError
        what = "a finished run of this very command" if refusal is AlreadyDone else "a finished run"
        raise refusal(f"{folder} holds {what}; choose another --out, or give --overwrite to replace it")
    for name, value in _deciding(record).items():
        if _deciding(there).get(name) != value:
            raise OutputError(
                f"{folder} holds an unfinished run whose {name} is {_deciding(there).get(name)}, not {value}; go on "
                "with the same, choose another --out, or give --overwrite to replace it"
            )
    return there


def _deciding(record: dict[str, Any]) -> dict[str, Any]:
    config = {f"config.{k}": v for k, v in record.get("config", {}).items() if k not in _FREE}
    return {k: v for k, v in record.items() if k not in ("config", "versions", "machine")} | config


def _step_of(line: str) -> int:
    try:
        return int(json.loads(line)["step"])
    except (ValueError, KeyError):  # the line a kill cut short
        return 2**62


def _tensorboard(folder: Path) -> Any:
    if importlib.util.find_spec("tensorboard") is None:
        return False
    from torch.utils.tensorboard import SummaryWriter

    return SummaryWriter(str(folder / "tensorboard"))
