"""What is written reads back as the same pairs, betrays nothing and has the same bytes every time."""

import gc
import io
import json
import tarfile
from inspect import unwrap

import numpy as np
import pytest
from PIL import Image
from webdataset.compat import WebDataset

from mithridate.data.images import read_bytes
from mithridate.data.pairs import make_pairs
from mithridate.data.read import read_pairs
from mithridate.data.write import convert, image_ending, write_imagefolder, write_table, write_webdataset
from mithridate.errors import DataError, OutputError


@pytest.fixture
def pairs(tmp_path):
    """Six pairs of four images: of several captions, several formats, wrong endings, odd captions."""
    (tmp_path / "in").mkdir()
    for name, form in (("a.jpg", "JPEG"), ("b.png", "PNG"), ("c.png", "JPEG"), ("d.webp", "WEBP")):
        Image.new("RGB", (8, 8), (len(name), ord(name[0]), 5)).save(tmp_path / "in" / name, form)
    image = [str(tmp_path / "in" / name) for name in ("a.jpg", "a.jpg", "b.png", "c.png", "d.webp", "a.jpg")]
    text = ["one", "two\n", 'with "quotes", and\ttabs', "", "ünï 猫", "of the first image again"]
    labels = [["dog"], ["dog"], ["cat", "cow"], [], ["dog"], ["sheep"]]
    return make_pairs(image, text, labels=labels, split="train", salt=b"test")


def content(pairs):
    """Everything that must survive, whatever the order and the places."""
    rows = zip(*(pairs.table[name].to_pylist() for name in ("uid", "text", "labels", "split", "image")))
    return sorted((uid, text, labels, split, read_bytes(image)) for uid, text, labels, split, image in rows)


@pytest.mark.parametrize("form", ["table", "parquet", "webdataset", "imagefolder"])
def test_what_is_written_reads_back(pairs, tmp_path, form):
    out = convert(pairs, tmp_path / "out", to=form)
    assert content(read_pairs(out)) == content(pairs)
    assert not any(path.name.startswith(".out") for path in tmp_path.iterdir())
    with pytest.raises(OutputError, match="exists already"):
        convert(pairs, out, to=form)
    again = convert(pairs, tmp_path / "again", to=form)
    files = [path.relative_to(out) for path in sorted(out.rglob("*")) if path.is_file()]
    assert [(again / file).read_bytes() for file in files] == [(out / file).read_bytes() for file in files]
    if form != "parquet":
        again.rename(tmp_path / "moved")
        assert content(read_pairs(tmp_path / "moved")) == content(pairs)


@pytest.mark.filterwarnings("ignore::ResourceWarning")  # webdataset leaves its files to the garbage collector
def test_webdataset_itself_reads_it(pairs, tmp_path):
    write_webdataset(pairs.take([2, 0, 1, 3, 4]), tmp_path, samples_per_shard=3)
    assert json.loads((tmp_path / "sizes.json").read_text()) == {"00000.tar": 3, "00001.tar": 1}
    urls = [str(tmp_path / name) for name in ("00000.tar", "00001.tar")]
    samples = list(WebDataset(urls, shardshuffle=False))
    gc.collect()
    ours = read_pairs(urls)
    keys = np.array(ours.table["key"].to_pylist())
    assert [sample["__key__"] for sample in samples] == [f"{n:09d}" for n in range(4)]
    for sample in samples:
        mine = ours.where(keys == sample["__key__"])
        record = json.loads(sample["json"])
        assert record["captions"] == mine.text.to_pylist()
        assert record["uids"] == mine.uid.to_pylist()
        assert sample["txt"].decode() == mine.text[0].as_py()
        (image,) = (sample[ending] for ending in ("jpg", "png", "webp") if ending in sample)
        assert image == read_bytes(mine.image[0].as_py())


def test_shards_tell_nothing_but_names_and_sizes(pairs, tmp_path):
    write_webdataset(pairs, tmp_path)
    with tarfile.open(tmp_path / "00000.tar") as tar:
        about = {(m.mtime, m.uid, m.gid, m.uname, m.gname, m.mode, m.type) for m in tar}
        names = [m.name for m in tar]
    assert about == {(0, 0, 0, "", "", 0o644, tarfile.REGTYPE)}
    images = ["jpg", "png", "jpg", "webp", "jpg"]
    assert [name.split(".")[1] for name in names] == [end for image in images for end in (image, "txt", "json")]


def test_a_record_of_its_own_gets_a_copy_of_its_own(pairs, tmp_path):
    write_table(pairs, tmp_path, copy_images=True, records=np.array([7, 7, 3, 4, 5, 9]))
    again = read_pairs(tmp_path)
    assert again.image_index.tolist() == [0, 0, 1, 2, 3, 4]
    assert content(again) == content(pairs)
    files = [path for path in tmp_path.rglob("*") if path.parent.parent.name == "images"]
    assert len(files) == 5
    assert {len(path.stem) for path in files} == {32}
    assert {path.stat().st_mtime for path in files} == {0}
    assert sorted(path.suffix for path in files) == [".jpg", ".jpg", ".jpg", ".png", ".webp"]


def test_records_must_fit_the_pairs(pairs, tmp_path):
    with pytest.raises(ValueError, match="expected 6 of them, got 2"):
        write_table(pairs, tmp_path, copy_images=True, records=np.array([0, 1]))
    with pytest.raises(ValueError, match="must share one image, row 2 has another"):
        write_table(pairs, tmp_path, copy_images=True, records=np.zeros(6, int))


def test_an_overlay_has_the_places_of_the_source_and_its_own_images_relative(pairs, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    (out / "x.png").write_bytes(read_bytes(pairs.image[2].as_py()))
    mixed = make_pairs([pairs.image[0].as_py(), str(out / "x.png")], ["a", "b"], score=pairs.image[:2])
    write_table(mixed, out, copy_images=False)
    out.rename(tmp_path / "moved")
    again = read_pairs(tmp_path / "moved")
    assert again.image.to_pylist() == [pairs.image[0].as_py(), str(tmp_path / "moved" / "x.png")]
    assert "score" in again.table.column_names


def test_an_image_folder_of_what_is_there_already(pairs, tmp_path):
    write_imagefolder(pairs, tmp_path / "in", copy_images=False)
    lines = [json.loads(line) for line in (tmp_path / "in" / "metadata.jsonl").read_text().splitlines()]
    assert [line["file_name"] for line in lines] == ["a.jpg", "b.png", "c.png", "d.webp", "a.jpg"]
    assert lines[0]["text"] == ["one", "two\n"]
    assert content(read_pairs(tmp_path / "in")) == content(pairs)
    (tmp_path / "else").mkdir()
    with pytest.raises(DataError, match=r"a.jpg is no file in .*else; an image folder holds its images"):
        write_imagefolder(pairs, tmp_path / "else", copy_images=False)


def test_refused_images_and_layouts(pairs, tmp_path):
    with pytest.raises(DataError, match="one of table, parquet, webdataset, imagefolder, got 'zip'"):
        unwrap(convert)(pairs, tmp_path / "out", to="zip")  # the type checker would refuse it first
    secret = tmp_path / "secret.jpg"
    secret.write_text("root:x:0:0")
    with pytest.raises(DataError, match="is none of jpg, png, webp"):
        convert(make_pairs([str(secret)], ["a"]), tmp_path / "out", to="table")
    Image.new("RGB", (8, 8)).save(tmp_path / "x.gif")
    gif = make_pairs([str(tmp_path / "x.gif")], ["a"])
    with pytest.raises(DataError, match=r"tar shards take jpg, jpeg, png, webp; .* is gif"):
        convert(gif, tmp_path / "out", to="webdataset")
    assert not (tmp_path / "out").exists()
    assert content(read_pairs(convert(gif, tmp_path / "out", to="table"))) == content(gif)


@pytest.mark.parametrize(
    ("form", "ending"), [("JPEG", "jpg"), ("PNG", "png"), ("WEBP", "webp"), ("BMP", "bmp"), ("TIFF", "tif")]
)
def test_endings_come_from_the_bytes(form, ending):
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8)).save(buffer, form)
    assert image_ending(buffer.getvalue(), "x") == ending
