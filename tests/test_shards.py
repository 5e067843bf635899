"""Tar shards: members, samples, captions, patterns, damaged files."""

import io
import json
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mithridate.data.images import decode, read_bytes
from mithridate.data.read import read_pairs
from mithridate.data.shards import tar_members
from mithridate.errors import DataError

SHARED = Path(__file__).parents[2] / "shared" / "data"


def picture(shade=0, form="PNG"):
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8), (shade, 10, 20)).save(buffer, form)
    return buffer.getvalue()


def write_tar(path, members, form=tarfile.GNU_FORMAT):
    with tarfile.open(path, "w", format=form) as tar:
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            raw = content if isinstance(content, bytes) else json.dumps(content).encode()
            member.size = len(raw)
            tar.addfile(member, io.BytesIO(raw))
    return path


FORMS = {"gnu": tarfile.GNU_FORMAT, "pax": tarfile.PAX_FORMAT, "ustar": tarfile.USTAR_FORMAT}


@pytest.mark.parametrize("form", FORMS)
def test_members_are_those_that_tarfile_finds(tmp_path, form):
    long = "folder/" * 12 + "n" * (60 if form == "ustar" else 150)
    members = {"a.png": picture(), f"{long}.txt": b"caption", "é.json": {}, "b.bin": bytes(1024), "empty": b""}
    path = write_tar(tmp_path / "x.tar", members, FORMS[form])
    with tarfile.open(path, "a", format=FORMS[form]) as tar:
        for kind in (tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE):
            other = tarfile.TarInfo(f"kind{kind.decode()}.png")
            other.type, other.linkname = kind, "../../etc/passwd"
            tar.addfile(other)
        tar.addfile(tarfile.TarInfo("last.txt"))
    with tarfile.open(path) as tar:
        wanted = [(member.name, member.offset_data, member.size) for member in tar if member.isreg()]
    assert list(tar_members(path.read_bytes(), path)) == wanted


def test_captions_and_labels_wherever_they_are(tmp_path):
    members = {
        "s0.jpg": picture(0, "JPEG"),
        "s0.json": {"captions": ["one", "two"], "labels": ["dog"], "split": "train", "uids": ["a", "b"]},
        "s0.txt": b"one",
        "s1.PNG": picture(1),
        "s1.txt": b"three\n",
        "s1.json": {"title": "a page", "label": 4, "uid": "c"},
        "dir/s2.webp": picture(2, "WEBP"),
        "dir/s2.json": {"Caption": "four"},
        "s3.jpeg": picture(3, "JPEG"),
        "s3.cls": b"7\n",
        "notes.txt": b"no image here",
        "s4.jpg": picture(4, "JPEG"),
        "s4.json": {"caption": "lost", "status": "failed_to_resize", "error_message": "broken"},
        "s5.jpg": picture(5, "JPEG"),
        "s5.json": {"caption": 5, "status": "published"},
    }
    pairs = read_pairs(write_tar(tmp_path / "x.tar", members))
    assert pairs.text.to_pylist() == ["one", "two", "three", "four", "", ""]
    assert pairs.table["key"].to_pylist() == ["s0", "s0", "s1", "dir/s2", "s3", "s5"]
    assert pairs.labels.to_pylist() == [["dog"], ["dog"], ["4"], [], ["7"], []]
    assert pairs.split.to_pylist() == ["train", "train", None, None, None, None]
    assert pairs.uid.to_pylist()[:3] == ["a", "b", "c"]
    assert len(set(pairs.uid.to_pylist())) == 6
    shades = [np.asarray(decode(read_bytes(place)))[4, 4, 0] for place in pairs.images.to_pylist()]
    assert [abs(int(shade) - wanted) <= 3 for shade, wanted in zip(shades, (0, 1, 2, 3, 5))] == [True] * 5
    titled = read_pairs(tmp_path / "x.tar", caption_field="title", label_field="uid")
    assert titled.text.to_pylist()[1] == "a page"
    assert titled.labels.to_pylist()[1] == ["c"]


@pytest.fixture
def shards(tmp_path):
    for number in range(3):
        write_tar(tmp_path / f"{number:05d}.tar", {f"k{number}.png": picture(number), f"k{number}.txt": b"%d" % number})
    return tmp_path


def test_patterns_lists_and_folders(shards):
    def texts(source):
        return read_pairs(source).text.to_pylist()

    (shards / "00000.parquet").write_bytes(b"what img2dataset leaves beside its shards")
    assert texts(shards) == ["0", "1", "2"]
    assert texts(f"{shards}/{{00000..00001}}.tar") == ["0", "1"]
    assert texts(f"{shards}/*1.tar::{shards}/00000.tar") == ["1", "0"]
    assert texts([shards / "00002.tar", f"{shards}/{{00000,00001}}.tar"]) == ["2", "0", "1"]
    with pytest.raises(DataError, match=r"1 of the 2 files of .* do not exist, as .*00003.tar"):
        read_pairs(f"{shards}/{{00002..00003}}.tar")
    with pytest.raises(DataError, match="nothing matches"):
        read_pairs(f"{shards}/x*.tar")


def test_uids_belong_to_the_shard_not_to_the_selection(shards):
    alone = read_pairs(shards / "00001.tar").uid.to_pylist()
    assert alone == read_pairs(shards).uid.to_pylist()[1:2]
    (shards / "00003.tar").write_bytes((shards / "00001.tar").read_bytes())
    with pytest.raises(DataError, match=r"stands twice.*give every shard once"):
        read_pairs(shards)


def test_cut_and_foreign_files_are_refused(shards):
    path = shards / "00000.tar"
    whole = path.read_bytes()
    cuts = (100, 512, 700, 1024, 1500)
    for cut in cuts:
        path.write_bytes(whole[:cut])
        with pytest.raises(DataError, match=r"00000.tar ends early.*fetch or write it again"):
            read_pairs(path)
    path.write_bytes(whole[:156] + b"9" + whole[157:])
    with pytest.raises(DataError, match="is no tar file, or is damaged at byte 0"):
        read_pairs(path)
    path.write_bytes(b"\x1f\x8b" + whole)
    with pytest.raises(DataError, match="compressed and cannot be read in place; unpack"):
        read_pairs(path)
    path.rename(shards / "00000.tar.gz")
    with pytest.raises(DataError, match="compressed and cannot be read in place"):
        read_pairs(shards)
    path.write_bytes(b"")
    with pytest.raises(DataError, match="is empty"):
        read_pairs(path)


def test_samples_that_cannot_be_told_apart_are_refused(tmp_path):
    write_tar(tmp_path / "a.tar", {"image.v2.png": picture(), "x.txt": b"y"})
    with pytest.raises(DataError, match=r"no sample with an image.*endings txt, v2.png.*first dot"):
        read_pairs(tmp_path / "a.tar")
    write_tar(tmp_path / "b.tar", {"k.png": picture(), "k.PNG": picture()})
    with pytest.raises(DataError, match=r"holds 'k.PNG' twice"):
        read_pairs(tmp_path / "b.tar")
    write_tar(tmp_path / "c.tar", {"k.png": picture(), "k.json": b"{"})
    with pytest.raises(DataError, match=r"'k.json' in .*c.tar is not JSON"):
        read_pairs(tmp_path / "c.tar")


@pytest.mark.skipif(not (SHARED / "flickr8k").is_dir(), reason="real data are not there")
def test_flickr8k():
    pairs = read_pairs(f"{SHARED}/flickr8k/train-{{003..005}}.tar", split="train")
    assert len(pairs) == 14_980
    assert len(pairs.images) == 2_996
    assert set(pairs.image.value_counts().field("counts").to_pylist()) == {5}
    bicycle, boat = pairs.labelled("bicycle"), pairs.labelled("boat")
    assert len(pairs.where(bicycle & ~boat).images) == 103
    assert len(pairs.where(boat & ~bicycle).images) == 53
    assert decode(read_bytes(pairs.image[0].as_py())).size == (224, 224)
