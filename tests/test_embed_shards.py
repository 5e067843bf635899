"""Embeddings of many files, a part each: what is done stays, and the bytes depend on no number of processes."""

import hashlib
import json
import tarfile
from io import BytesIO

import numpy as np
import pyarrow.parquet as pq
import pytest

from mithridate.cli import main
from mithridate.data.read import read_pairs, separate_files
from mithridate.data.write import convert, write_webdataset
from mithridate.encoder.embed import embed
from mithridate.encoder.embeddings import read_embeddings
from mithridate.encoder.encoder import load_encoder

ENCODER = "mithridate-micro"


def write_shards(pairs, folder, count):
    """`count` tar shards of equal size; gives back their paths."""
    folder.mkdir()
    images = np.array_split(np.arange(len(pairs.images)), count)
    for number, own in enumerate(images):
        part = folder / f"part-{number}"
        part.mkdir()
        write_webdataset(pairs.where(np.isin(pairs.image_index, own)), part)
        (shard,) = part.glob("*.tar")
        shard.rename(folder / f"{number:03d}.tar")
        for left in part.iterdir():
            left.unlink()
        part.rmdir()
    return sorted(folder.glob("*.tar"))


def digests(folder):
    """Of every file below a folder a hash of its bytes."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.fixture(scope="module")
def shards(test_pairs, tmp_path_factory):
    """27 pictures with five captions each, in three shards."""
    return write_shards(test_pairs, tmp_path_factory.mktemp("shards") / "shards", 3)


def run(shards, out, *options, command="embed"):
    return main([command, str(shards[0].parent), "--encoder", ENCODER, "--out", str(out), "--json", *options])


def test_a_shard_is_a_part_and_all_parts_are_the_whole(shards, tmp_path, capsys):
    out = tmp_path / "out"
    assert run(shards, out) == 0
    said = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (said["pairs"], said["images"], said["width"], said["files"]) == (135, 27, 128, 3)
    assert sorted(path.name for path in (out / "img_emb").iterdir()) == [f"img_emb_{i}.npy" for i in range(3)]
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    parts, pairs = read_embeddings(out), read_pairs(shards[0].parent)
    whole = embed(load_encoder(ENCODER), pairs)
    assert parts.uid.equals(whole.uid)
    assert np.array_equal(parts.image_index, whole.image_index)
    assert np.allclose(parts.image, whole.image, atol=1e-6) and np.allclose(parts.text, whole.text, atol=1e-6)
    assert (parts.encoder, parts.weights) == (whole.encoder, whole.weights)


def test_a_file_that_fails_stops_no_other_and_what_is_done_stays(shards, tmp_path, capsys):
    folder, out = tmp_path / "shards", tmp_path / "out"
    folder.mkdir()
    for shard in shards:
        (folder / shard.name).write_bytes(shard.read_bytes())
    (folder / "001.tar").write_bytes(b"no tar" * 1000)
    copies = sorted(folder.glob("*.tar"))
    assert run(copies, out) == 1
    said = capsys.readouterr().err
    assert f"1 of 3 files failed: {folder / '001.tar'}" in said and "run the same command again" in said
    assert not out.exists()
    kept = sorted((tmp_path / ".out.partial").glob("*/*/part.json"))
    assert len(kept) == 2
    times = [path.stat().st_mtime_ns for path in kept]
    (folder / "001.tar").write_bytes(shards[1].read_bytes())
    hits = []
    import mithridate.encoder.embed_shards as module

    before = module.read_pairs
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            module, "read_pairs", lambda shard, **options: hits.append(shard.name) or before(shard, **options)
        )
        assert run(copies, out) == 0
    assert hits == ["001.tar"] and times
    assert len(read_embeddings(out)) == 135
    assert not (tmp_path / ".out.partial").exists()


def spoil(shard, path):
    """A copy of a shard whose first image does not decode."""
    with tarfile.open(shard) as source, tarfile.open(path, "w") as target:
        spoilt = False
        for member in source.getmembers():
            file = source.extractfile(member)
            assert file is not None
            content = file.read()
            if not spoilt and not member.name.endswith((".json", ".txt")):
                content, spoilt = content[:8] + b"\0" * (len(content) - 8), True
            target.addfile(member, BytesIO(content))
    assert spoilt


def test_a_share_of_bad_images_may_be_left_out_and_is_counted(shards, tmp_path, capsys):
    folder = tmp_path / "shards"
    folder.mkdir()
    spoil(shards[0], folder / "000.tar")
    (folder / "001.tar").write_bytes(shards[1].read_bytes())
    copies = sorted(folder.glob("*.tar"))
    assert run(copies, tmp_path / "out") == 1
    assert "1 of 9 images do not decode" in capsys.readouterr().err
    assert run(copies, tmp_path / "out", "--max-bad", "0.2") == 0
    said = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert said["left_out"] == {"image-does-not-decode": 5}
    assert (said["pairs"], said["images"]) == (85, 17) and len(read_embeddings(tmp_path / "out")) == 85
    assert run(copies, tmp_path / "out", "--max-bad", "1.5") == 1


def test_the_pairs_of_a_split_are_looked_for_in_every_file(test_pairs, train_pairs, tmp_path, capsys):
    first = write_shards(test_pairs, tmp_path / "first", 1)
    second = write_shards(train_pairs.take(range(50)), tmp_path / "second", 1)
    out = tmp_path / "out"
    both = f"{first[0]}::{second[0]}"
    command = ["embed", both, "--encoder", ENCODER, "--split", "train", "--out", str(out), "--json"]
    assert main(command) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["pairs"] == 50
    assert [path.name for path in (out / "metadata").iterdir()] == ["metadata_0.parquet"]
    assert main([*command, "--overwrite", "--split", "val"]) == 1
    assert "none of the 2 files has a pair of this split" in capsys.readouterr().err


def test_what_is_read_as_a_whole_takes_no_jobs(toy_world, tmp_path, capsys):
    assert separate_files(toy_world) == []
    command = ["embed", str(toy_world), "--encoder", ENCODER, "--out", str(tmp_path / "out"), "--jobs", "2"]
    assert main(command) == 1
    assert "is read as a whole, so --jobs, --ray and --max-errors have no use" in capsys.readouterr().err


def audited(data, out, *options):
    command = ["audit", str(data), "--encoder", ENCODER, "--out", str(out), "--json"]
    assert main([*command, *options]) == 0
    return pq.read_table(out / "scores.parquet")


@pytest.mark.slow
def test_an_audit_by_file_is_that_of_all_at_once(shards, tmp_path, capsys):
    table = convert(read_pairs(shards[0].parent), tmp_path / "table", to="parquet")
    whole, one = audited(table, tmp_path / "whole"), audited(shards[0].parent, tmp_path / "one")
    audited(shards[0].parent, tmp_path / "two", "--jobs", "2")
    assert digests(tmp_path / "one") == digests(tmp_path / "two")
    assert one.column_names == whole.column_names and one["uid"].equals(whole["uid"])
    assert np.corrcoef(one["suspicion"].to_numpy(), whole["suspicion"].to_numpy())[0, 1] > 0.999
    assert sorted(path.name for path in tmp_path.iterdir()) == ["one", "table", "two", "whole"]
    assert main(["audit", str(shards[0]), "--encoder", ENCODER, "--out", str(tmp_path / "x"), "--jobs", "2"]) == 1
    assert "share out local tar shards" in capsys.readouterr().err


@pytest.mark.slow
def test_processes_write_the_bytes_that_one_writes(shards, tmp_path):
    assert run(shards, tmp_path / "one") == 0
    assert run(shards, tmp_path / "two", "--jobs", "2") == 0
    assert digests(tmp_path / "one") == digests(tmp_path / "two")
