"""Remote paths: read by ranges, written whole, kept within a limit, and never touched by a stranger's wish."""

import copy
import importlib.util
import io
import json
import os
import tarfile
import threading
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.feather as feather
import pyarrow.parquet as pq
import pytest
from PIL import Image

from mithridate.auditing.filter import filter
from mithridate.auditing.keep import read_keep_list
from mithridate.auditing.output import write_filtered
from mithridate.auditing.threshold import Budget
from mithridate.cli import main
from mithridate.data.images import read_bytes
from mithridate.data.labelled import read_labelled
from mithridate.data.locations import as_places
from mithridate.data.pairs import make_pairs
from mithridate.data.read import read_pairs
from mithridate.data.write import convert
from mithridate.encoder.embed import embed
from mithridate.encoder.embeddings import read_embedded_pairs, read_embeddings, write_embeddings
from mithridate.errors import AttackError, DataError, FilterError, OutputError
from mithridate.folders import new_folder
from mithridate.remote import drivers
from mithridate.remote import paths as remote
from mithridate.remote.caches import BLOCK, BlockCache, remote_cache
from mithridate.remote.paths import RemotePath, forget, is_remote, location
from mithridate.remote.ranges import RemoteObject
from mithridate.remote.uploads import MARKER

fsspec = pytest.importorskip("fsspec")


class Store:
    """Everything at `memory://`, and what is fetched of it."""

    def __init__(self):
        self.driver = drivers.filesystem("memory")
        self.fetched = []

    def put(self, folder, address):
        for path in sorted(Path(folder).rglob("*")):
            if path.is_file():
                self.write(f"{address}/{path.relative_to(folder).as_posix()}", path.read_bytes())
        return address

    def write(self, address, raw):
        self.driver.pipe_file(address, raw)
        forget()

    def names(self, address):
        return sorted(name.removeprefix("/") for name in self.driver.find(address))


@pytest.fixture
def store(monkeypatch, tmp_path):
    monkeypatch.setenv("MITHRIDATE_CACHE", str(tmp_path / "cache"))
    found = Store()
    fetch = type(found.driver).cat_file

    def counted(self, path, start=None, end=None, **options):
        raw = fetch(self, path, start=start, end=end, **options)
        found.fetched.append(len(raw))
        return raw

    monkeypatch.setattr(type(found.driver), "cat_file", counted)
    found.driver.store.clear()
    found.driver.pseudo_dirs[:] = [""]
    forget()
    yield found
    found.driver.store.clear()


def picture(shade=0, side=8):
    buffer = io.BytesIO()
    Image.new("RGB", (side, side), (shade, 10, 20)).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """Six pictures in a folder, and the pairs of them."""
    folder = tmp_path_factory.mktemp("pictures")
    (folder / "images").mkdir()
    for number in range(6):
        (folder / "images" / f"{number}.png").write_bytes(picture(30 * number))
    names = [str(folder / "images" / f"{number}.png") for number in (0, 0, 1, 2, 3, 4, 5)]
    texts = [f"caption {row}, 'quoted'" for row in range(7)]
    labels = [["dog"], ["dog"], ["cat"], [], ["dog"], ["cat"], ["dog"]]
    return folder, make_pairs(names, texts, labels=labels, split="train", salt=b"pictures")


def same_pairs(found, expected):
    for name in ("uid", "text", "labels", "split"):
        assert found.table[name].to_pylist() == expected.table[name].to_pylist()
    here, there = (list(map(read_bytes, pairs.image.to_pylist())) for pairs in (found, expected))
    assert here == there
    assert all(map(is_remote, found.image.to_pylist()))


def complaint(capsys, *argv):
    capsys.readouterr()
    assert main([str(word) for word in argv]) == 1
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1
    return lines[0]


# --- paths ----------------------------------------------------------------------------------------------


def test_what_a_user_names_becomes_a_path():
    found = location("S3://bucket/folder//x.tar")
    assert isinstance(found, RemotePath) and isinstance(found, Path)
    assert str(found) == "s3://bucket/folder/x.tar"
    assert (found.name, found.suffix, str(found.parent), str(found.parent / "y")) == (
        "x.tar",
        ".tar",
        "s3://bucket/folder",
        "s3://bucket/folder/y",
    )
    assert found.resolve() is found and str(found.relative_to(found.parent)) == "x.tar"
    assert location("file:///tmp/a b") == Path("/tmp/a b")
    assert type(location("folder/x")) is type(Path())
    assert location(Path("s3://bucket/x")) == location("s3://bucket/x")  # as a program may write it
    assert type(location(Path("/s3:/x"))) is type(Path())


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("ftp://host/x", "not supported"),
        ("http://host/x", "not supported"),
        ("file://host/x", "names no file"),
        ("s3://", "names nothing"),
        ("https://me:secret@host/x", "name or password"),
    ],
)
def test_addresses_that_are_not_read(address, said):
    with pytest.raises(DataError, match=said) as caught:
        location(address)
    assert "secret" not in str(caught.value)


def test_a_remote_path_is_never_taken_for_a_local_one():
    with pytest.raises(DataError, match="local file or folder"):
        (location("memory://a") / "b").mkdir()
    with pytest.raises(DataError, match="opened for writing"):
        location("memory://a/b").write_text("x")


def test_a_missing_driver_is_one_sentence(monkeypatch, capsys):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert "mithridate[s3]" in complaint(capsys, "data", "describe", "s3://bucket/x.tar")
    assert "mithridate[gcs]" in complaint(capsys, "data", "describe", "gs://bucket/x.tar")


# --- reading --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["table", "webdataset", "imagefolder"])
def test_layouts_come_back_from_a_remote_folder(form, pictures, store, tmp_path):
    _, pairs = pictures
    local = read_pairs(convert(pairs, tmp_path / "local", to=form))
    convert(pairs, location("memory://sets/out"), to=form)
    assert store.names("memory://sets/out") == sorted(
        f"sets/out/{path.relative_to(tmp_path / 'local').as_posix()}"
        for path in (tmp_path / "local").rglob("*")
        if path.is_file()
    )
    found = read_pairs("memory://sets/out")
    same_pairs(found, local)
    assert found.fingerprint == local.fingerprint


def write_csv(table, path):
    pa_csv.write_csv(table, path)


def write_tsv(table, path):
    pa_csv.write_csv(table, path, pa_csv.WriteOptions(delimiter="\t"))


def write_lines(table, path):
    path.write_text("".join(json.dumps(row) + "\n" for row in table.to_pylist()))


def write_packed_lines(table, path):
    import gzip

    path.write_bytes(gzip.compress("".join(json.dumps(row) + "\n" for row in table.to_pylist()).encode()))


TABLES = {
    "t.csv": write_csv,
    "t.tsv": write_tsv,
    "t.jsonl": write_lines,
    "t.jsonl.gz": write_packed_lines,
    "t.json": lambda table, path: path.write_text(json.dumps(table.to_pylist())),
    "t.parquet": pq.write_table,
    "t.arrow": lambda table, path: feather.write_feather(table, path, compression="uncompressed"),
}


@pytest.mark.parametrize("name", TABLES)
def test_tables_of_every_kind_name_images_beside_them(name, pictures, store, tmp_path):
    folder, pairs = pictures
    names = [Path(image).relative_to(folder).as_posix() for image in pairs.image.to_pylist()]
    table = pa.table({"filepath": names, "title": pairs.text.to_pylist()})
    TABLES[name](table, tmp_path / name)
    (tmp_path / "images").symlink_to(folder / "images")
    store.put(folder, "memory://tables")
    store.write(f"memory://tables/{name}", (tmp_path / name).read_bytes())
    same_pairs(read_pairs(f"memory://tables/{name}"), read_pairs(tmp_path / name))
    # a local table with the images elsewhere, which the user names
    assert read_pairs(tmp_path / name, image_root="memory://tables").image[0].as_py() == "memory://tables/images/0.png"


def test_images_inside_parquet_and_class_folders_and_caption_files(pictures, store, tmp_path):
    _, pairs = pictures
    cells = [{"bytes": Path(image).read_bytes(), "path": None} for image in pairs.image.to_pylist()]
    pq.write_table(pa.table({"image": cells, "text": pairs.text.to_pylist()}), tmp_path / "t.parquet")
    store.write("memory://hub/t.parquet", (tmp_path / "t.parquet").read_bytes())
    same_pairs(read_pairs("memory://hub/t.parquet"), read_pairs(tmp_path / "t.parquet"))

    for number in range(6):
        path = tmp_path / "classes" / ("cat" if number % 2 else "dog") / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(picture(number))
    store.put(tmp_path / "classes", "memory://classes")
    same_pairs(read_labelled("memory://classes"), read_labelled(tmp_path / "classes"))

    for number in range(2):
        (tmp_path / "beside" / "train").mkdir(parents=True, exist_ok=True)
        (tmp_path / "beside" / "train" / f"{number}.png").write_bytes(picture(number))
        (tmp_path / "beside" / "train" / f"{number}.txt").write_text(f"caption {number}\n")
    store.put(tmp_path / "beside", "memory://beside")
    same_pairs(read_pairs("memory://beside"), read_pairs(tmp_path / "beside"))


def test_patterns_and_lists(pictures, store, tmp_path):
    _, pairs = pictures
    for number in range(3):
        part = pairs.take([2 * number, 2 * number + 1])
        convert(part, location(f"memory://set{number}"), to="webdataset")
    whole = [uid for uid in pairs.uid.to_pylist() if uid != pairs.uid[6].as_py()]
    for source in ("memory://set{0..2}/00000.tar", "memory://set*/*.tar", "memory://set0::memory://set{1,2}"):
        assert read_pairs(source).uid.to_pylist() == whole
    with pytest.raises(DataError, match="do not exist"):
        read_pairs("memory://set{0..3}/00000.tar")
    with pytest.raises(DataError, match="nothing matches"):
        read_pairs("memory://other*/*.tar")
    with pytest.raises(DataError, match="does not exist"):
        read_pairs("memory://other/x.tar")
    with pytest.raises(DataError, match="lists no folders"):
        read_pairs("https://host.invalid/*.tar")


# --- ranges and the cache -------------------------------------------------------------------------------


MEMBER = 5 * BLOCK


def big_tar(members=40):
    raw = io.BytesIO()
    rng = np.random.default_rng(0)
    with tarfile.open(fileobj=raw, mode="w") as tar:
        for number in range(members):
            for ending, content in (("jpg", rng.bytes(MEMBER)), ("txt", b"a caption")):
                member = tarfile.TarInfo(f"{number:05d}.{ending}")
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))
    return raw.getvalue()


def test_a_shard_is_indexed_and_its_members_are_read_by_ranges(store):
    raw = big_tar()
    store.write("memory://shards/0.tar", raw)
    pairs = read_pairs("memory://shards/0.tar")
    assert len(pairs) == 40
    # a header or two a sample, and what its block holds besides
    assert sum(store.fetched) < len(raw) / 2 and max(store.fetched) <= 2 * BLOCK
    store.fetched.clear()
    place = pairs.image[20].as_py()
    offset, size = map(int, place.rpartition("#")[2].split("+"))
    assert read_bytes(place) == raw[offset : offset + size]
    assert MEMBER - 2 * BLOCK <= sum(store.fetched) <= MEMBER + 2 * BLOCK
    store.fetched.clear()
    assert read_bytes(place) == raw[offset : offset + size]
    assert not store.fetched


def test_a_column_of_a_table_is_read_without_the_others(store, tmp_path):
    rng = np.random.default_rng(0)
    table = pa.table({"image": [rng.bytes(200_000) for _ in range(40)], "text": [f"caption {n}" for n in range(40)]})
    pq.write_table(table, tmp_path / "t.parquet", row_group_size=4)
    store.write("memory://t.parquet/t.parquet", (tmp_path / "t.parquet").read_bytes())
    pairs = read_pairs("memory://t.parquet/t.parquet")
    assert sum(store.fetched) < 3_000_000 < (tmp_path / "t.parquet").stat().st_size
    store.fetched.clear()
    assert read_bytes(pairs.image[17].as_py()) == table["image"][17].as_py()
    assert sum(store.fetched) < 4 * 200_000 + 8 * BLOCK  # its row group


def test_who_reads_forward_is_given_more_at_once(store):
    raw = np.random.default_rng(0).bytes(100 * BLOCK + 7)
    store.write("memory://a/x", raw)
    with location("memory://a/x").open("rb") as file:
        assert b"".join(iter(lambda: file.read(10_000), b"")) == raw
    assert len(store.fetched) < 10 and sum(store.fetched) == len(raw)


def test_an_object_that_changed_is_read_anew(store):
    store.write("memory://a/x", b"before")
    assert location("memory://a/x").read_bytes() == b"before"
    store.write("memory://a/x", b"behind")
    assert location("memory://a/x").read_bytes() == b"behind"


def test_without_a_word_on_changes_nothing_is_kept(store):
    store.write("memory://a/x", b"x" * BLOCK)
    content = RemoteObject("memory://a/x", BLOCK, "key", settled=False)
    content.span(0, 10)
    forget()
    content.span(0, 10)
    assert store.fetched == [BLOCK, BLOCK] and remote_cache().used() == 0


def test_the_cache_holds_its_limit_and_lets_the_oldest_go(tmp_path):
    cache = BlockCache(tmp_path, 10 * BLOCK)
    block = b"x" * BLOCK
    for number in range(8):
        cache.write(f"key{number}", 0, block)
        os.utime(tmp_path / f"key{number}.sums", (number, number))
    os.utime(tmp_path / "key0.sums", (100, 100))  # used again
    cache.write("new", 0, block * 4)
    assert cache.used() <= 10 * BLOCK
    assert [n for n in range(8) if cache.read(f"key{n}", 0, 1)] == [0, 3, 4, 5, 6, 7]
    assert set(cache.read("new", 0, 9)) == {0, 1, 2, 3}
    assert BlockCache(tmp_path, 0).read("new", 0, 4) == {}


def test_a_damaged_block_is_fetched_again(store, tmp_path):
    raw = np.random.default_rng(0).bytes(3 * BLOCK)
    store.write("memory://a/x", raw)
    content = location("memory://a/x")
    content.read_bytes()
    (blocks,) = (tmp_path / "cache" / "remote").glob("*.blocks")
    with blocks.open("r+b") as file:
        file.seek(BLOCK + 5)
        file.write(b"????")
    store.fetched.clear()
    forget()
    assert content.read_bytes() == raw
    assert store.fetched == [BLOCK]


def test_a_limit_that_is_no_number_is_refused(store, monkeypatch, capsys):
    store.write("memory://a/x.csv", b"filepath,title\nx.png,a\n")
    monkeypatch.setenv("MITHRIDATE_REMOTE_CACHE", "much")
    assert "MITHRIDATE_REMOTE_CACHE must be" in complaint(capsys, "data", "describe", "memory://a/x.csv")


class Served(BaseHTTPRequestHandler):
    """A web server of a few files, some of which it refuses."""

    files: ClassVar[dict[str, bytes]] = {}
    ranges: ClassVar[list[str]] = []
    knows_ranges = True

    def do_HEAD(self):
        self.answer(body=False)

    def do_GET(self):
        self.answer(body=True)

    def answer(self, *, body):
        if self.path == "/private.csv":
            self.send_error(403)
        elif self.path not in self.files:
            self.send_error(404)
        else:
            raw, asked = self.files[self.path], self.headers.get("Range")
            if asked and self.knows_ranges:
                self.ranges.append(asked)
                first, last = map(int, asked.removeprefix("bytes=").split("-"))
                self.send_response(206)
                self.send_header("Content-Range", f"bytes {first}-{last}/{len(raw)}")
                raw = raw[first : last + 1]
            else:
                self.send_response(200)
            self.send_header("Content-Length", str(len(raw)))
            self.send_header("ETag", '"1"')
            self.end_headers()
            if body:
                with suppress(ConnectionError):
                    self.wfile.write(raw)

    def log_message(self, format, *args):
        pass


@pytest.fixture
def web(store, monkeypatch):
    """The address of such a server, read as `https://` would be, whose certificates need more than a test has."""
    pytest.importorskip("aiohttp")
    monkeypatch.setitem(drivers.SCHEMES, "http", drivers.SCHEMES["https"])
    monkeypatch.setattr(remote, "_PREFIXES", (*remote._PREFIXES, "http://"))
    monkeypatch.setattr(Served, "files", {})
    monkeypatch.setattr(Served, "ranges", [])
    server = ThreadingHTTPServer(("127.0.0.1", 0), Served)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_web_server_gives_ranges(web, pictures, monkeypatch):
    folder, _ = pictures
    Served.files |= {f"/set/images/{n}.png": (folder / "images" / f"{n}.png").read_bytes() for n in range(6)}
    Served.files["/set/t.csv"] = b"filepath,title\nimages/0.png,a\nimages/5.png,b\n"
    Served.files["/set/0.tar"] = big_tar(10)
    pairs = read_pairs(f"{web}/set/t.csv")
    assert read_bytes(pairs.image[1].as_py()) == Served.files["/set/images/5.png"]
    Served.ranges.clear()
    place = read_pairs(f"{web}/set/{{0..0}}.tar").image[4].as_py()
    assert len(Served.ranges) >= 10
    Served.ranges.clear()
    assert len(read_bytes(place)) == MEMBER and 1 <= len(Served.ranges) <= 2
    monkeypatch.setattr(Served, "knows_ranges", False)
    Served.files["/set/1.tar"] = big_tar(12)
    with pytest.raises(DataError, match="ranges"):
        read_pairs(f"{web}/set/1.tar")
    with pytest.raises(DataError, match="does not exist"):
        read_pairs(f"{web}/set/nothing.csv")
    with pytest.raises(DataError, match="is refused"):
        read_pairs(f"{web}/private.csv")
    with pytest.raises(DataError, match="cannot be reached"):
        read_pairs("http://127.0.0.1:9/x.csv")


# --- what a stranger may not ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    ["s3://other/x.png", "https://host.invalid/x.png", "memory://other/x.png", "/etc/hostname", "../other/x.png"],
)
@pytest.mark.parametrize("table", ["local", "remote"])
def test_a_table_names_nothing_outside_its_folder(name, table, store, tmp_path):
    text = f"filepath,title\n{name},a caption\n"
    path = tmp_path / "t.csv"
    path.write_text(text)
    if table == "remote":
        store.write("memory://tables/t.csv", text.encode())
        path = "memory://tables/t.csv"
    drivers_before = dict(drivers._DRIVERS)
    with pytest.raises(DataError):
        read_pairs(path)
    assert drivers_before == drivers._DRIVERS  # nobody was asked
    found = read_pairs(path, allow_outside=True).image[0].as_py()
    assert found.endswith(name.rpartition("/")[2])


@pytest.mark.parametrize("name", ["ftp://host/x.png", "file:///etc/hostname", "http://host/x.png"])
def test_other_addresses_are_never_read_from_a_table(name, tmp_path):
    (tmp_path / "t.csv").write_text(f"filepath,title\n{name},a caption\n")
    with pytest.raises(DataError, match="web addresses"):
        read_pairs(tmp_path / "t.csv", allow_outside=True)


@pytest.mark.parametrize(
    "name", ["%2e%2e/private.png", "a/%2E%2E/b.png", "..\\x.png", "x.png?delete=1", "a/../../x.png"]
)
def test_names_that_a_server_might_read_as_another_place_are_outside(name):
    folder = location("https://host.invalid/set")
    names = pa.chunked_array([[name]])
    with pytest.raises(DataError, match="outside"):
        as_places(names, folder, "table", allow_outside=False)
    inside = as_places(pa.chunked_array([["a/x.png", f"{folder}/y.png"]]), folder, "table", allow_outside=False)
    assert inside.to_pylist() == [f"{folder}/a/x.png", f"{folder}/y.png"]


def test_a_file_of_a_stranger_does_not_reach_the_network(store, monkeypatch):
    """Neither a trigger's picture nor anything else that is not checked as a table is."""
    from mithridate.poisoning.patterns import picture as pattern

    monkeypatch.setenv("MITHRIDATE_REMOTE_ALLOWED", "s3://other")
    before = dict(drivers._DRIVERS)
    for place in ("https://host.invalid/x.png", "s3://b/x.png", "s3://b/x.tar#0+9", "s3://b/x.parquet#0@image"):
        with pytest.raises(DataError, match="no argument of yours"):
            read_bytes(place)
    with pytest.raises(AttackError, match="no argument of yours"):
        pattern("https://host.invalid/x.png", 8)
    assert before == drivers._DRIVERS
    path = location("s3://bucket/folder/x.tar")  # the user names it
    assert os.environ["MITHRIDATE_REMOTE_ALLOWED"] == "s3://other s3://bucket"
    assert copy.copy(path) == path


def test_a_large_object_is_no_image(store, monkeypatch):
    monkeypatch.setattr("mithridate.data.images.MAX_BYTES", 1000)
    store.write("memory://a/x.png", b"x" * 1001)
    with pytest.raises(DataError, match="at most 1000"):
        read_bytes("memory://a/x.png")
    assert not store.fetched


# --- writing --------------------------------------------------------------------------------------------


@pytest.fixture
def put_stops(store, monkeypatch):
    """Makes the upload die at its n-th object, as a kill would: nothing is tidied up."""

    def stop_at(number):
        put, calls = type(store.driver).put_file, []

        def dying(self, *arguments, **options):
            calls.append(arguments)
            if len(calls) == number:
                raise KeyboardInterrupt
            return put(self, *arguments, **options)

        monkeypatch.setattr(type(store.driver), "put_file", dying)

    return stop_at


@pytest.mark.parametrize("number", [1, 4, 8])
def test_a_stopped_upload_never_counts_as_done(number, pictures, store, put_stops, monkeypatch):
    _, pairs = pictures
    out = location("memory://sets/out")
    with monkeypatch.context() as patch:
        assert patch is not None
        put_stops(number)
        with pytest.raises(KeyboardInterrupt):
            convert(pairs, out, to="table")
    assert f"sets/out/{MARKER}" in store.names("memory://sets")
    assert "sets/out/pairs.parquet" not in store.names("memory://sets")
    with pytest.raises(DataError, match="half of an upload"):
        read_pairs("memory://sets/out")
    monkeypatch.undo()
    fsspec.filesystem("memory").pipe_file("memory://sets/out/images/stray.png", b"")
    convert(pairs, location("memory://sets/out"), to="table")
    names = store.names("memory://sets/out")
    assert len(names) == 8 and f"sets/out/{MARKER}" not in names and "sets/out/images/stray.png" not in names
    with pytest.raises(OutputError, match="exists already"):
        convert(pairs, location("memory://sets/out"), to="table")


def test_overwriting_leaves_nothing_of_what_was_there(pictures, store):
    _, pairs = pictures
    convert(pairs, location("memory://sets/out"), to="table")
    convert(pairs.take([0, 1]), location("memory://sets/out"), to="webdataset", overwrite=True)
    assert store.names("memory://sets/out") == ["sets/out/00000.tar", "sets/out/sizes.json"]


def test_an_error_while_writing_sends_nothing(store):
    with pytest.raises(ZeroDivisionError), new_folder(location("memory://sets/out")) as folder:
        (folder / "x").write_text("x")
        raise ZeroDivisionError
    assert store.names("memory://sets") == []


def test_where_nothing_can_be_written(capsys, store, pictures):
    folder, _ = pictures
    store.put(folder, "memory://set")
    store.write("memory://set/t.csv", b"filepath,title\nimages/0.png,a\n")
    for out, said in (
        ("https://host.invalid/x", "can only be read"),
        ("hf://datasets/a/b", "can only be read"),
        ("s3://bucket", "whole bucket"),
        ("ftp://host/x", "not supported"),
    ):
        assert said in complaint(capsys, "data", "convert", "memory://set/t.csv", "--out", out)
    again = ("data", "convert", "memory://set/t.csv", "--out", "memory://set", "--overwrite")
    assert "which this command reads" in complaint(capsys, *again)
    words = ("train", "memory://set/t.csv", "--encoder", "test-tiny", "--out", "s3://bucket/run")
    assert "path of this machine" in complaint(capsys, *words)


def test_embeddings_and_keep_lists_go_out_and_come_back(tiny, test_pairs, store, tmp_path):
    convert(test_pairs, location("memory://set"), to="webdataset")
    assert main(["embed", "memory://set", "--encoder", "test-tiny", "--json", "--out", "memory://box/embeddings"]) == 0
    (tmp_path / "here").mkdir()
    write_embeddings(embed(tiny, read_pairs("memory://set"), cache=None), read_pairs("memory://set"), tmp_path / "here")
    expected, found = read_embeddings(tmp_path / "here"), read_embeddings("memory://box/embeddings")
    assert found.uid.equals(expected.uid) and found.weights == expected.weights
    for name in ("image", "text", "image_index"):
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name))
    assert len(store.names("memory://box/embeddings")) == 4
    assert read_embedded_pairs("memory://box/embeddings").text.equals(test_pairs.text)
    assert not (tmp_path / "cache" / "uploads").exists()

    store.write(f"memory://box/embeddings/{MARKER}", b"")
    for read in (read_embeddings, read_embedded_pairs):
        with pytest.raises(DataError, match="half of an upload"):
            read("memory://box/embeddings")

    filtered = filter(found, threshold=Budget(pairs=37))
    with new_folder(location("memory://box/kept")) as folder:
        write_filtered(filtered, folder)
    kept = read_keep_list("memory://box/kept")
    assert kept.uid.equals(filtered.kept_uids) and kept.record["kept"] == len(test_pairs) - 37
    assert len(kept.apply(read_pairs("memory://set"))) == len(kept.uid)
    again = read_keep_list("memory://box/kept/keep.npy")
    assert sorted(again.uid.to_pylist()) == sorted(kept.uid.to_pylist())
    store.write("memory://lists/mine.txt", b"\n".join(uid.encode() for uid in kept.uid.to_pylist()))
    assert read_keep_list("memory://lists/mine.txt").uid.to_pylist() == kept.uid.to_pylist()
    store.write("memory://box/kept/keep.txt", b"x\n")
    with pytest.raises(FilterError, match="not as it was written"):
        read_keep_list("memory://box/kept")


def test_rows_of_remote_embeddings_are_read_by_ranges(store, tmp_path):
    from mithridate.data.arrays import read_matrix

    matrix = np.random.default_rng(0).standard_normal((20_000, 64)).astype(np.float32)
    np.save(tmp_path / "x.npy", matrix)
    store.write("memory://a/x.npy", (tmp_path / "x.npy").read_bytes())
    rows = read_matrix(location("memory://a/x.npy"), mapped=True)
    chosen = np.array([19_999, 3, 3, 10_000, 0])
    np.testing.assert_array_equal(rows[chosen], matrix[chosen])
    assert rows.shape == (20_000, 64) and sum(store.fetched) <= 8 * BLOCK < matrix.nbytes
    np.testing.assert_array_equal(rows[np.arange(20_000)], matrix)
    assert rows[np.array([], np.int64)].shape == (0, 64)


def test_a_file_of_options_may_name_remote_places(store, pictures, tmp_path, capsys):
    folder, _ = pictures
    store.put(folder, "memory://set")
    store.write("memory://set/t.csv", b"filepath,title\nimages/0.png,a\n")
    options = tmp_path / "options.yaml"
    options.write_text("out: memory://sets/out\nto: table\n")
    assert main(["data", "convert", "memory://set/t.csv", "--config", str(options)]) == 0
    assert "sets/out/pairs.parquet" in store.names("memory://sets")
    options.write_text("out: s3://bucket/run\n")
    words = ("train", "memory://set/t.csv", "--encoder", "test-tiny", "--config", options)
    assert "path of this machine" in complaint(capsys, *words)
