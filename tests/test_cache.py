"""Decoded once, shared by all: the image store, the token cache, and folders that are whole or not there."""

import errno
import io
import os
import tarfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from mithridate.data import cache as cache_module
from mithridate.data.cache import CachedImages, DecodedImages, kept_array, open_images, save_array
from mithridate.data.locations import span_place
from mithridate.errors import OutputError
from mithridate.folders import new_folder, write_atomically
from mithridate.remote.caches import cache_folder

SHAPE = (8, 8, 3)


class Counting:
    """A transform that says how often it was asked."""

    def __init__(self):
        self.calls = 0

    def __call__(self, image):
        self.calls += 1
        return np.asarray(image.resize(SHAPE[:2]))


@pytest.fixture
def transform():
    return Counting()


@pytest.fixture
def pictures(tmp_path):
    """Six pictures of several sizes and formats."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    rng = np.random.default_rng(0)
    paths = []
    for number, (ending, form) in enumerate([("png", "PNG"), ("jpg", "JPEG"), ("webp", "WEBP")] * 2):
        paths.append(folder / f"{number}.{ending}")
        size = (8 + number, 16 - number, 3)
        Image.fromarray(rng.integers(0, 256, size, dtype=np.uint8)).save(paths[-1], form)
    return [str(path) for path in paths]


def opened(places, transform, folder, **options):
    return open_images(pa.array(places), transform, shape=SHAPE, recipe="test", folder=folder, **options)


def decoded(place):
    with Image.open(place) as image:
        return np.asarray(image.convert("RGB").resize(SHAPE[:2]))


def gather(source, index):
    pixels = source.gather(np.array(index))
    assert pixels.dtype == np.uint8
    assert pixels.shape == (len(index), *SHAPE)
    return pixels


def hidden(folder):
    return [path.name for path in folder.rglob("*") if path.name.startswith(".")]


# --- images ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("chunk", [256, 2])
def test_cached_pixels_are_those_of_decoding_and_transform(pictures, transform, tmp_path, monkeypatch, chunk):
    monkeypatch.setattr(cache_module, "_CHUNK", chunk)
    told = []
    source = opened(pictures, transform, tmp_path / "c", progress=lambda done, total: told.append((done, total)))
    order = [5, 0, 0, 3]
    assert (gather(source, order) == np.stack([decoded(pictures[i]) for i in order])).all()
    assert isinstance(source, CachedImages)
    assert source.bad == {}
    assert told[-1] == (6, 6)
    assert hidden(tmp_path / "c") == []


def test_a_second_opening_decodes_nothing_in_any_order(pictures, transform, tmp_path):
    opened(pictures, transform, tmp_path)
    assert transform.calls == 6
    before = sorted(tmp_path.rglob("*.npy"))
    for places in (pictures, pictures[::-1], pictures[2:4], [pictures[1]] * 3):
        again = opened(places, transform, tmp_path)
        assert (gather(again, range(len(places))) == np.stack([decoded(place) for place in places])).all()
    assert transform.calls == 6
    assert sorted(tmp_path.rglob("*.npy")) == before


def test_what_is_new_is_added_to_what_is_there(pictures, transform, tmp_path):
    opened(pictures[:4], transform, tmp_path)
    source = opened([pictures[5], pictures[0], pictures[4], pictures[3]], transform, tmp_path)
    assert transform.calls == 6
    assert isinstance(source, CachedImages)
    assert len(source.parts) == 2
    assert (gather(source, [3, 2, 1, 0]) == np.stack([decoded(pictures[i]) for i in (3, 4, 0, 5)])).all()


def test_the_same_bytes_at_another_place_are_not_decoded_again(pictures, transform, tmp_path):
    opened(pictures, transform, tmp_path / "c")
    copies = []
    for place in pictures:
        copies.append(str(tmp_path / f"copy-{Path(place).name}"))
        Path(copies[-1]).write_bytes(Path(place).read_bytes())
    with tarfile.open(tmp_path / "s.tar", "w") as tar:
        for number, place in enumerate(pictures):
            tar.add(place, f"{number}{Path(place).suffix}")
    with tarfile.open(tmp_path / "s.tar") as tar:
        inside = [span_place(tmp_path / "s.tar", member.offset_data, member.size) for member in tar]
    for places in (copies, inside, copies + pictures + inside):
        source = opened(places, transform, tmp_path / "c")
        assert (gather(source, range(6)) == np.stack([decoded(place) for place in pictures])).all()
    assert transform.calls == 6


def test_two_places_of_the_same_bytes_are_one_row(pictures, transform, tmp_path):
    copy = tmp_path / "copy.png"
    copy.write_bytes(Path(pictures[0]).read_bytes())
    source = opened([pictures[0], str(copy), pictures[1]], transform, tmp_path / "c")
    assert isinstance(source, CachedImages)
    assert sum(len(part.pixels) for part in source.parts) == 2
    assert (gather(source, [0, 1])[0] == gather(source, [0, 1])[1]).all()


@pytest.mark.parametrize("how", ["time", "size"])
def test_a_file_that_changed_is_decoded_again(pictures, transform, tmp_path, how):
    opened(pictures, transform, tmp_path / "c")
    path, status = Path(pictures[0]), Path(pictures[0]).stat()
    if how == "size":
        Image.new("RGB", (50, 50), (1, 2, 3)).save(path)
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
        assert path.stat().st_size != status.st_size
    else:
        raw = bytearray(path.read_bytes())
        Image.fromarray(np.full((8, 16, 3), 9, np.uint8)).save(path)
        path.write_bytes(path.read_bytes().ljust(len(raw), b"\0")[: len(raw)])
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns + 1_000_000))
        assert path.stat().st_size == status.st_size
    source = opened(pictures, transform, tmp_path / "c")
    assert transform.calls == 7
    assert (gather(source, [0])[0] == decoded(path)).all()


def test_recipes_and_shapes_do_not_mix(pictures, transform, tmp_path):
    opened(pictures, transform, tmp_path / "c")
    other = open_images(
        pa.array(pictures),
        lambda image: np.full((4, 6, 3), 7, np.uint8),
        shape=(4, 6, 3),
        recipe="another",
        folder=tmp_path / "c",
    )
    assert other.gather(np.array([1])).tolist() == np.full((1, 4, 6, 3), 7).tolist()
    opened(pictures, transform, tmp_path / "c")
    assert transform.calls == 6
    assert len(list((tmp_path / "c").iterdir())) == 2


@pytest.mark.parametrize("options", [{"limit": 0}, {"limit": 6 * 192 - 1}, {"folder": None}])
def test_without_room_every_gather_decodes_the_same_pixels(pictures, transform, tmp_path, options):
    kept = opened(pictures, transform, tmp_path / "kept")
    folder = options.pop("folder", tmp_path / "c")
    source = opened(pictures, transform, folder, **options)
    assert isinstance(source, DecodedImages)
    for index in ([0, 1, 2, 3, 4, 5], [4, 4, 0]):
        assert (gather(source, index) == gather(kept, index)).all()
    assert not (tmp_path / "c").exists()


def test_a_limit_that_is_enough_keeps_them(pictures, transform, tmp_path):
    assert isinstance(opened(pictures, transform, tmp_path, limit=6 * 192), CachedImages)


@pytest.mark.parametrize("limit", [None, 0])
def test_bad_images_are_counted_named_and_black(pictures, transform, tmp_path, limit):
    (tmp_path / "text.png").write_text("no picture")
    (tmp_path / "short.jpg").write_bytes(Path(pictures[1]).read_bytes()[:60])
    places = [pictures[0], str(tmp_path / "text.png"), pictures[1], str(tmp_path / "absent.png")]
    places.append(str(tmp_path / "short.jpg"))
    for _ in range(2):  # the second time from the cache
        source = opened(places, transform, tmp_path / "c", limit=limit)
        assert source.bad.keys() == {1, 3, 4}
        for position, reason in source.bad.items():
            assert places[position] in reason
        assert "No such file" in source.bad[3]
        pixels = gather(source, [3, 2, 1, 0, 4])
        assert not pixels[[0, 2, 4]].any()
        assert (pixels[[3, 1]] == np.stack([decoded(place) for place in pictures[:2]])).all()


@pytest.mark.parametrize("limit", [None, 0])
def test_nothing_but_bad_images(transform, tmp_path, limit):
    source = opened([str(tmp_path / "a.png"), str(tmp_path / "b.png")], transform, tmp_path / "c", limit=limit)
    assert source.bad.keys() == {0, 1}
    assert not gather(source, [1, 0]).any()
    assert transform.calls == 0


def test_a_bad_image_that_is_mended_is_taken_up(pictures, transform, tmp_path):
    late = tmp_path / "late.png"
    assert opened([pictures[0], str(late)], transform, tmp_path / "c").bad.keys() == {1}
    late.write_bytes(Path(pictures[2]).read_bytes())
    source = opened([pictures[0], str(late)], transform, tmp_path / "c")
    assert source.bad == {}
    assert (gather(source, [1])[0] == decoded(pictures[2])).all()


class FullDisk(io.FileIO):
    """A file that takes `room` bytes, over all files together."""

    room = 0

    def write(self, data):
        FullDisk.room -= len(memoryview(data).cast("B"))
        if FullDisk.room < 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return super().write(data)


@pytest.fixture
def full_disk(monkeypatch):
    """Let this many bytes be written by `Path.open`, then none; None lifts the limit."""
    real = Path.open

    def limit(room):
        FullDisk.room = room
        monkeypatch.setattr(
            Path,
            "open",
            real
            if room is None
            else lambda path, mode="r", *a, **k: FullDisk(path, "wb") if mode == "wb" else real(path, mode, *a, **k),
        )

    return limit


# in the header of the pixels, in their middle, in the hashes beside them, in the places
@pytest.mark.parametrize("room", [0, 128 + 3 * 192, 128 + 6 * 192 + 128, 128 + 6 * 192 + 128 + 128 + 60])
def test_a_full_disk_is_one_sentence_and_leaves_nothing_behind(pictures, transform, tmp_path, full_disk, room):
    full_disk(room)
    with pytest.raises(OutputError, match=r"image cache .* No space left .*--cache-limit 0"):
        opened(pictures, transform, tmp_path)
    full_disk(None)
    left = [path.name for path in tmp_path.rglob("*") if path.is_file() and path.parent.name != "pictures"]
    assert [name for name in left if name.startswith(".")] == []
    assert len([n for n in left if ".pixels." in n]) == len([n for n in left if ".keys." in n])
    source = opened(pictures, transform, tmp_path)
    assert (gather(source, range(6)) == np.stack([decoded(place) for place in pictures])).all()


def test_a_cache_that_cannot_be_made_is_one_sentence(pictures, transform, tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OutputError, match="cannot write the image cache in"):
        opened(pictures, transform, tmp_path / "file" / "cache")


def test_the_cache_lies_where_the_environment_says(monkeypatch, tmp_path):
    monkeypatch.setenv("MITHRIDATE_CACHE", str(tmp_path))
    assert cache_folder() == tmp_path
    monkeypatch.delenv("MITHRIDATE_CACHE")
    assert cache_folder() == Path.home() / ".cache" / "mithridate"


# --- tokens ------------------------------------------------------------------------------------------

END = 49407


@pytest.fixture
def seen(monkeypatch):
    """The captions that any tokenizer was given."""
    from mithridate.encoder.tokenizer import Tokenizer

    captions: list[str] = []
    real = Tokenizer.__call__

    def call(self, texts):
        captions.extend(texts)
        return real(self, texts)

    monkeypatch.setattr(Tokenizer, "__call__", call)
    return captions


def test_each_distinct_caption_is_tokenised_once(tiny, seen, tmp_path):
    from mithridate.encoder.embed import tokenise

    texts = pa.chunked_array([["a dog", "a cat"], ["a cat", None, "", "a dog"]])
    tokens, index = tokenise(tiny, texts, cache=tmp_path)
    assert sorted(seen) == ["", "a cat", "a dog"]
    assert tokens.dtype == np.uint16
    expected = tiny.tokenizer(["a dog", "a cat", "a cat", "", "", "a dog"])
    seen.clear()
    assert tokens[index].tolist() == expected.tolist()
    again, same = tokenise(tiny, texts, cache=tmp_path)
    assert seen == []
    assert again.tolist() == tokens.tolist()
    assert same.tolist() == index.tolist()
    assert hidden(tmp_path) == []
    tokenise(tiny, pa.array(["a dog", "a cow"]), cache=tmp_path)
    assert len(seen) == 2
    assert tokenise(tiny, pa.array(["a dog"]), cache=None)[0].tolist() == expected[:1].tolist()


@pytest.mark.parametrize("words", [1, 29, 30, 31, 200])
def test_an_over_long_caption_keeps_its_end_token(tiny, words):
    from mithridate.encoder.embed import tokenise

    tokens, _ = tokenise(tiny, pa.array(["sheep " * words]), cache=None)
    assert tokens.shape == (1, 32)
    end = tokens[0].argmax()
    assert tokens[0, end] == END
    assert end == min(words + 1, 31)


def test_the_token_cache_on_a_full_disk_is_one_sentence(tiny, tmp_path, full_disk):
    from mithridate.encoder.embed import tokenise

    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OutputError, match="cannot write the token cache"):
        tokenise(tiny, pa.array(["a dog"]), cache=tmp_path / "file")
    (tmp_path / "file").unlink()
    full_disk(100)
    with pytest.raises(OutputError, match=r"token cache .* No space left"):
        tokenise(tiny, pa.array(["a dog"]), cache=tmp_path)
    full_disk(None)
    assert list(tmp_path.iterdir()) == []


# --- folders -----------------------------------------------------------------------------------------


def test_folders_made_on_the_way_to_one_that_is_not_written_go_too(tmp_path):
    with pytest.raises(KeyError), new_folder(tmp_path / "a" / "b" / "c"):
        raise KeyError
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(KeyError), new_folder(tmp_path / "a" / "b" / "c"):
        (tmp_path / "a" / "mine").touch()
        raise KeyError
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["mine"]


def test_a_new_folder_is_whole_and_has_the_usual_rights(tmp_path):
    out = tmp_path / "deep" / "er"
    with new_folder(out) as folder:
        (folder / "a").write_text("1")
        assert not out.exists()
        assert folder.parent == out.parent  # a rename within one file system
    (tmp_path / "usual").mkdir()
    assert [path.name for path in out.iterdir()] == ["a"]
    assert out.stat().st_mode == (tmp_path / "usual").stat().st_mode
    assert [path.name for path in out.parent.iterdir()] == ["er"]


@pytest.mark.parametrize("overwrite", [False, True])
def test_an_error_leaves_what_was_there(tmp_path, overwrite):
    out = tmp_path / "out"
    if overwrite:
        out.mkdir()
        (out / "old").write_text("1")
    with pytest.raises(KeyError), new_folder(out, overwrite=overwrite) as folder:
        (folder / "new").write_text("2")
        raise KeyError
    assert [path.relative_to(tmp_path).as_posix() for path in sorted(tmp_path.rglob("*"))] == (
        ["out", "out/old"] if overwrite else []
    )


def test_what_exists_is_refused_or_replaced(tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    with new_folder(out) as folder:  # an empty one holds nothing
        (folder / "old").write_text("1")
    with (
        pytest.raises(OutputError, match="out exists already; choose another --out, or give --over"),
        new_folder(out),
    ):
        raise AssertionError
    with new_folder(out, overwrite=True) as folder:
        (folder / "new").write_text("2")
    assert [path.name for path in out.iterdir()] == ["new"]
    (tmp_path / "file").write_text("3")
    with pytest.raises(OutputError, match="exists already"), new_folder(tmp_path / "file"):
        raise AssertionError
    with new_folder(tmp_path / "file", overwrite=True) as folder:
        (folder / "new").write_text("2")
    assert (tmp_path / "file" / "new").read_text() == "2"


def test_overwrite_never_takes_the_folder_one_is_in(tmp_path, monkeypatch):
    (tmp_path / "here" / "deeper").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "here" / "deeper")
    for out in (Path(), Path(".."), tmp_path / "here", Path.home()):
        with pytest.raises(OutputError, match="contains the folder you are in"), new_folder(out, overwrite=True):
            raise AssertionError
    assert (tmp_path / "here" / "deeper").is_dir()


def test_what_the_disk_refuses_is_an_output_error_and_a_missing_input_is_not(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with (
        pytest.raises(OutputError, match=r"cannot write .*choose another --out"),
        new_folder(tmp_path / "file" / "out"),
    ):
        raise AssertionError
    with pytest.raises(OutputError, match=r"No space left.*free some space"), new_folder(tmp_path / "out"):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    with pytest.raises(FileNotFoundError), new_folder(tmp_path / "out"):
        (tmp_path / "absent").read_text()
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_file_is_written_whole_or_not_at_all(tmp_path, monkeypatch):
    path = tmp_path / "x.json"
    write_atomically(path, "ünï")
    assert path.read_bytes() == "ünï".encode()
    write_atomically(path, b"new")
    assert path.read_bytes() == b"new"

    def refuse(self, content):
        Path.touch(self)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Path, "write_bytes", refuse)
    with pytest.raises(OSError, match="No space left"):
        write_atomically(path, "newer")
    assert path.read_bytes() == b"new"
    assert [path.name for path in tmp_path.iterdir()] == ["x.json"]


# --- damage and identity ------------------------------------------------------------------------------------------


def flip(path, at):
    raw = bytearray(path.read_bytes())
    raw[at] ^= 0x10
    path.write_bytes(bytes(raw))


DAMAGE = {
    "a flipped bit of a picture": ("*.pixels.npy", lambda path: flip(path, 128 + 3 * 192 + 7)),
    "a cut picture": ("*.pixels.npy", lambda path: path.write_bytes(path.read_bytes()[:-100])),
    "an emptied header": ("*.pixels.npy", lambda path: path.write_bytes(b"\x93NUMPY\x01\x00v\x00")),
    "a flipped bit of a key": ("*.keys.npy", lambda path: flip(path, 200)),
    "a cut list of keys": ("*.keys.npy", lambda path: path.write_bytes(path.read_bytes()[:150])),
    "a lost list of keys": ("*.keys.npy", lambda path: path.unlink()),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_a_damaged_cache_is_noticed_and_made_again(pictures, transform, tmp_path, name):
    pattern, harm = DAMAGE[name]
    wanted = np.stack([decoded(place) for place in pictures])
    opened(pictures, transform, tmp_path / "c")
    (path,) = (tmp_path / "c").rglob(pattern)
    harm(path)
    for _ in range(2):  # mended while it is used, made again by the next
        source = opened(pictures, transform, tmp_path / "c")
        assert (gather(source, range(6)) == wanted).all()
        assert (gather(source, [3, 0, 3]) == wanted[[3, 0, 3]]).all()
    calls = transform.calls
    assert (gather(opened(pictures, transform, tmp_path / "c"), range(6)) == wanted).all()
    assert transform.calls == calls


@pytest.mark.parametrize("harm", [lambda path: flip(path, 130), lambda path: path.write_bytes(b"")])
def test_a_damaged_array_is_none_and_goes(tmp_path, harm):
    path = tmp_path / "x.npy"
    save_array(path, np.arange(20).reshape(4, 5))
    assert (kept_array(path) == np.arange(20).reshape(4, 5)).all()
    assert np.load(path)[3, 4] == 19  # any reader of .npy reads it
    harm(path)
    assert kept_array(path) is None
    assert not path.exists()


@pytest.mark.parametrize("same_inode", [True, False])
def test_a_file_of_the_same_size_and_time_is_not_taken_for_the_one_before(transform, tmp_path, monkeypatch, same_inode):
    """What this package writes has the time 0: outputs of two seeds differ in nothing but their pixels."""
    if not same_inode:  # as after `poison --overwrite`, long after
        monkeypatch.setattr(cache_module, "_SETTLED_NS", -1)
    path = tmp_path / "x.bmp"
    for shade in (10, 20, 30):
        if not same_inode:
            path.unlink(missing_ok=True)
        Image.new("RGB", SHAPE[:2], (shade, 0, 0)).save(path)
        os.utime(path, (0, 0))
        if not same_inode:
            (tmp_path / f"{shade}").touch()  # the inode that was free is taken
        assert (gather(opened([str(path)], transform, tmp_path / "c"), [0])[0, ..., 0] == shade).all()
