"""Commands whose work processes share out leave what one process leaves."""

import hashlib
import json

import pytest

from engine_calls import fails
from mithridate.cli import main
from mithridate.engine.calls import Engine
from mithridate.engine.run import gather
from mithridate.errors import DataError, EngineError

TWO = Engine(jobs=2)


def digests(folder):
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.fixture(scope="module")
def shards(test_pairs, tmp_path_factory):
    """27 pictures in three shards that cut the data differently from what is written."""
    from test_embed_shards import write_shards

    return write_shards(test_pairs, tmp_path_factory.mktemp("shards") / "shards", 3)[0].parent


def test_converted_shards_are_byte_for_byte_those_of_one_process(shards, tmp_path):
    for name, options in (("one", ()), ("two", ("--jobs", "2"))):
        assert main(["data", "convert", str(shards), "--out", str(tmp_path / name), *options]) == 0
    assert digests(tmp_path / "one") == digests(tmp_path / "two") != {}


@pytest.mark.parametrize("form", ["webdataset", "table"])
def test_a_poisoned_set_is_byte_for_byte_that_of_one_process(toy_world, tmp_path, form, monkeypatch):
    monkeypatch.setattr("mithridate.data.write.BLOCK", 30)
    command = ["poison", "backdoor", str(toy_world), "--split", "train", "--target", "boat", "--count", "5"]
    for name, options in (("one", ()), ("two", ("--jobs", "2"))):
        assert main([*command, "--format", form, "--out", str(tmp_path / name), *options]) == 0
    assert digests(tmp_path / "one" / "data") == digests(tmp_path / "two" / "data") != {}


def test_what_is_said_of_shards_is_what_one_process_says(shards, monkeypatch, capsys):
    monkeypatch.setattr("mithridate.data.doctor._OPENED", 10)
    said = []
    for options in ((), ("--jobs", "2")):
        for command in ("describe", "doctor"):
            main(["data", command, str(shards), "--json", *options])
            said.append(json.loads(capsys.readouterr().out.splitlines()[-1]))
    assert said[:2] == said[2:] and said[0]["images"] == 27


@pytest.mark.slow
def test_null_models_of_processes_are_those_of_one(train_pairs, monkeypatch):
    from mithridate.encoder.encoder import load_encoder
    from mithridate.inspection.inspect import inspect
    from mithridate.inspection.relabelling import Relabelling

    monkeypatch.setattr("mithridate.inspection.inspect.FLOOR", 0.0)
    start = load_encoder("mithridate-micro")
    options = {"start": start, "nulls": 1, "probes": {"relabelling": Relabelling()}, "cache": None}
    one = inspect(start, train_pairs, **options)
    two = inspect(start, train_pairs, **options, engine=TWO)
    assert one.nulls == two.nulls and one.nulls["relabelling"][0] > 0
    assert [finding.null for finding in one.findings] == [finding.null for finding in two.findings]


@pytest.mark.parametrize(
    ("command", "said"),
    [
        (["data", "describe", "{toy}"], "is read as a whole"),
        (["data", "convert", "{toy}", "--to", "parquet", "--out", "{out}"], "no image is copied"),
        (["poison", "single-label", "{toy}", "--source", "sheep", "--target", "dog", "--out", "{out}"], "an overlay"),
        (["inspect", "mithridate-micro", "--data", "{toy}", "--out", "{out}"], "only several null models"),
    ],
)
def test_processes_that_would_have_nothing_to_do_are_refused(toy_world, tmp_path, command, said, capsys):
    words = [word.format(toy=toy_world, out=tmp_path / "out") for word in command]
    assert main([*words, "--jobs", "2"]) == 1
    assert said in capsys.readouterr().err and not (tmp_path / "out").exists()


def test_what_is_gathered_keeps_the_order_of_the_items():
    done = []
    assert gather(fails, iter([5, 1, 7]), progress=done.append) == [-5, -1, -7]
    assert done == [1, 2, 3] and gather(fails, []) == []


@pytest.mark.parametrize(
    ("item", "one", "two"),
    [(2, DataError, DataError), (4, KeyError, EngineError)],
)
def test_an_error_is_raised_as_what_it_is(item, one, two):
    with pytest.raises(one):
        gather(fails, [1, item])
    with pytest.raises(two, match=r"two|KeyError: 'four'"):
        gather(fails, [item], engine=TWO)
