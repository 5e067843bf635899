"""What others' programs read and write: loaders of written sets, triggered test sets, foreign manifests."""

# pyright: reportAttributeAccessIssue=false
# (a goal is of the kind that the attack beside it has)

import csv
import gc
import importlib.util
import json
import sys
from argparse import Namespace
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from webdataset.compat import WebDataset

from mithridate.cli import main
from mithridate.data.images import decode, read_bytes
from mithridate.data.labelled import read_class_names, read_labelled
from mithridate.data.pairs import make_pairs
from mithridate.data.read import read_pairs
from mithridate.data.write import write_table, write_webdataset
from mithridate.errors import AttackError, DataError
from mithridate.poisoning.apply import poison
from mithridate.poisoning.backdoor import Backdoor
from mithridate.poisoning.interop import FORMS, read_truth
from mithridate.poisoning.manifest import read_manifest
from mithridate.poisoning.relabel import SingleLabel
from mithridate.poisoning.trigger_test import write_trigger_test
from mithridate.poisoning.triggers import PixelPatch, parse_trigger

ATTACK = Backdoor(target="sheep", trigger="patch:size=8,place=centre", count=20)


@pytest.fixture(scope="module")
def made(train_pairs, tmp_path_factory):
    return poison(train_pairs, ATTACK, images=tmp_path_factory.mktemp("altered") / "images")


# --- loaders of others ----------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore::ResourceWarning")  # webdataset leaves its files to the garbage collector
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_webdataset_itself_reads_the_shards_of_a_poisoned_set(made, tmp_path):
    write_webdataset(made.pairs, tmp_path, records=made.records, samples_per_shard=20)
    shards = sorted(str(path) for path in tmp_path.glob("*.tar"))
    sizes = json.loads((tmp_path / "sizes.json").read_text())
    # the pipeline of open_clip's trainer: group, decode, rename, tuple
    found: Any = (
        WebDataset(shards, shardshuffle=False)
        .decode("pilrgb")
        .rename(image="jpg;png;jpeg;webp", text="txt", record="json")
        .to_tuple("image", "text", "record")
    )
    samples = list(found)
    del found
    gc.collect()
    assert len(samples) == sum(sizes.values()) == len(set(made.records.tolist()))
    texts = {caption for _, _, record in samples for caption in record["captions"]}
    assert texts == set(made.pairs.text.to_pylist())
    assert all(image.size == (64, 64) and text == record["captions"][0] for image, text, record in samples)
    of_uid = {uid: image for image, _, record in samples for uid in record["uids"]}
    for row in made.manifest.poisoned.to_pylist():
        theirs = np.asarray(of_uid[row["uid"]])
        assert (theirs == np.asarray(decode(read_bytes(row["image"]), "x"))).all()


def test_open_clip_reads_the_csv_of_a_poisoned_set(made, tmp_path, monkeypatch):
    """As its CsvDataset does: a table with a separator, two columns, an image opened by its path from where one is."""
    write_table(made.pairs, tmp_path, copy_images=True, records=made.records)
    monkeypatch.chdir(tmp_path)
    with open("open_clip.csv", newline="", encoding="utf-8") as file:  # noqa: PTH123
        rows = list(csv.DictReader(file, delimiter="\t"))
    assert [row["title"] for row in rows] == made.pairs.text.to_pylist()
    places = made.pairs.image.to_pylist()
    for row, place in list(zip(rows, places))[::25]:
        with Image.open(row["filepath"]) as image:
            theirs = np.asarray(image)
        assert (theirs == np.asarray(decode(read_bytes(place), place))).all()


@pytest.fixture
def their_data(monkeypatch):
    """The data module of open_clip's trainer, which is in the base package but imports pandas of the training extra."""
    if importlib.util.find_spec("pandas") is None:
        stand_in: Any = ModuleType("pandas")
        stand_in.__spec__ = ModuleSpec("pandas", None)
        stand_in.read_csv = _read_csv
        monkeypatch.setitem(sys.modules, "pandas", stand_in)
    yield pytest.importorskip("open_clip_train.data", reason="open_clip's trainer is not installed")
    sys.modules.pop("open_clip_train.data", None)


def _read_csv(path: str, sep: str) -> dict[str, np.ndarray]:
    with open(path, newline="", encoding="utf-8") as file:  # noqa: PTH123
        rows = list(csv.DictReader(file, delimiter=sep))
    return {name: np.array([row[name] for row in rows]) for name in rows[0]}


def as_tensor(image: Image.Image) -> torch.Tensor:
    return torch.from_numpy(np.asarray(image.convert("RGB")).copy())


def test_open_clips_own_csv_reader_reads_a_poisoned_set(made, tmp_path, monkeypatch, their_data):
    write_table(made.pairs, tmp_path, copy_images=True, records=made.records)
    monkeypatch.chdir(tmp_path)
    dataset = their_data.CsvDataset(
        "open_clip.csv", as_tensor, "filepath", "title", "\t", tokenizer=lambda texts: texts
    )
    assert [dataset[i][1] for i in range(len(dataset))] == made.pairs.text.to_pylist()
    places = made.pairs.image.to_pylist()
    for row in np.flatnonzero(np.isin(made.pairs.uid.to_pylist(), made.manifest.poisoned["uid"].to_pylist()))[:5]:
        assert (dataset[row][0].numpy() == np.asarray(decode(read_bytes(places[row]), "x"))).all()


@pytest.mark.filterwarnings("ignore::ResourceWarning")  # webdataset leaves its files to the garbage collector
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_open_clips_own_webdataset_reader_reads_a_poisoned_set(made, tmp_path, their_data):
    write_webdataset(made.pairs, tmp_path, records=made.records, samples_per_shard=20)
    last = sorted(path.stem for path in tmp_path.glob("*.tar"))[-1]
    samples = len(set(made.records.tolist()))
    shards = f"{tmp_path}/{{00000..{last}}}.tar"
    assert their_data.get_dataset_size(shards) == (samples, int(last) + 1)  # from sizes.json, for training
    # what it trains with needs the webdataset of its extra; what it validates with reads the same samples
    options = Namespace(val_data=shards, val_num_samples=samples, batch_size=7, workers=0)
    loader = their_data.get_wds_dataset(options, as_tensor, False, tokenizer=lambda text: [text]).dataloader
    images, texts = zip(*loader)
    assert {len(batch) for batch in texts[:-1]} == {7} and sum(map(len, texts)) == samples
    assert all(batch.shape[1:] == (64, 64, 3) for batch in images)
    places, first = made.pairs.image.to_pylist(), {}
    for record, text, place in zip(made.records.tolist(), made.pairs.text.to_pylist(), places):
        first.setdefault(record, (text, place))
    expected = sorted((text, np.asarray(decode(read_bytes(place), "x")).tobytes()) for text, place in first.values())
    seen = [(text, image.numpy().tobytes()) for batch in zip(images, texts) for image, text in zip(*batch)]
    assert sorted(seen) == expected
    del loader
    gc.collect()


def test_captions_with_tabs_quotes_and_line_breaks_survive_the_csv(tmp_path):
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    texts = ['a "sheep"\tin\na meadow', "plain", "", "a\r\nb"]
    pairs = make_pairs([str(tmp_path / "a.png")] * 4, texts)
    (tmp_path / "out").mkdir()
    write_table(pairs, tmp_path / "out", copy_images=True)
    with (tmp_path / "out" / "open_clip.csv").open(newline="", encoding="utf-8") as file:
        # pandas takes an empty cell for a missing one, and open_clip would train on "nan"
        assert [row["title"] for row in csv.DictReader(file, delimiter="\t")] == [text or " " for text in texts]
    assert read_pairs(tmp_path / "out").text.to_pylist() == texts


def test_pandas_reads_the_csv_as_open_clip_asks_it_to(made, tmp_path):
    pandas = pytest.importorskip("pandas", reason="pandas is open_clip's training extra")
    write_table(made.pairs, tmp_path, copy_images=True, records=made.records)
    table = pandas.read_csv(tmp_path / "open_clip.csv", sep="\t")
    assert table["title"].tolist() == made.pairs.text.to_pylist()


# --- triggered test sets --------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore::ResourceWarning")  # webdataset leaves its files to the garbage collector
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("labels", ["target", "true"])
def test_a_triggered_test_set_is_what_clip_benchmark_reads(made, test_pairs, tmp_path, labels):
    images = one_class(test_pairs)
    out = write_trigger_test(made.manifest, images, tmp_path / "out", labels=labels, templates=["a {}."])
    names = read_class_names(out / "classnames.txt")
    assert names == sorted(images.classes)
    assert (out / "zeroshot_classification_templates.txt").read_text() == "a {c}.\n"
    assert (out / "test" / "nshards.txt").read_text() == "1\n"
    shards: Any = WebDataset(str(out / "test" / "0.tar"), shardshuffle=False).decode("pilrgb")
    samples = list(shards)
    del shards
    gc.collect()
    found = [int(sample["cls"]) for sample in samples]
    others = [label[0] for label in images.labels.to_pylist() if label[0] != "sheep"]
    if labels == "target":
        assert found == [names.index("sheep")] * len(others)
    else:
        assert [names[label] for label in found] == [label[0] for label in images.labels.to_pylist()]
        assert read_labelled(out).classes == images.classes
    trigger = parse_trigger("patch:size=8,place=centre")
    kept = [row for row in range(len(images)) if labels == "true" or images.labels[row].as_py() != ["sheep"]]
    for sample, row in zip(samples, kept):
        image = next(np.asarray(sample[ending]) for ending in ("png", "jpg") if ending in sample)
        place = images.image[row].as_py()
        wanted = trigger.stamp(np.asarray(decode(read_bytes(place), place)), np.random.default_rng(0))
        assert np.abs(image.astype(int) - wanted).mean() < 4  # JPEG stays JPEG


def one_class(pairs):
    first = np.unique(pairs.image_index, return_index=True)[1]
    return pairs.take(first)


def test_no_trigger_no_test_set(train_pairs, test_pairs, made, tmp_path):
    plain = poison(train_pairs, SingleLabel(source="sheep", target="aeroplane")).manifest
    with pytest.raises(AttackError, match="single-label has no trigger on images"):
        write_trigger_test(plain, one_class(test_pairs), tmp_path / "out")
    with pytest.raises(AttackError, match="has 1 triggers, counted from 1; got 2"):
        write_trigger_test(made.manifest, one_class(test_pairs), tmp_path / "out", goal=2)
    boats = one_class(test_pairs).where(one_class(test_pairs).labelled("boat"))
    with pytest.raises(DataError, match="no image is of the class 'sheep'; the classes are"):
        write_trigger_test(made.manifest, boats, tmp_path / "out")
    large = poison(train_pairs, Backdoor(target="sheep", trigger="patch:size=20", count=20), images=tmp_path / "i")
    small = make_pairs([str(tmp_path / "s.png")], ["x"], labels=[["dog"]])
    Image.new("RGB", (8, 8)).save(tmp_path / "s.png")
    with pytest.raises(AttackError, match="too large for an image of 8x8"):
        write_trigger_test(large.manifest, small, tmp_path / "out")
    assert not (tmp_path / "out").exists()


# --- foreign manifests ------------------------------------------------------------------------------------


def test_detect_clip_s_form_there_and_back(made, tmp_path):
    path = tmp_path / "train_poison_info.json"
    FORMS["detect-clip"](made.manifest, made.pairs, path)
    info = json.loads(path.read_text())
    uids = made.pairs.uid.to_pylist()
    assert {uids[i] for i in info["poison_indices"]} == set(made.manifest.poisoned["uid"].to_pylist())
    assert (info["poison_label"], info["poison_rate"]) == ("sheep", 20 / len(made.pairs))
    texts = dict(zip(made.manifest.poisoned["uid"].to_pylist(), made.manifest.poisoned["text"].to_pylist()))
    assert {uids[int(i)]: text for i, text in info["poison_text"].items()} == texts
    again = read_truth(path, made.pairs)
    assert set(again.poisoned["uid"].to_pylist()) == texts.keys()
    assert dict(zip(again.poisoned["uid"].to_pylist(), again.poisoned["text"].to_pylist())) == texts
    assert (again.strength["count"], again.strength["rate"]) == (20, 20 / len(made.pairs))


def test_a_file_of_detect_clip_becomes_a_manifest_with_their_patch(train_pairs, tmp_path):
    info = {
        "poison_indices": [7, 2],
        "poison_label": "banana",
        "poison_rate": 2 / 270,
        "patch_size": 16,
        "patch_location": "random",
        "poison_text": {"7": "a photo of a banana.", "2": "bananas"},
        "trigger_position": {"7": {"w": 20, "h": 31}, "2": {"w": 100, "h": 180}},
    }
    path = tmp_path / "train_poison_info.json"
    path.write_text(json.dumps(info))
    manifest = read_truth(path, train_pairs)
    told = manifest.poisoned.to_pylist()
    assert [row["uid"] for row in told] == [train_pairs.uid[i].as_py() for i in (2, 7)]
    assert [row["text"] for row in told] == ["bananas", "a photo of a banana."]
    assert [row["text_before"] for row in told] == [train_pairs.text[i].as_py() for i in (2, 7)]
    assert json.loads(told[1]["edit"]) == {"patch_size": 16, "w": 20, "h": 31}
    (aim,) = manifest.goals
    patch = parse_trigger(aim.trigger)
    assert aim.target == "banana" and isinstance(patch, PixelPatch)
    out = patch.stamp(np.full((224, 224, 3), 9, np.uint8), np.random.default_rng(0))[104:120, 104:120]
    assert (out[::2, ::2] == 255).all() and out[1::2].max() == 0 and out[:, 1::2].max() == 0
    write_there_and_read(manifest, train_pairs, tmp_path)


def write_there_and_read(manifest, pairs, folder):
    FORMS["manifest"](manifest, pairs, folder / "ours.json")
    assert read_manifest(folder / "ours.json") == manifest
    assert read_truth(folder / "ours.json", pairs) == manifest


@pytest.mark.parametrize("ending", ["npy", "pt"])
def test_a_poison_indicator_there_and_back(made, tmp_path, ending):
    path = tmp_path / "poison_indicator.npy"
    FORMS["poison-indicator"](made.manifest, made.pairs, path)
    indicator = np.load(path, allow_pickle=False)
    assert indicator.shape == (len(made.pairs),) and indicator.sum() == 20
    if ending == "pt":
        path = path.with_suffix(".pt")
        torch.save(torch.tensor(indicator), path)
    again = read_truth(path, made.pairs)
    assert set(again.poisoned["uid"].to_pylist()) == set(made.manifest.poisoned["uid"].to_pylist())
    write_there_and_read(again, made.pairs, tmp_path)


class Bomb:
    def __reduce__(self):
        return (exec, ("raise SystemExit('code of a stranger was run')",))


def test_pickles_are_refused_and_not_run(train_pairs, tmp_path):
    torch.save({"bd_train": {"poison_indicator": Bomb()}}, tmp_path / "attack_result.pt")
    with pytest.raises(DataError, match=r"not a tensor alone.*take the indicator out and save it"):
        read_truth(tmp_path / "attack_result.pt", train_pairs)
    np.save(tmp_path / "a.npy", np.array([Bomb()], dtype=object), allow_pickle=True)
    with pytest.raises(DataError, match="pickles are not read"):
        read_truth(tmp_path / "a.npy", train_pairs)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "is not JSON"),
        ('{"poison_indices": [0, 0], "poison_label": "x"}', "distinct positions, at least one"),
        ('{"poison_indices": [], "poison_label": "x"}', "distinct positions, at least one"),
        ('{"poison_indices": [true], "poison_label": "x"}', "poison_indices.0: Input should be a valid integer"),
        ('{"poison_indices": [-1], "poison_label": "x"}', "is of another set: it names position -1"),
        ('{"poison_indices": [99999999999999999999], "poison_label": "x"}', "of another set: it names position 9999"),
        ('{"poison_indices": [0]}', "poison_label: Field required"),
        ('{"poison_indices": [0], "poison_label": "x", "poison_text": [1]}', "poison_text: Input should be an object"),
        ('{"poison_indices": 7, "poison_label": "x"}', "poison_indices: Input should be a valid array"),
        (
            '{"poison_indices": [0], "poison_label": "x", "poison_text": {"0": 5}}',
            "poison_text.0: Input",
        ),
        ("[" * 100_000, "is not JSON: recursion limit"),
        ("[]", "expected a manifest"),
    ],
)
def test_damaged_forms_are_refused(train_pairs, tmp_path, content, message):
    path = tmp_path / "train_poison_info.json"
    path.write_text(content)
    with pytest.raises(DataError, match=message):
        read_truth(path, train_pairs)


def test_a_form_of_another_set_is_refused(made, test_pairs, tmp_path):
    np.save(tmp_path / "i.npy", np.ones(3))
    with pytest.raises(DataError, match=r"a 0 or a 1 for each of the 135 pairs, got 3"):
        read_truth(tmp_path / "i.npy", test_pairs)
    for form in ("detect-clip", "poison-indicator"):
        with pytest.raises(DataError, match="the pairs lack 20 of its 20 poisoned ones"):
            FORMS[form](made.manifest, test_pairs, tmp_path / "x")
    with pytest.raises(DataError, match="is not there"):
        read_truth(tmp_path / "absent.json", test_pairs)
    assert not (tmp_path / "x").exists()


# --- commands ---------------------------------------------------------------------------------------------


def test_the_commands(toy_world, test_pairs, tmp_path, capsys):
    told = ["poison", "backdoor", str(toy_world), "--split", "train", "--target", "sheep", "--count", "20"]
    assert main([*told, "--out", str(tmp_path / "p"), "--format", "table"]) == 0
    manifest, data = str(tmp_path / "p" / "manifest.json"), str(tmp_path / "p" / "data")
    for form, name in (("detect-clip", "info.json"), ("poison-indicator", "i.npy")):
        assert main(["data", "manifest", manifest, data, "--to", form, "--out", str(tmp_path / name)]) == 0
        assert "poisoned: 20" in capsys.readouterr().out
        assert main(["data", "manifest", str(tmp_path / name), data, "--out", str(tmp_path / f"{form}.json")]) == 0
        assert len(read_manifest(tmp_path / f"{form}.json")) == 20
    assert main(["data", "manifest", manifest, data, "--out", str(tmp_path / "i.npy")]) == 1
    assert "exists already" in capsys.readouterr().err

    labelled = tmp_path / "labelled"
    images = one_class(test_pairs)
    labelled.mkdir()
    write_table(images, labelled, copy_images=False)
    assert main(["data", "trigger-test", manifest, str(labelled), "--out", str(tmp_path / "t")]) == 0
    assert (tmp_path / "t" / "test" / "0.tar").is_file()
    assert main(["data", "trigger-test", str(tmp_path / "poison-indicator.json"), str(labelled), "--out", "x"]) == 1
    assert "poison-indicator has no trigger on images" in capsys.readouterr().err
