"""What a source says of its samples beside captions: carried over, and never at odds with the image."""

import hashlib
import io
import json
import tarfile
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from mithridate.data.fields import SampleFields, own_keys
from mithridate.data.images import read_bytes
from mithridate.data.pairs import make_pairs
from mithridate.data.read import read_pairs
from mithridate.data.write import convert, write_webdataset
from mithridate.poisoning.apply import poison
from mithridate.poisoning.backdoor import Backdoor
from mithridate.poisoning.relabel import SingleLabel

CLASSES = ("sheep", "boat", "dog")


def picture(number):
    out = io.BytesIO()
    Image.new("RGB", (20 + number, 16), (number * 7, 30, 90)).save(out, "JPEG")
    return out.getvalue()


@pytest.fixture
def shards(tmp_path):
    """Twelve samples as img2dataset writes them, in two shards."""
    for shard in range(2):
        with tarfile.open(tmp_path / f"{shard:05d}.tar", "w") as tar:
            for number in range(6 * shard, 6 * shard + 6):
                raw, name = picture(number), CLASSES[number % 3]
                record = {
                    "url": f"https://example.org/{number}",
                    "caption": f"a {name}, number {number}",
                    "key": f"{shard:05d}{number:04d}",
                    "status": "success",
                    "error_message": None,
                    "width": 20 + number,
                    "height": 16,
                    "original_width": 200 + number,
                    "exif": json.dumps({"camera": number}),
                    "sha256": hashlib.sha256(raw).hexdigest(),
                    "uid": f"{number:032x}",
                    "label": name,
                    "licence": {"by": number},
                }
                for ending, content in (("jpg", raw), ("json", json.dumps(record).encode())):
                    member = tarfile.TarInfo(f"{record['key']}.{ending}")
                    member.size = len(content)
                    tar.addfile(member, io.BytesIO(content))
    return tmp_path


def samples(folder):
    found = {}
    for shard in sorted(folder.glob("*.tar")):
        with tarfile.open(shard) as tar:
            for member in tar:
                key, _, ending = member.name.partition(".")
                found.setdefault(key, {})[ending] = tar.extractfile(member).read()  # pyright: ignore
    return {key: (json.loads(parts["json"]), parts["jpg"], parts["txt"].decode()) for key, parts in found.items()}


def test_a_set_that_is_only_copied_keeps_every_field(shards, tmp_path):
    pairs = read_pairs(shards)
    convert(pairs, tmp_path / "out", to="webdataset")
    for number, (key, (record, raw, text)) in enumerate(samples(tmp_path / "out").items()):
        assert key == f"{number // 6:05d}{number:04d}"
        assert raw == picture(number)
        source = SampleFields().of(pairs.image[number].as_py())
        assert {name: record[name] for name in source} == source
        assert record["captions"] == [source["caption"]] == [text]
        assert record["uids"] == [source["uid"]]


@pytest.mark.parametrize(
    "attack",
    [
        SingleLabel(source="sheep", target="boat"),
        Backdoor(target="boat", trigger="patch:size=6", count=4),
        Backdoor(target="boat", trigger="patch:size=6", count=4, mode="inject"),
    ],
)
def test_no_field_is_at_odds_with_its_image_or_its_caption(shards, tmp_path, attack):
    pairs = read_pairs(shards)
    done = poison(pairs, attack, images=tmp_path / "images")
    (tmp_path / "out").mkdir()
    write_webdataset(done.pairs, tmp_path / "out", records=done.records, origin=done.origin)
    found = samples(tmp_path / "out")
    bad = set(done.manifest.poisoned["uid"].to_pylist())
    by_width = {20 + number: number for number in range(12)}
    assert len(bad) == 4
    assert len(found) == len(done.pairs)
    for key, (record, raw, text) in found.items():
        shown = by_width[Image.open(io.BytesIO(raw)).width]
        assert record["sha256"] == hashlib.sha256(raw).hexdigest()
        assert (record["width"], record["original_width"]) == (20 + shown, 200 + shown)
        assert json.loads(record["exif"]) == {"camera": shown}
        assert record["caption"] == record["captions"][0] == text
        assert [record["uid"]] == record["uids"]
        assert [record["label"]] == record["labels"]
        assert record["key"] == key
        if record["uid"] not in bad:
            number = int(record["uid"], 16)
            assert raw == picture(number)
        if isinstance(attack, SingleLabel):  # what does not describe the image stays with the sample
            assert record["licence"] == {"by": int(record["uid"], 16)}
    assert {tuple(record) for record, _, _ in found.values()} == {tuple(found[next(iter(found))][0])}
    names = [f"{number // 6:05d}{number:04d}" for number in range(12)]
    # keys of the source, unless a sample was added that has none
    assert list(found) == (names if attack.mode == "replace" else [f"{i:09d}" for i in range(len(found))])


def test_columns_of_a_table_follow_the_same_rule(tmp_path):
    places, more = [], {"sha256": [], "width": [], "note": []}
    for number in range(9):
        path = tmp_path / f"{number}.jpg"
        path.write_bytes(picture(number))
        places.append(str(path))
        more["sha256"].append(hashlib.sha256(picture(number)).hexdigest())
        more["width"].append(20 + number)
        more["note"].append(f"note {number}")
    pairs = make_pairs(
        places,
        [f"a {CLASSES[i % 3]}" for i in range(9)],
        labels=[[CLASSES[i % 3]] for i in range(9)],
        **{name: pa.array(values) for name, values in more.items()},
    )
    for attack in (
        SingleLabel(source="sheep", target="boat"),
        Backdoor(target="boat", trigger="patch:size=6", count=3),
    ):
        done = poison(pairs, attack, images=tmp_path / attack.name)
        table = done.pairs.table
        assert table.column_names == [*pairs.table.column_names]
        assert table["note"].to_pylist() == more["note"]
        for place, digest, width in zip(*(table[name].to_pylist() for name in ("image", "sha256", "width"))):
            assert digest == hashlib.sha256(read_bytes(place)).hexdigest()
            assert width == Image.open(io.BytesIO(read_bytes(place))).width


def test_a_key_is_left_out_where_it_would_join_two_images(shards, tmp_path):
    pairs = read_pairs(shards)
    attack = SingleLabel(source="sheep", target="boat")
    assert poison(pairs, attack).pairs.table["key"].to_pylist() == pairs.table["key"].to_pylist()
    added = poison(pairs, replace(attack, mode="inject"))
    assert "key" not in added.pairs.table.column_names


def test_a_place_without_json_has_no_fields(tmp_path, shards):
    (tmp_path / "a.jpg").write_bytes(picture(0))
    fields = SampleFields()
    assert fields.of(str(tmp_path / "a.jpg")) == {}
    with tarfile.open(tmp_path / "bare.tar", "w") as tar:
        for name, content in (("0.jpg", picture(0)), ("1.jpg", picture(1)), ("1.json", b"[1]"), ("2.jpg", picture(2))):
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
        member = tarfile.TarInfo("2.json")
        member.size = 3
        tar.addfile(member, io.BytesIO(b"{no"))
    with tarfile.open(tmp_path / "bare.tar") as tar:
        offsets = [(m.offset_data, m.size) for m in tar if m.name.endswith("jpg")]
    assert [fields.of(f"{tmp_path / 'bare.tar'}#{at}+{size}") for at, size in offsets] == [{}, {}, {}]


@pytest.mark.parametrize(
    ("found", "keys"),
    [
        (["a", "b-1"], ["a", "b-1"]),
        (["a", "a"], None),
        (["a", None], None),
        (["a", "../b"], None),
        (["a", "b.c"], None),
        ([1, 2], None),
    ],
)
def test_keys_of_the_source_are_used_where_each_sample_has_one(found, keys):
    assert own_keys(found) == keys


def test_rows_that_are_not_poisoned_are_as_they_were(shards, tmp_path):
    pairs = read_pairs(shards)
    done = poison(pairs, Backdoor(target="boat", trigger="sig", count=3), images=tmp_path / "images")
    clean = ~np.isin(done.pairs.uid.to_pylist(), done.manifest.poisoned["uid"].to_pylist())
    assert done.pairs.where(clean).table.equals(pairs.where(clean).table)
