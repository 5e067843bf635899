"""Labelled images in folders, zips, tables and CLIP_benchmark's shards: read, matched to names, written."""

import gc
import io
import json
import os
import tarfile
import zipfile

import numpy as np
import pytest
from PIL import Image
from webdataset.compat import WebDataset

from mithridate.data.images import read_bytes
from mithridate.data.labelled import (
    class_index,
    match_classes,
    read_class_names,
    read_labelled,
    read_templates,
    write_clip_benchmark,
)
from mithridate.data.pairs import make_pairs
from mithridate.errors import DataError


def picture(shade=0, form="PNG"):
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8), (shade, 10, 20)).save(buffer, form)
    return buffer.getvalue()


def grow(root, names):
    """Pictures at the paths `names` below `root`, each of a shade of its own."""
    for shade, name in enumerate(names):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(picture(shade))
    return root


def zipped(path, names, how=zipfile.ZIP_STORED):
    with zipfile.ZipFile(path, "w", how) as archive:
        for shade, name in enumerate(names):
            archive.writestr(name, picture(shade))
    return path


def shard(path, samples):
    """A tar of {key: (image, cls)}."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for key, (image, label) in samples.items():
            for ending, raw in (("png", image), ("cls", str(label).encode())):
                member = tarfile.TarInfo(f"{key}.{ending}")
                member.size = len(raw)
                tar.addfile(member, io.BytesIO(raw))
    return path


def told(pairs):
    """What a set holds, whatever its layout: split, class and bytes of every image."""
    rows = zip(pairs.split.to_pylist(), pairs.labels.to_pylist(), pairs.image.to_pylist())
    return [(split, tuple(labels), read_bytes(place)) for split, labels, place in rows]


PLAIN = ["cat/0.png", "cat/1.PNG", "dog/deep/2.png"]
SPLITS = ["train/cat/0.png", "train/dog/1.png", "test/cat/2.png", "test/dog/3.png"]
TREES = {
    "class folders": (PLAIN, [(None, "cat"), (None, "cat"), (None, "dog")]),
    "below splits": (SPLITS, [("test", "cat"), ("test", "dog"), ("train", "cat"), ("train", "dog")]),
    "below one folder": (
        [f"set/{name}" for name in SPLITS],
        [("test", "cat"), ("test", "dog"), ("train", "cat"), ("train", "dog")],
    ),
    "one split": (["test/cat/0.png", "test/dog/1.png"], [("test", "cat"), ("test", "dog")]),
    "a class called train": (["car/0.png", "train/1.png"], [(None, "car"), (None, "train")]),
}


@pytest.mark.parametrize("kind", ["folder", "zip"])
@pytest.mark.parametrize("tree", TREES)
def test_folders_and_zips_of_classes(tmp_path, tree, kind):
    names, wanted = TREES[tree]
    source = grow(tmp_path / "set", names) if kind == "folder" else zipped(tmp_path / "set.zip", names)
    pairs = read_labelled(source)
    assert [(split, labels[0]) for split, labels, _ in told(pairs)] == wanted
    assert {raw for *_, raw in told(pairs)} == {picture(shade) for shade in range(len(names))}
    assert set(pairs.text.to_pylist()) == {""}
    assert len(set(pairs.uid.to_pylist())) == len(names)


def test_a_split_is_chosen_by_any_of_its_names(tmp_path):
    names = [name.replace("train", "validation") for name in SPLITS]
    assert len(read_labelled(grow(tmp_path, names), split="val")) == 2
    with pytest.raises(DataError, match="split 'train' is empty"):
        read_labelled(tmp_path, split="train")


def test_what_is_no_image_or_hidden_is_passed_over(tmp_path):
    grow(tmp_path / "set", [*PLAIN, ".git/x/0.png", "cat/.thumb.png"])
    (tmp_path / "set" / "cat" / "notes.txt").write_text("no image")
    assert len(read_labelled(tmp_path / "set")) == 3
    assert len(read_labelled(zipped(tmp_path / "set.zip", [*PLAIN, "__MACOSX/cat/0.png", "README.md"]))) == 3


def test_a_zip_is_read_in_place_and_never_unpacked(tmp_path):
    (tmp_path / "in").mkdir()
    hostile = ["../../etc/cat/0.png", "/abs/etc/dog/1.png"]
    pairs = read_labelled(zipped(tmp_path / "in" / "set.zip", hostile))
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["in", "set.zip"]
    assert {place.split("#")[0] for place in pairs.image.to_pylist()} == {str(tmp_path / "in" / "set.zip")}


def test_zips_that_cannot_be_read_in_place_are_refused(tmp_path):
    with pytest.raises(DataError, match=r"'cat/0.png' in .* is compressed .* unpack the zip"):
        read_labelled(zipped(tmp_path / "small.zip", PLAIN, zipfile.ZIP_DEFLATED))
    whole = zipped(tmp_path / "set.zip", PLAIN).read_bytes()
    (tmp_path / "set.zip").write_bytes(whole[:100])
    with pytest.raises(DataError, match="does not read as a zip"):
        read_labelled(tmp_path / "set.zip")
    (tmp_path / "set.zip").write_bytes(whole.replace(b"PK\x03\x04", b"PK\x03\x05", 1))
    with pytest.raises(DataError, match=r"damaged at 'cat/0.png'"):
        read_labelled(tmp_path / "set.zip")
    central = whole.index(b"PK\x01\x02")
    huge = (2**30).to_bytes(4, "little")
    (tmp_path / "set.zip").write_bytes(whole[: central + 20] + huge + huge + whole[central + 28 :])
    with pytest.raises(DataError, match="ends early, within"):
        read_labelled(tmp_path / "set.zip")
    with pytest.raises(DataError, match="holds no image"):
        read_labelled(zipped(tmp_path / "none.zip", ["README.md"]))


def test_trees_that_are_not_clear_are_refused(tmp_path):
    with pytest.raises(DataError, match=r"1 images of .* lie in no class folder, as .*loose.png"):
        read_labelled(grow(tmp_path / "a", [*PLAIN, "loose.png"]))
    with pytest.raises(DataError, match=r"both splits \('test', 'train'\) and other folders \('more'\)"):
        read_labelled(grow(tmp_path / "b", [*SPLITS, "more/cat/0.png"]))
    (grow(tmp_path / "c", PLAIN) / "cow").mkdir()
    with pytest.raises(DataError, match=r"class folder 'cow' of .* holds no image"):
        read_labelled(tmp_path / "c")
    with pytest.raises(DataError, match="split 'test' has no image of 'dog'"):
        read_labelled(grow(tmp_path / "d", SPLITS[:3]), split="test")
    (tmp_path / "e" / "cat").mkdir(parents=True)
    with pytest.raises(DataError, match="holds no image"):
        read_labelled(tmp_path / "e")


@pytest.mark.parametrize("name", ["metadata.jsonl", "metadata.csv", "list.json", "test/metadata.jsonl"])
def test_a_table_needs_classes_and_no_captions(tmp_path, name):
    path = tmp_path / name
    grow(path.parent, ["a/0.png", "b/1.png"])
    rows = [{"file_name": "a/0.png", "class": "cat"}, {"file_name": "b/1.png", "class": "sea horse"}]
    lines = {
        ".jsonl": "".join(json.dumps(row) + "\n" for row in rows),
        ".csv": "file_name,class\na/0.png,cat\nb/1.png,sea horse\n",
        ".json": json.dumps(rows),
    }
    path.write_text(lines[path.suffix])
    pairs = read_labelled(path if path.suffix == ".json" else tmp_path)
    split = "test" if "/" in name else None
    assert told(pairs) == [(split, ("cat",), picture(0)), (split, ("sea horse",), picture(1))]


def test_whatever_read_pairs_reads_has_one_row_an_image(toy_world):
    pairs = read_labelled(toy_world, split="test")
    assert len(pairs) == len(pairs.images) == 27
    assert set(pairs.text.to_pylist()) == {""}
    assert set(pairs.classes.values()) == {3}


def test_images_of_no_class_or_of_several_are_refused(tmp_path):
    grow(tmp_path, ["0.png", "1.png"])
    table = tmp_path / "metadata.jsonl"
    table.write_text('{"file_name": "0.png", "class": ["cat", "dog"]}\n{"file_name": "1.png", "class": []}\n')
    with pytest.raises(DataError, match=r"of the 2 images of .* 1 have none, 1 several, and 0 stand in rows"):
        read_labelled(tmp_path)
    table.write_text('{"file_name": "0.png", "class": "cat"}\n{"file_name": "0.png", "class": "dog"}\n')
    with pytest.raises(DataError, match="1 stand in rows that differ"):
        read_labelled(tmp_path)
    table.write_text('{"file_name": "0.png", "text": "a cat"}\n')
    with pytest.raises(DataError, match="has no labels"):
        read_labelled(tmp_path)


# --- names -----------------------------------------------------------------------------------------------


def test_a_foreign_list_is_matched_by_name_and_never_by_position():
    pairs = make_pairs(["0", "1", "2"], [""] * 3, labels=[["dog"], ["cat"], ["cow"]])
    assert match_classes(pairs) == ("cat", "cow", "dog")
    assert match_classes(pairs, ["dog", "cat", "cow"]) == ("dog", "cat", "cow")
    assert class_index(pairs, ["dog", "cat", "cow"]).tolist() == [0, 1, 2]
    assert class_index(pairs, ["cow", "dog", "cat"]).tolist() == [1, 2, 0]
    with pytest.raises(DataError, match=r"'dogs' is no class .*nearest: 'dog'.* the list lacks 'dog'"):
        match_classes(pairs, ["dogs", "cat", "cow"])
    with pytest.raises(DataError, match="the list lacks 'cow'"):
        match_classes(pairs, ["dog", "cat"])
    with pytest.raises(DataError, match="'zebra' is no class with images"):
        match_classes(pairs, ["dog", "cat", "cow", "zebra"])
    with pytest.raises(DataError, match="names 'cat' twice"):
        match_classes(pairs, ["dog", "cat", "cat"])
    with pytest.raises(DataError, match="the set has the classes 'dog'"):
        class_index(pairs, ["cat", "cow"])
    several = make_pairs(["0"], [""], labels=[["dog", "cat"]])
    with pytest.raises(DataError, match="needs one class"):
        class_index(several, ["cat", "dog"])


def layout(root, *, names: str | None = "cat\ndog\ncow\n", labels: tuple = (2, 0, 1, 0), shards=2, stated="2"):
    """CLIP_benchmark's layout by hand."""
    per = len(labels) // shards
    for number in range(shards):
        at = range(number * per, (number + 1) * per)
        shard(root / "test" / f"{number}.tar", {f"s{i:07d}": (picture(i), labels[i]) for i in at})
    (root / "test" / "nshards.txt").write_text(f"{stated}\n")
    if names is not None:
        (root / "classnames.txt").write_text(names)
    return root


def test_positions_become_the_names_in_the_sets_own_list(tmp_path):
    wanted = [("test", (name,), picture(i)) for i, name in enumerate(["cow", "cat", "dog", "cat"])]
    root = layout(tmp_path / "set")
    assert told(read_labelled(root)) == wanted
    assert told(read_labelled(root, split="test")) == wanted
    assert told(read_labelled(root / "test")) == wanted
    # one shard alone lacks classes, both do not
    assert [row[1:] for row in told(read_labelled(f"{root}/test/{{0..1}}.tar"))] == [row[1:] for row in wanted]
    with pytest.raises(DataError, match=r"names 'dog', of which .* has no image"):
        read_labelled(root / "test" / "0.tar")


def test_lists_of_names_that_do_not_fit_are_refused(tmp_path):
    with pytest.raises(DataError, match=r"the classes of .* are numbers \('0', '1', '2'\).*classnames.txt beside it"):
        read_labelled(layout(tmp_path / "a", names=None))
    with pytest.raises(DataError, match="is too short: it has 2 names, and class 2 occurs"):
        read_labelled(layout(tmp_path / "b", names="cat\ndog\n"))
    with pytest.raises(DataError, match="names 'sheep'"):
        read_labelled(layout(tmp_path / "c", names="cat\ndog\ncow\nsheep\n"))
    with pytest.raises(DataError, match=r"line 2 of .* is empty"):
        read_labelled(layout(tmp_path / "d", names="cat\n\ncow\n"))
    with pytest.raises(DataError, match=r"says 3 shards, and '2.tar' do not exist"):
        read_labelled(layout(tmp_path / "e", stated="3"))
    with pytest.raises(DataError, match="should hold the number of shards, got 'many'"):
        read_labelled(layout(tmp_path / "f", stated="many"))
    with pytest.raises(DataError, match=r"no positions in classnames.txt: '-1', 'cat'"):
        read_labelled(layout(tmp_path / "g", labels=(0, "cat", -1, 1)))
    grow(tmp_path / "h", ["0/0.png", "1/1.png"])
    with pytest.raises(DataError, match="are numbers"):
        read_labelled(tmp_path / "h")
    (tmp_path / "h" / "classnames.txt").write_text("zero\none\n")
    assert read_labelled(tmp_path / "h").classes == {"one": 1, "zero": 1}
    (tmp_path / "h" / "classnames.txt").write_bytes(b"\xff\xfe\xff")
    with pytest.raises(DataError, match=r"is not UTF-8 .* looks like utf-16: save it as UTF-8"):
        read_labelled(tmp_path / "h")


def test_a_name_that_stands_twice_is_one_class(tmp_path):
    """ImageNet's list has `missile` and `sunglasses` twice: no prompt can tell the two apart."""
    pairs = read_labelled(layout(tmp_path, names="cat\nmissile\nmissile\n"))
    assert [labels for _, labels, _ in told(pairs)] == [("missile",), ("cat",), ("missile",), ("cat",)]


# --- written --------------------------------------------------------------------------------------------------


@pytest.fixture
def source(tmp_path):
    """Images of three classes in two splits and three formats."""
    root = tmp_path / "source"
    forms = {"jpg": "JPEG", "png": "PNG", "webp": "WEBP"}
    for i, (ending, form) in enumerate(list(forms.items()) * 4):
        path = root / ("train" if i % 2 else "test") / ("cat", "sea horse", "dog")[i % 3] / f"{i}.{ending}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(picture(i, form))
    return root


TEXTS = ("a photo of a {}.", "{}")


def test_what_is_written_reads_back_the_same(source, tmp_path):
    pairs = read_labelled(source)
    names = ("sea horse", "cat", "dog")
    out = write_clip_benchmark(pairs, tmp_path / "out", classnames=names, templates=TEXTS, samples_per_shard=4)
    assert told(read_labelled(out)) == told(pairs)
    assert told(read_labelled(out, split="train")) == told(read_labelled(source, split="train"))
    assert read_class_names(out / "classnames.txt") == list(names)
    assert (out / "zeroshot_classification_templates.txt").read_text() == "a photo of a {c}.\n{c}\n"
    assert read_templates(out / "zeroshot_classification_templates.txt") == ["a photo of a {}.", "{}"]
    assert (out / "test" / "nshards.txt").read_text() == "2\n"
    again = write_clip_benchmark(pairs, tmp_path / "again", classnames=names, templates=TEXTS, samples_per_shard=4)
    for path in out.rglob("*.tar"):
        assert path.read_bytes() == (again / path.relative_to(out)).read_bytes()


@pytest.mark.filterwarnings("ignore::ResourceWarning")  # webdataset leaves its files to the garbage collector
def test_the_webdataset_library_reads_what_is_written(source, tmp_path):
    pairs = read_labelled(source, split="test")
    out = write_clip_benchmark(pairs, tmp_path / "out", templates=["a {}"])
    names = (out / "classnames.txt").read_text().split("\n")
    samples = list(WebDataset([os.fspath(out / "test" / "0.tar")], shardshuffle=False))
    gc.collect()
    found = [(int(sample["cls"]), next(sample[e] for e in ("webp", "png", "jpg") if e in sample)) for sample in samples]
    assert [(names[label], raw) for label, raw in found] == [(labels[0], raw) for _, labels, raw in told(pairs)]


def test_sets_that_cannot_be_written_are_refused(source, tmp_path):
    pairs = read_labelled(source)
    out = tmp_path / "out"

    def write(**options):
        write_clip_benchmark(pairs, out, **{"templates": ["a {}"], **options})

    with pytest.raises(DataError, match="'cow' is no class"):
        write(classnames=["cat", "dog", "cow"])
    with pytest.raises(DataError, match=r"must hold \{\} where the class name goes, got 'a photo'"):
        write(templates=["a photo"])
    with pytest.raises(DataError, match="has braces besides"):
        write(templates=["{} {0.__class__}"])
    with pytest.raises(DataError, match="one line without blanks around it"):
        write(templates=["a\n{}"])
    with pytest.raises(DataError, match="need a list of templates"):
        write(templates=[])
    (tmp_path / "0.gif").write_bytes(picture(0, "GIF"))
    gif = make_pairs([str(tmp_path / "0.gif")], [""], labels=[["cat"]])
    with pytest.raises(DataError, match=r"tar shards take jpg, .*0.gif is gif"):
        write_clip_benchmark(gif, out, templates=["a {}"])
    climbing = make_pairs([str(tmp_path / "0.gif")], [""], labels=[["cat"]], split="../up")
    with pytest.raises(DataError, match=r"'../up' cannot name a folder"):
        write_clip_benchmark(climbing, out, templates=["a {}"])
    assert not out.exists()


def test_the_real_sets(shared_data):
    cifar = read_labelled(shared_data / "cifar10" / "cifar10_subset.zip", split="test")
    assert set(cifar.classes.values()) == {400}
    assert len(cifar.classes) == 10
    for row in np.linspace(0, len(cifar) - 1, 8).astype(int):
        with Image.open(io.BytesIO(read_bytes(cifar.image[row].as_py()))) as image:
            assert image.size == (32, 32)
    animals = read_labelled(shared_data / "voc_animals_zeroshot")
    assert animals.classes == dict.fromkeys(["cat", "cow", "dog", "horse", "sheep"], 50)
