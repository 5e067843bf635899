"""What lies outside a study and decides its results: fingerprints of data that are read and of encoders' weights."""

import difflib
import logging
from dataclasses import replace
from pathlib import Path

from mithridate.data.jpeg import decoding
from mithridate.encoder.encoder import load_encoder, weights_fingerprint
from mithridate.errors import StudyError
from mithridate.provenance import source_hash
from mithridate.sealed import DamagedFile, read_sealed_json, write_sealed_json
from mithridate.studies.plan import InputFingerprints, input_name, inputs_of
from mithridate.studies.record import open_folder, refuse_other
from mithridate.studies.spec.build import classes_of
from mithridate.studies.spec.data import DataSpec
from mithridate.studies.spec.study import Cell, Study
from mithridate.studies.stages.clean_pairs import read_data
from mithridate.studies.stages.stage import options_in
from mithridate.threads import thread_count
from mithridate.training.loop import training_precision

FINGERPRINTS = "inputs.json"

_log = logging.getLogger(__name__)


def begin_folder(
    study: Study,
    out: Path,
    *,
    text: str | None,
    data: str | None,
    processes: int = 1,
    keep_models: bool = False,
) -> InputFingerprints:
    """Open `out` for `study` once all that it needs from outside has been read: else nothing is written."""
    refuse_other(study, Path(out))
    fingerprints = fingerprint_inputs(study)
    made_by = how_made(study, processes=processes)
    open_folder(study, out, text=text, data=data, made_by=made_by, keep_models=keep_models)
    _keep(fingerprints, out)
    return fingerprints


def how_made(study: Study, *, processes: int) -> dict[str, str | int]:
    """What a study's record says of how its results are made: source, decoding, precision, processes, threads."""
    options = {type(option).__module__ for cell in study.cells for option in options_in(cell)}
    return {
        "source": source_hash("mithridate.studies.plan", *options),
        "decoding": decoding(),
        "precision": ", ".join(sorted({training_precision(cell.train) for cell in study.cells})),
        "processes": processes,
        "threads": max(1, thread_count() // processes),
    }


def fingerprint_inputs(study: Study) -> InputFingerprints:
    """Read what `study` needs from outside; nothing is written.

    Raises what reading raises, and `StudyError` where an attack names a class that the data do not have.
    """
    parts, starts = inputs_of(study.cells)
    known: dict[str, str] = {}
    classes: dict[tuple[DataSpec, str], list[str]] = {}
    for data, part in parts:
        pairs = read_data(data, part)
        known[input_name(data, part)] = pairs.fingerprint
        classes[data, part] = list(pairs.classes)
        del pairs
    for start in starts:
        encoder = load_encoder(start.encoder, pretrained=start.pretrained)
        known[input_name(start)] = weights_fingerprint(encoder.model)
    for cell in study.cells:
        _refuse_unknown_classes(cell, classes)
    return InputFingerprints(known)


def _keep(fingerprints: InputFingerprints, out: Path) -> None:
    """Write down in the study's folder `out` what it goes by, beside what is there already."""
    path = Path(out) / FINGERPRINTS
    before: dict[str, str] | None = None
    try:
        before = dict(read_fingerprints(out).known) if path.is_file() else None
    except StudyError:  # those of this study are known anew
        _log.warning("%s is damaged; it is made again", path)
    after = {**(before or {}), **fingerprints.known}
    if after != before:
        write_sealed_json(path, after)


def read_fingerprints(out: Path) -> InputFingerprints:
    """The fingerprints that a study in `out` went by. Raises `StudyError` where the disk has damaged them."""
    path = Path(out) / FINGERPRINTS
    try:
        known = read_sealed_json(path)
        if not all(isinstance(value, str) for value in known.values()):
            raise DamagedFile("every fingerprint should be text")
    except FileNotFoundError:
        return InputFingerprints({})
    except DamagedFile as error:
        raise StudyError(f"{path} is damaged: {error}; run the study again, which makes it again") from error
    return InputFingerprints(known)


def _refuse_unknown_classes(cell: Cell, classes: dict[tuple[DataSpec, str], list[str]]) -> None:
    if cell.attack is None:
        return
    for data, part in ((cell.data, "train"), (cell.data if cell.test is None else cell.test, "test")):
        known = classes.get((replace(data, share=1.0, captions=None), part), [])
        for option, names in classes_of(cell.attack).items():
            for name in names if known else ():  # without labels captions decide, when the attack is planned
                if name not in known:
                    near = difflib.get_close_matches(name, known, n=1, cutoff=0.4)
                    hint = f"nearest: {near[0]}" if near else f"the classes are {', '.join(known[:20])}"
                    raise StudyError(
                        f"experiment {cell.experiment}: attack.{option}: no {part} pair has the label {name!r}; {hint}"
                    )
