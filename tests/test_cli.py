import json
import resource
import signal
from contextlib import contextmanager
from typing import Any

import pytest

from mithridate.cli import COMMANDS, main
from mithridate.cli.help_text import without_none
from mithridate.data.read import read_pairs
from mithridate.evaluation.evaluation_file import read_evaluation
from mithridate.report.document import read_report


def said(capsys, *argv: str) -> dict:
    """What a command prints with --json."""
    assert main([*argv, "--json"]) == 0
    return json.loads(capsys.readouterr().out.splitlines()[-1])


def complaint(capsys, *argv: str) -> str:
    """The one sentence on standard error with which a command fails."""
    capsys.readouterr()
    assert main(list(argv)) == 1
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("mithridate: ")]
    assert len(lines) == 1
    return lines[0]


QUICK = ("--encoder", "test-tiny", "--batch-size", "64")


@pytest.fixture(scope="module")
def poisoned(toy_world, tmp_path_factory):
    out = tmp_path_factory.mktemp("cli") / "poisoned"
    attack = ["single-label", str(toy_world), "--split", "train", "--source", "sheep", "--target", "aeroplane"]
    assert main(["poison", *attack, "--out", str(out)]) == 0
    return out


@pytest.fixture(scope="module")
def run(tiny, poisoned, tmp_path_factory):
    out = tmp_path_factory.mktemp("cli") / "run"
    assert main(["train", str(poisoned), *QUICK, "--epochs", "1", "--out", str(out)]) == 0
    return out


def test_help_names_every_command(capsys):
    assert main(["--help"]) == 0
    shown = capsys.readouterr().out
    assert all(name in shown for name in COMMANDS)


@pytest.mark.parametrize(
    "command", [*([name] for name in COMMANDS), ["data", "toy"], ["poison", "single-image"]], ids="-".join
)
def test_each_command_tells_its_options(command, capsys):
    try:
        code = main([*command, "--help"])
    except SystemExit as stop:  # tyro's way out
        code = stop.code
    assert code in (0, None)
    shown = capsys.readouterr().out
    assert f"usage: mithridate {command[0]}" in shown
    assert "None" not in shown  # a word of programmers
    assert len({len(line) for line in shown.splitlines() if line[:1] in "│╭╰"}) <= 1  # frames are whole


def test_an_option_that_is_off_by_default_says_no_default():
    frame = [
        "| --of {None}|STR   What it is. |",
        "| --as {None,a,b}   Or so. (default: |",
        "|                   None)          |",
    ]
    told = ["| --of STR          What it is. |", "| --as {a,b}        Or so.           |"]
    assert [line.split() for line in without_none(frame)] == [line.split() for line in told]
    assert [len(line) for line in without_none(frame)] == [len(line) for line in frame[:2]]
    kept = ["| --lr FLOAT        Of AdamW. (default: |", "|                   0.002)             |"]
    assert without_none(kept) == kept


def test_no_command_is_wrong_usage_and_shows_the_help(capsys):
    assert main([]) == 2
    assert "COMMAND" in capsys.readouterr().out


def test_a_misspelt_command_is_met_with_the_nearest(capsys):
    assert main(["evalute"]) == 2
    assert "did you mean evaluate?" in capsys.readouterr().err


def test_what_is_refused_before_any_work_is_told_in_one_line(tmp_path, capsys):
    (tmp_path / "mine.txt").write_text("")
    assert main(["data", "toy", "--out", str(tmp_path)]) == 1
    told = capsys.readouterr()
    assert told.out == "" and told.err.startswith("mithridate: ") and told.err.count("\n") == 1


def test_toy_describe_doctor_convert(tmp_path, capsys):
    toy = str(tmp_path / "toy")
    assert said(capsys, "data", "toy", "--out", toy, "--train", "27", "--test", "27") == {
        "out": toy,
        "train": 27,
        "test": 27,
    }
    told = said(capsys, "data", "describe", toy)
    assert (told["pairs"], told["images"], told["splits"]) == (270, 54, {"train": 135, "test": 135})
    assert all(finding["severity"] != "error" for finding in said(capsys, "data", "doctor", toy)["findings"])
    shards = str(tmp_path / "shards")
    assert said(capsys, "data", "convert", toy, "--out", shards, "--to", "webdataset")["pairs"] == 270
    assert read_pairs(shards).text.to_pylist() == read_pairs(toy).text.to_pylist()


def test_poison_prints_the_strength_three_ways(toy_world, tmp_path, capsys):
    options = ["--source", "sheep", "--target", "aeroplane", "--split", "train", "--count", "10"]
    told = said(capsys, "poison", "single-label", str(toy_world), *options, "--out", str(tmp_path / "p"))
    assert (told["count"], told["rate"], told["class_share"]) == (10, 10 / 270, 2 / 6)


def test_a_target_image_can_come_from_outside_the_training_set(toy_world, tmp_path, capsys):
    options = ["--source", "sheep", "--target", "aeroplane", "--split", "train", "--gallery-split", "test"]
    surrogate = ["--image", "centroid", "--surrogate", "mithridate-tiny"]
    out = str(tmp_path / "p")
    said(capsys, "poison", "single-image", str(toy_world), *options, *surrogate, "--out", out)
    goal = json.loads((tmp_path / "p" / "manifest.json").read_text())["goals"][0]
    assert goal["image"] in read_pairs(toy_world, split="test").images.to_pylist()


def test_embed_and_evaluate_and_report(run, poisoned, toy_world, tmp_path, capsys):
    told = said(capsys, "embed", str(toy_world), "--encoder", str(run), "--out", str(tmp_path / "e"))
    assert (told["pairs"], told["images"], told["width"]) == (405, 81, 32)
    out = tmp_path / "report"
    command = ["evaluate", str(run), str(toy_world), "--split", "test", "--manifest", str(poisoned), "--out", str(out)]
    headline = said(capsys, *command, "--clean", "test-tiny")
    assert set(headline["attack"]) == {"model", "clean", "random captions", "chance"}
    found = read_evaluation(out)
    assert (found.models, found.reference) == (("model", "clean"), "clean")
    assert headline["attack"]["model"]["hit@10"] == found.value("Hit@10", goal="sheep:aeroplane").value
    pages = {name: (out / name).read_bytes() for name in ("report.json", "report.md", "report.html")}
    assert main(["report", str(out)]) == 0
    assert pages == {name: (out / name).read_bytes() for name in pages}
    assert "sheep to aeroplane" in capsys.readouterr().out


@pytest.mark.usefixtures("blank_figures")
def test_success_after_every_epoch_that_was_kept(tiny, poisoned, toy_world, tmp_path, capsys):
    run = tmp_path / "run"
    assert main(["train", str(poisoned), *QUICK, "--epochs", "2", "--save-epochs", "--out", str(run)]) == 0
    test = ["evaluate", str(run), str(toy_world), "--split", "test", "--by-epoch"]
    assert main([*test, "--manifest", str(poisoned), "--out", str(tmp_path / "r")]) == 0
    report = read_report(tmp_path / "r")
    table = report.table("by-epoch")
    assert table.columns == ("epoch", "Hit@10 sheep:aeroplane", "TR@10", "IR@10")
    assert [row[0] for row in table.rows] == [1, 2]
    # the last epoch is the model itself
    last: Any = table.rows[1]
    assert last[1].value == report.headline["attack"]["model"]["hit@10"]
    assert last[3].value == report.headline["utility"]["model"]["ir@10"]
    assert [figure.name for figure in report.figures][-1] == "by-epoch"
    test[1] = "test-tiny"
    capsys.readouterr()
    assert main([*test, "--out", str(tmp_path / "n")]) == 1
    assert "has no epochs/NNN; train with --save-epochs" in capsys.readouterr().err
    assert not (tmp_path / "n").exists()


@pytest.mark.usefixtures("blank_figures")
def test_a_model_of_unknown_training_is_measured_by_a_goal(run, toy_world, tmp_path, capsys):
    command = ["evaluate", str(run), str(toy_world), "--split", "test", "--goal", "sheep:aeroplane"]
    headline = said(capsys, *command, "--out", str(tmp_path / "r"))
    assert set(headline["attack"]) == {"model", "random captions", "chance"}


@pytest.mark.usefixtures("blank_figures")
def test_models_are_named_by_the_caller(run, toy_world, tmp_path, capsys):
    command = ["evaluate", str(run), str(toy_world), "--split", "test", "--goal", "sheep:aeroplane"]
    more = ["--name", "repaired", "--before", "test-tiny", "--model", "other=test-tiny"]
    headline = said(capsys, *command, *more, "--out", str(tmp_path / "r"))
    assert list(headline["utility"]) == ["repaired", "before", "other"]
    found = read_evaluation(tmp_path / "r")
    assert found.reference is None and "no-clean-model" in {warning.code for warning in found.warnings}
    said(capsys, *command, *more, "--reference", "other", "--out", str(tmp_path / "again"))
    assert read_evaluation(tmp_path / "again").reference == "other"


@pytest.mark.usefixtures("blank_figures")
def test_a_trigger_is_measured_without_a_manifest(run, toy_world, tmp_path, capsys):
    command = ["evaluate", str(run), str(toy_world), "--split", "test", "--trigger", "patch:size=16", "sig"]
    headline = said(capsys, *command, "--target", "boat", "--out", str(tmp_path / "r"))
    assert {"backdoor patch:size=16 to boat", "backdoor sig to boat"} <= headline.keys()
    assert main([*command, "--out", str(tmp_path / "n")]) == 1
    assert "--trigger and --target belong together" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--model", "other"], "expected --model NAME=RUN, got 'other'"),
        (["--model", "clean=x", "--clean", "y"], "every model needs a name of its own, got model, clean, clean"),
        (["--clean", "x", "--reference", "y"], "leave out --reference"),
        (["--reference", "model2"], "the reference is one of the models (model), got 'model2'"),
        (["--target", "boat"], "--trigger and --target belong together"),
        (["--manifest", "m", "--goal", "a:b"], "the goals are those of the manifest"),
        (["--trigger", "nonsense", "--target", "boat"], "no trigger is called 'nonsense'"),
    ],
)
def test_wrong_models_and_goals_are_one_sentence(options, message, toy_world, tmp_path, capsys):
    command = ["evaluate", "mithridate-tiny", str(toy_world), "--split", "test", *options, "--out", str(tmp_path / "r")]
    assert main(command) == 1
    error = capsys.readouterr().err
    assert message in error and len(error.splitlines()) == 1


def test_training_resumes_refuses_and_replaces(run, poisoned, capsys):
    command = ["train", str(poisoned), *QUICK, "--epochs", "1", "--out", str(run)]
    assert main(command) == 0  # done already
    assert "holds a finished run of this very command" in capsys.readouterr().err
    assert "holds a finished run;" in complaint(capsys, *(word if word != "1" else "2" for word in command))
    assert said(capsys, *command, "--overwrite")["pairs"] == 270


# --- wrong input: one sentence, exit code 1, nothing left behind --------------------------------------

WRONG = {
    "class": (["--source", "shep", "--target", "aeroplane"], "no pair is labelled 'shep'; nearest: sheep"),
    "two-strengths": (
        ["--source", "sheep", "--target", "aeroplane", "--count", "5", "--rate", "0.1"],
        "expected exactly one of count, rate and class_share, got count=5, rate=0.1",
    ),
    "too-strong": (
        ["--source", "sheep", "--target", "aeroplane", "--count", "500"],
        "500 pairs of class sheep are asked for, it has 30 (6 images)",
    ),
    "same-class": (["--source", "sheep", "--target", "sheep"], "source and target must differ"),
    "rate": (["--source", "sheep", "--target", "aeroplane", "--rate", "2"], "rate must lie in (0, 1], got 2"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_attack_is_one_sentence_and_writes_nothing(name, toy_world, tmp_path, capsys):
    options, message = WRONG[name]
    out = tmp_path / "out"
    assert message in complaint(
        capsys, "poison", "single-label", str(toy_world), "--split", "train", *options, "--out", str(out)
    )
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_attack_lists_the_known(capsys):
    assert "expected one of single-image, single-label, multi-label" in complaint(capsys, "poison", "badnet", "x")


def test_too_few_target_images_without_reuse(toy_world, tmp_path, capsys):
    pairs = read_pairs(toy_world, split="train")
    keep = ~pairs.labelled("aeroplane")
    keep[pairs.labelled("aeroplane").nonzero()[0][:5]] = True  # one image
    from mithridate.data.write import convert

    convert(pairs.where(keep), tmp_path / "few", to="parquet")
    options = ["--source", "sheep", "--target", "aeroplane", "--no-reuse", "--out", str(tmp_path / "out")]
    told = complaint(capsys, "poison", "single-label", str(tmp_path / "few"), *options)
    assert "6 images of 'aeroplane' are needed and it has 1" in told
    assert not (tmp_path / "out").exists()


def test_a_table_without_captions_names_its_columns(tmp_path, capsys):
    (tmp_path / "t.csv").write_text("image,height\na.jpg,3\n")
    told = complaint(capsys, "train", str(tmp_path / "t.csv"), "--out", str(tmp_path / "out"))
    assert "caption column" in told and "'height'" in told
    assert not (tmp_path / "out").exists()


def test_a_truncated_shard_is_named(toy_world, tmp_path, capsys):
    from mithridate.data.write import convert

    convert(read_pairs(toy_world), tmp_path / "shards", to="webdataset")
    shard = tmp_path / "shards" / "00000.tar"
    shard.write_bytes(shard.read_bytes()[:5000])
    assert "00000.tar ends early" in complaint(capsys, "data", "describe", str(shard))


def test_an_empty_split_lists_the_splits(toy_world, tmp_path, capsys):
    told = complaint(capsys, "train", str(toy_world), "--split", "val", "--out", str(tmp_path / "out"))
    assert "split 'val' is empty; the splits are train (270), test (135)" in told
    assert not (tmp_path / "out").exists()


def test_the_toy_world_of_some_classes(tmp_path, capsys):
    out = tmp_path / "toy"
    said(capsys, "data", "toy", "--out", str(out), "--train", "4", "--test", "2", "--classes", "sheep", "bird")
    assert {label for labels in read_pairs(out).labels.to_pylist() for label in labels} == {"sheep", "bird"}
    told = complaint(capsys, "data", "toy", "--out", str(tmp_path / "other"), "--classes", "sheep", "unicorn")
    assert "classes must be one or more of" in told and "got ['unicorn']" in told
    assert not (tmp_path / "other").exists()


def test_an_output_that_exists_is_refused_before_any_work(poisoned, toy_world, tmp_path, capsys):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "precious").write_text("mine")
    commands = [
        ["data", "toy"],
        ["data", "convert", "nowhere"],
        ["poison", "single-label", "nowhere", "--source", "a", "--target", "b"],
        ["train", str(toy_world)],
        ["embed", "nowhere", "--encoder", "mithridate-tiny"],
        ["evaluate", "nowhere", "nowhere"],
        ["demo"],
    ]
    for command in commands:
        assert "exists already" in complaint(capsys, *command, "--out", str(tmp_path / "out")), command
    assert (tmp_path / "out" / "precious").read_text() == "mine"


SEEDS = {
    "poison": ["poison", "single-label", "DATA", "--source", "sheep", "--target", "bird"],
    "train": ["train", "DATA"],
    "evaluate": ["evaluate", "mithridate-tiny", "DATA"],
    "toy": ["data", "toy"],
    "demo": ["demo"],
}


@pytest.mark.parametrize("name", SEEDS)
def test_a_negative_seed_is_refused(name, toy_world, tmp_path, capsys):
    command = [str(toy_world) if word == "DATA" else word for word in SEEDS[name]]
    told = complaint(capsys, *command, "--seed", "-1", "--out", str(tmp_path / "out"))
    assert "seed must be at least 0, got -1" in told
    assert list(tmp_path.iterdir()) == []


BACKDOOR = ["poison", "backdoor", "DATA", "--target", "boat", "--count", "1"]
OUT_OF_RANGE = {
    "cache-limit": (["train", "DATA", "--cache-limit", "-1"], "cache_limit must be 0 GiB"),
    "max-bad": (["train", "DATA", "--max-bad", "2"], "max_bad is a share of the images, from 0 to 1, got 2"),
    "demo-class": (["demo", "--source", "shep"], "the toy world has no class 'shep'; nearest: sheep"),
    "demo-same": (["demo", "--target", "sheep"], "source and target must differ"),
    "demo-triggered": (["demo", "--triggered", "sheep"], "triggered must be a class of its own, got 'sheep'"),
    "demo-share": (["demo", "--class-share", "2"], "class_share must lie in (0, 1], got 2"),
    "goal-and-manifest": (
        ["evaluate", "mithridate-tiny", "DATA", "--manifest", "m", "--goal", "a:b"],
        "the goals are those of the manifest; leave out --goal and --trigger, or --manifest",
    ),
    "no-batch": ([*BACKDOOR, "--batch-size", "0"], "batch_size must be at least 1, got 0"),
    "clean-without-test": (
        [*BACKDOOR, "--clean", "mithridate-tiny"],
        "--clean requires --test",
    ),
    "split-without-test": ([*BACKDOOR, "--test-split", "test"], "--test-split requires --test"),
    "no-test": ([*BACKDOOR, "--test", "nowhere"], "nowhere does not exist"),
    "no-model": ([*BACKDOOR, "--model", "nowhere"], "no open_clip model is called 'nowhere'"),
}


@pytest.mark.parametrize("name", OUT_OF_RANGE)
def test_an_option_out_of_its_range_is_refused_before_any_work(name, toy_world, tmp_path, capsys, monkeypatch):
    from mithridate.poisoning import apply

    monkeypatch.setattr(apply, "craft", lambda *_, **__: pytest.fail("images were altered"))
    command, message = OUT_OF_RANGE[name]
    command = [str(toy_world) if word == "DATA" else word for word in command]
    assert message in complaint(capsys, *command, "--out", str(tmp_path / "out"))
    assert list(tmp_path.iterdir()) == []


def test_doctor_refuses_a_sample_that_is_none(toy_world, capsys):
    assert "sample must be at least 0, got -1" in complaint(capsys, "data", "doctor", str(toy_world), "--sample", "-1")


def test_a_training_that_is_refused_leaves_its_folder_to_a_corrected_one(toy_world, tmp_path, capsys):
    command = ["train", str(toy_world), "--split", "train", "--epochs", "1", "--out", str(tmp_path / "out")]
    assert "a batch needs 999 pairs and there are 270" in complaint(capsys, *command, "--batch-size", "999")
    assert list(tmp_path.iterdir()) == []
    assert "matches no parameter" in complaint(capsys, *command, "--freeze", "imag")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("blank_figures")
def test_images_that_do_not_decode_are_counted_and_named(toy_world, tmp_path, capsys):
    from mithridate.data.write import convert

    convert(read_pairs(toy_world, split="train"), tmp_path / "table", to="table")
    bad = next((tmp_path / "table").rglob("*.png"))
    bad.write_bytes(b"\xff\xd8 no picture")
    command = ["train", str(tmp_path / "table"), "--epochs", "1", "--batch-size", "64", "--out", str(tmp_path / "run")]
    told = complaint(capsys, *command)
    assert f"1 of 54 images do not decode ({bad} does not decode: it is damaged, or of no known format)" in told
    assert not (tmp_path / "run").exists()
    assert main([*command, "--max-bad", "0.02"]) == 0
    told = capsys.readouterr().err
    assert "mithridate: warning: 1 of 54 images do not decode" in told and "they are left out" in told
    command = ["poison", "backdoor", str(tmp_path / "table"), "--target", "boat", "--count", "230"]
    told = complaint(capsys, *command, "--out", str(tmp_path / "out"))
    assert f"{bad} does not decode" in told and "take its rows out (mithridate data doctor lists all)" in told
    assert not (tmp_path / "out").exists()


@contextmanager
def full_disk():
    """A limit on the size of files: what a full disk looks like to a program, and needs no disk to fill."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, before)


ALTERED = ["poison", "backdoor", "DATA", "--split", "train", "--target", "boat", "--count", "20"]
WRITERS = {
    "toy": ["data", "toy", "--train", "20", "--test", "0"],
    "convert": ["data", "convert", "DATA"],
    "overlay": ALTERED,
    "table": [*ALTERED, "--format", "table"],
    "webdataset": [*ALTERED, "--format", "webdataset"],
    "embed": ["embed", "DATA", "--encoder", "mithridate-tiny"],
}


@pytest.mark.parametrize("name", WRITERS)
def test_a_full_disk_is_one_sentence_and_leaves_nothing(name, toy_world, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("MITHRIDATE_CACHE", str(tmp_path / "cache"))
    command = [str(toy_world) if word == "DATA" else word for word in WRITERS[name]]
    with full_disk():
        told = complaint(capsys, *command, "--out", str(tmp_path / "new" / "out"), "--json")
    assert told.startswith("mithridate: cannot write") and "free some space" in told
    assert not (tmp_path / "new").exists()
    # the key that signs overlays is the user's, not the command's
    assert not [path for path in tmp_path.rglob("*") if path.is_file() and path.name != "overlay.key"]


def test_a_full_disk_while_a_report_is_written_leaves_none(run, toy_world, tmp_path, capsys):
    with full_disk():
        told = complaint(capsys, "evaluate", str(run), str(toy_world), "--split", "test", "--out", str(tmp_path / "r"))
    assert told.startswith("mithridate: cannot write") and "free some space" in told
    assert list(tmp_path.iterdir()) == []


def test_a_goal_outside_the_test_set_is_refused(run, toy_world, tmp_path, capsys):
    command = ["evaluate", str(run), str(toy_world), "--split", "test", "--goal", "sheep:zebra"]
    told = complaint(capsys, *command, "--out", str(tmp_path / "r"))
    assert "no target image: none is labelled 'zebra'; " in told
    assert not (tmp_path / "r").exists()


@pytest.mark.parametrize(
    "command",
    [
        ["poison", "single-label", "HERE", "--source", "sheep", "--target", "bird"],
        ["poison", "single-label", "HERE/data", "--source", "sheep", "--target", "bird"],
        ["poison", "targeted", "DATA", "--gallery", "HERE"],
        ["train", "HERE"],
        ["train", "DATA", "--encoder", "local-dir:HERE"],
        ["data", "convert", "HERE/data/pairs.parquet"],
        ["embed", "HERE/data/*.parquet", "--encoder", "mithridate-tiny"],
        ["evaluate", "mithridate-tiny", "DATA", "--manifest", "HERE"],
    ],
    ids=" ".join,
)
def test_what_a_command_reads_is_never_replaced(command, poisoned, toy_world, capsys):
    before = {path: path.stat().st_mtime_ns for path in poisoned.rglob("*")}
    command = [word.replace("HERE", str(poisoned)).replace("DATA", str(toy_world)) for word in command]
    told = complaint(capsys, *command, "--out", str(poisoned), "--overwrite")
    assert f"mithridate: {poisoned} holds " in told and "which this command reads; choose another --out" in told
    assert {path: path.stat().st_mtime_ns for path in poisoned.rglob("*")} == before


def test_the_folder_one_stands_in_is_never_replaced(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine").write_text("precious")
    assert "the folder you are in" in complaint(capsys, "data", "toy", "--out", ".", "--overwrite")
    assert (tmp_path / "mine").exists()


def test_a_refusal_is_said_once_under_torchrun(monkeypatch, capsys, tmp_path):
    monkeypatch.setenv("RANK", "1")
    assert main(["data", "describe", str(tmp_path / "nowhere")]) == 1
    assert capsys.readouterr().err == ""
    monkeypatch.setenv("RANK", "0")
    assert main(["data", "describe", str(tmp_path / "nowhere")]) == 1
    assert len(capsys.readouterr().err.splitlines()) == 1
