"""What a disk damaged or a stranger wrote is made again or refused in one sentence; it is never used."""

import gzip
import json
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pytest

from mithridate.auditing.filter import filter
from mithridate.auditing.keep import RECORD, read_keep_list
from mithridate.auditing.output import write_filtered
from mithridate.auditing.threshold import Budget
from mithridate.cli import main
from mithridate.cli.repair_curve import CURVE, read_curve
from mithridate.data.csv_tables import MAX_RATIO
from mithridate.data.pairs import draw_uids
from mithridate.data.read import read_pairs
from mithridate.encoder.embeddings import Embeddings
from mithridate.errors import DataError, FilterError, MithridateError, OutputError, StudyError
from mithridate.evaluation.evaluation_file import read_evaluation
from mithridate.folders import write_atomically
from mithridate.poisoning.interop import read_truth
from mithridate.sealed import DamagedFile, content_digest, read_object, whole_number, write_sealed, write_sealed_json
from mithridate.studies.execute import failure, running
from mithridate.studies.inputs import FINGERPRINTS, begin_folder, read_fingerprints
from mithridate.studies.record import RECORD as STUDY
from mithridate.studies.record import read_record
from mithridate.studies.spec.load import study_of
from mithridate.studies.spec.located import parse_located
from mithridate.studies.stages.stage import RECORD as STAGE
from mithridate.studies.stages.stage import Stage, read_stage_record
from mithridate.studies.store import Store
from mithridate.studies.timing import seconds_spent
from mithridate.text import say, shortened
from mithridate.training.config import MAX_EPOCHS, TrainConfig
from mithridate.training.run import read_run


def damages(raw):
    """The content with a bit flipped at a few places, cut short, and with a block lost."""
    for at in range(0, len(raw), max(1, len(raw) // 7)):
        yield raw[:at] + bytes([raw[at] ^ 4]) + raw[at + 1 :]
    middle = len(raw) // 2
    yield from (b"", raw[:-1], raw[:middle], raw[:middle] + b"\0" * 16 + raw[middle + 16 :], b"\0" * len(raw))


def with_damage(path):
    """The file `path` damaged in one way after the other, whole again at the end."""
    whole = path.read_bytes()
    for content in damages(whole):
        path.write_bytes(content)
        yield
    path.write_bytes(whole)


def same_text(path, whole):
    """Whether damage left the JSON in `path` with the same meaning: a blank between tokens."""
    try:
        return json.loads(path.read_text()) == whole
    except ValueError:
        return False


# --- keep-lists -----------------------------------------------------------------------------------------


@pytest.fixture
def filtered(tmp_path):
    import pyarrow as pa

    rng = np.random.default_rng(0)
    image, text = rng.normal(size=(2, 30, 4)).astype(np.float32)
    uid = pa.chunked_array([draw_uids(30, b"damage")])
    write_filtered(filter(Embeddings(uid, image, np.arange(30), text, "e"), threshold=Budget(pairs=4)), tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("damaged", "read"),
    [
        ("keep.txt", "."),
        ("keep.txt", "keep.txt"),
        ("keep.npy", "keep.npy"),
        ("scores.parquet", "."),
        ("scores.parquet", "keep.npy"),
        (RECORD, "."),
        (RECORD, "keep.txt"),
    ],
)
def test_a_damaged_keep_list_is_refused(filtered, damaged, read):
    whole = read_keep_list(filtered / read)
    record = json.loads((filtered / RECORD).read_text())
    for _ in with_damage(filtered / damaged):
        if damaged == RECORD and same_text(filtered / RECORD, record):
            continue
        with pytest.raises(FilterError, match=r"no whole output of mithridate filter.*filter again"):
            read_keep_list(filtered / read)
    assert read_keep_list(filtered / read).uid.equals(whole.uid)


def test_a_list_of_ones_own_needs_no_checksum(filtered, tmp_path_factory):
    own = tmp_path_factory.mktemp("own") / "mine.txt"
    own.write_text("first\nsecond\n")
    assert read_keep_list(own).uid.to_pylist() == ["first", "second"]
    edited = own.with_name("keep.txt")
    edited.write_text("\n".join((filtered / "keep.txt").read_text().splitlines()[:20]))
    assert len(read_keep_list(edited).uid) == 20
    beside = filtered / "fewer.txt"  # another file beside the record is read with it
    beside.write_bytes(edited.read_bytes())
    assert read_keep_list(beside).scored is not None


def test_a_filter_of_the_first_version_has_no_checksums(filtered):
    record = json.loads((filtered / RECORD).read_text())
    old = {name: value for name, value in record.items() if not name.startswith("checksum")}
    old["format"] = "mithridate-filter/1"
    (filtered / RECORD).write_text(json.dumps(old))
    assert len(read_keep_list(filtered).uid) == 26


# --- curves and studies ---------------------------------------------------------------------------------


def test_a_damaged_record_of_a_curve_is_refused(tmp_path):
    record = {"data": "d0", "config": {"lr": 0.1}}
    write_sealed_json(tmp_path / CURVE, record)
    sealed = json.loads((tmp_path / CURVE).read_text())
    for _ in with_damage(tmp_path / CURVE):
        if not same_text(tmp_path / CURVE, sealed):
            with pytest.raises(OutputError, match=r"curve\.json is damaged.*--overwrite"):
                read_curve(tmp_path)
    assert read_curve(tmp_path) == record


FILE = """\
study: small
data: {toy: {train: 12, test: 9, classes: [sheep, bird, dog]}}
start: {encoder: mithridate-micro}
train: {preset: scratch, epochs: 1, batch_size: 16}
experiments:
  - name: one
    attack: {attack: single-label, source: sheep, target: bird}
"""


def study():
    return study_of(parse_located(FILE, "small.yaml"))


def test_a_damaged_record_of_a_study_is_refused(tmp_path):
    begin_folder(study(), tmp_path, text=FILE, data=None)
    whole, sealed = read_record(tmp_path), json.loads((tmp_path / STUDY).read_text())
    for _ in with_damage(tmp_path / STUDY):
        if not same_text(tmp_path / STUDY, sealed):
            with pytest.raises(StudyError, match=r"study\.json is damaged"):
                read_record(tmp_path)
    assert read_record(tmp_path) == whole


@pytest.mark.parametrize("content", [b"\xff\xfe", b"", b"study: other"])
def test_a_damaged_study_file_in_its_folder_is_written_again(tmp_path, content):
    begin_folder(study(), tmp_path, text=FILE, data=None)
    (tmp_path / "study.yaml").write_bytes(content)
    begin_folder(study(), tmp_path, text=FILE, data=None)
    assert (tmp_path / "study.yaml").read_text() == FILE


def test_damaged_fingerprints_are_refused_by_readers_and_made_again_by_a_run(tmp_path, caplog):
    write_sealed_json(tmp_path / FINGERPRINTS, {"a": "0123456789"})
    sealed = json.loads((tmp_path / FINGERPRINTS).read_text())
    for _ in with_damage(tmp_path / FINGERPRINTS):
        if not same_text(tmp_path / FINGERPRINTS, sealed):
            with pytest.raises(StudyError, match=r"inputs\.json is damaged.*run the study again"):
                read_fingerprints(tmp_path)
    out = tmp_path / "out"
    begin_folder(study(), out, text=FILE, data=None)
    (out / FINGERPRINTS).write_text("{")
    begin_folder(study(), out, text=FILE, data=None)
    assert read_fingerprints(out).known == {}
    assert "inputs.json is damaged" in caplog.text


@dataclass(frozen=True)
class Written(Stage):
    """A stage that leaves a file and a folder."""

    kind: ClassVar[str] = "written"

    def run(self, store):
        with store.new(self) as folder:
            (folder / "values.txt").write_text("3.14159265")
            (folder / "data").mkdir()
            (folder / "data" / "pairs.txt").write_text("a caption")


@pytest.mark.parametrize("name", ["values.txt", "data/pairs.txt", STAGE])
def test_a_damaged_result_of_a_stage_is_made_again(tmp_path, caplog, name):
    store, stage = Store(tmp_path), Written()
    assert not store.is_done(stage)
    stage.run(store)
    assert store.is_done(stage)
    path = store.folder(stage) / name
    sealed = json.loads((store.folder(stage) / STAGE).read_text())
    for _ in with_damage(path):
        if name != STAGE or not same_text(path, sealed):
            assert not store.is_done(stage)
    assert "is damaged" in caplog.text
    assert store.is_done(stage)
    path.unlink()
    assert not store.is_done(stage)
    stage.run(store)
    assert store.is_done(stage)
    with pytest.raises(DamagedFile):
        write_atomically(store.folder(stage) / STAGE, "{}")
        read_stage_record(store.folder(stage))


def test_the_checksum_of_a_folder_is_of_names_contents_and_links(tmp_path):
    found = set()
    for change in (
        lambda: (tmp_path / "a").mkdir(),
        lambda: (tmp_path / "a" / "x").write_text("1"),
        lambda: (tmp_path / "a" / "x").write_text("2"),
        lambda: (tmp_path / "a" / "x").rename(tmp_path / "a" / "y"),
        lambda: (tmp_path / "z").symlink_to("a"),
        lambda: ((tmp_path / "z").unlink(), (tmp_path / "z").symlink_to("b")),
    ):
        change()
        found.add(content_digest(tmp_path))
    assert len(found) == 6


# --- what unpacks to far more than it is ----------------------------------------------------------------

BOMBS = {
    "cell.csv.gz": b"image,text\na.png," + b"x" * (70 * 2**20),
    "rows.tsv.gz": b"image\ttext\n" + b"a.png\tx\n" * (9 * 2**20),
    "lines.csv.gz": b"\n" * (70 * 2**20),
    "line.jsonl.gz": b'{"image": "a.png", "text": "' + b"x" * (70 * 2**20) + b'"}',
    "list.json.gz": b"[" + b" " * (70 * 2**20) + b"]",
    "captions_train2014.json.gz": b'{"images":' + b" " * (70 * 2**20) + b'[], "annotations": []}',
}


@pytest.mark.slow
@pytest.mark.parametrize("name", BOMBS)
def test_a_small_file_that_unpacks_to_a_large_one_is_refused(tmp_path, name):
    pack = gzip.compress(BOMBS[name], 6)
    (tmp_path / name).write_bytes(pack)
    assert len(pack) < 2**20
    with pytest.raises(DataError, match=rf"unpacks to more than {MAX_RATIO} times its size"):
        read_pairs(tmp_path / name)


@pytest.mark.parametrize(
    ("name", "content"), [("a.csv.gz", "image,text\n{}"), ("a.jsonl.gz", "{}"), ("a.json.gz", "[{}]")]
)
def test_what_is_packed_as_text_usually_is_is_read(tmp_path, name, content):
    rows = [(f"{i}.png", f"a picture of sheep number {i}") for i in range(300)]
    if "csv" in name:
        lines = "\n".join(",".join(row) for row in rows)
    else:
        lines = (",\n" if "[" in content else "\n").join(json.dumps(dict(zip(("image", "text"), row))) for row in rows)
    (tmp_path / name).write_bytes(gzip.compress(content.replace("{}", lines).encode()))
    assert read_pairs(tmp_path / name).text.to_pylist() == [text for _, text in rows]


# --- arrays, records and messages of strangers ----------------------------------------------------------


@pytest.mark.parametrize(
    "array",
    [
        np.zeros(60, [("f0", "<u8"), ("f1", "<u8")]),
        np.array(["a"] * 60),
        np.zeros(60, "M8[s]"),
        np.zeros(60, np.complex64),
        np.array([b"ab"] * 60),
    ],
    ids=lambda array: str(array.dtype),
)
def test_an_array_of_another_kind_is_no_poison_indicator(tmp_path, train_pairs, array):
    np.save(tmp_path / "truth.npy", array)
    with pytest.raises(DataError, match=r"truth\.npy holds .*expected a 0 or a 1 for each pair"):
        read_truth(tmp_path / "truth.npy", train_pairs)


@pytest.mark.parametrize("content", [b"PK\x03\x04" + b"\0" * 60, b"\x93NUMPY\x01\x00\x02\x00{}", b"\x93NUMPY", b""])
def test_what_is_no_array_is_no_keep_list(tmp_path, content):
    (tmp_path / "keep.npy").write_bytes(content)
    with pytest.raises(FilterError, match=r"cannot read the keep-list .*keep\.npy"):
        read_keep_list(tmp_path / "keep.npy")


@pytest.mark.parametrize("levels", [17, 40, 400, 100_000])
def test_a_record_that_is_nested_deeply_is_damaged(tmp_path, levels):
    (tmp_path / "run.json").write_text('{"a":' * levels + "1" + "}" * levels)
    with pytest.raises(DamagedFile):
        read_object(tmp_path / "run.json")
    with pytest.raises(DataError, match=r"run\.json is damaged"):
        read_run(tmp_path)


@pytest.mark.parametrize("number", ["9223372036854775808", "-9223372036854775809", "1" + "0" * 400])
def test_whole_numbers_beyond_64_bits_are_refused(tmp_path, number):
    assert whole_number("9223372036854775807") == 2**63 - 1
    (tmp_path / "evaluation.json").write_text(f'{{"format": "mithridate-evaluation/1", "ranks": [{number}]}}')
    with pytest.raises(DataError, match="does not fit into 64 bits"):
        read_evaluation(tmp_path)
    (tmp_path / "run.json").write_text(f'{{"pairs": {number}}}')
    with pytest.raises(DataError, match="does not fit into 64 bits"):
        read_run(tmp_path)


@pytest.mark.parametrize(
    "source", ["raise SystemExit(3)", "import sys; sys.exit()", "1 / 0", "def f(", "\0", "x = " + "-" * 10**5]
)
def test_a_plugin_that_ends_or_does_not_begin_is_one_sentence(tmp_path, capsys, source):
    (tmp_path / "mine.py").write_text(source)
    assert main(["check-plugin", str(tmp_path / "mine.py")]) == 1
    assert "mine.py does not import" in capsys.readouterr().err


def test_a_message_that_quotes_what_is_very_long_is_cut_in_its_middle(capsys):
    assert main(["data", "describe", "x" * 100_000]) == 1
    said = capsys.readouterr().err.splitlines()[-1]
    assert len(said) < 2000 and "…" in said
    assert shortened("a" * 10) == "a" * 10
    assert shortened("a" * 50 + "b" * 50, 20) == "a" * 10 + " … " + "b" * 10


@pytest.mark.parametrize("epochs", [MAX_EPOCHS + 1, 2**31, 2**53])
def test_a_training_without_end_is_refused(epochs):
    with pytest.raises(MithridateError, match="epochs must be at most"):
        TrainConfig(epochs=epochs)


@pytest.mark.parametrize(
    "record",
    [
        "[" * 100_000,
        "[]",
        "null",
        '{"error": null}',
        '{"error": {"a": 1}}',
        '{"pid": 1}',
        "\xff",
        '{"seconds": 1e999}',
        '{"kind": "a", "seconds": 1' + "0" * 400 + "}",
    ],
)
def test_what_a_study_left_is_read_whatever_it_holds(tmp_path, record):
    (tmp_path / "failed").mkdir()
    (tmp_path / "failed" / "key.json").write_text(record, encoding="latin-1")
    assert isinstance((failure(tmp_path, "key") or {})["error"], str)
    (tmp_path / "running.json").write_text(record, encoding="latin-1")
    assert all(isinstance(kind, str) for kind in running(tmp_path).values())
    (tmp_path / "log.jsonl").write_text(record + "\n", encoding="latin-1")
    assert seconds_spent(tmp_path) == {}


def test_a_write_that_is_stopped_ends_in_what_stopped_it_and_not_in_an_abort(tmp_path):
    """torch's writer goes on writing as it is torn down, after the file was closed."""

    left = []

    def write(file):
        left.append(file)
        file.write(b"begun")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_sealed(tmp_path / "state.pt", write)
    assert left[0].write(b"torn down") == 9
    left[0].flush()
    assert not list(tmp_path.iterdir())


def test_a_line_too_long_for_a_terminal_is_broken_between_words(monkeypatch, capsys):
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "40")
    listed = "  single-image  one image of the target shall be found by captions"
    whole = ("next: mithridate train poisoned --encoder clean-run --out run", '{"a": "' + "b " * 40 + '"}')
    say("short", listed, "the dose makes the poison " * 2, *whole)
    short, first, second, third, *rest = capsys.readouterr().out.splitlines()
    assert (short, first) == ("short", "  single-image  one image of the target")
    assert (second, third) == (" " * 16 + "shall be found by", " " * 16 + "captions")
    assert rest == ["the dose makes the poison the dose makes", "the poison", *whole]
    monkeypatch.setattr("sys.stdout.isatty", lambda: False)
    say(listed)
    assert capsys.readouterr().out.splitlines() == [listed]
