"""Data as people have them: nothing is left out in silence, nothing is taken for what it is not, nothing crashes."""

import io
import json
import os
import shutil
import tarfile
from pathlib import Path
from typing import Any, cast

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from calls import calls
from mithridate.data.doctor import describe, doctor
from mithridate.data.encodings import likely_encoding
from mithridate.data.images import read_bytes
from mithridate.data.labelled import read_labelled
from mithridate.data.read import read_pairs
from mithridate.encoder.embeddings import read_embeddings
from mithridate.errors import DataError


def picture(shade=0, form="PNG"):
    out = io.BytesIO()
    image = Image.new("RGB", (12, 10), (shade, 10, 20))
    image.putpixel((0, 0), (255, 255, 255))
    image.save(out, form)
    return out.getvalue()


def put(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def shard(path, members, form=tarfile.USTAR_FORMAT):
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w", format=form) as tar:
        for name, content in members:
            member = tarfile.TarInfo(name)
            if isinstance(content, tuple):
                member.type, member.linkname = content
                tar.addfile(member)
            else:
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))
    return path


def lines(records):
    return "".join(json.dumps(record) + "\n" for record in records)


def left_out(pairs):
    return {reason: entry.count for reason, entry in pairs.report.left_out.items()}


def codes(pairs):
    return {finding.code for finding in doctor(pairs, workers=1)}


GOOD = [("a.png", picture(1)), ("a.txt", b"good")]
LEFT_OUT = {
    "dotted-key": [("b.1.jpg", picture(2, "JPEG")), ("v1.0.webp", picture(3, "WEBP"))],
    "unread-ending": [("b.gif", picture(2, "GIF")), ("c.tiff", picture(3, "TIFF")), ("d.heic", b"x")],
    "no-image": [("b.txt", b"caption"), ("c.json", b"{}"), ("d.mp4", b"x")],
    "no-ending": [("README", b"x"), (".hidden", b"y")],
    "link": [("b.jpg", (tarfile.LNKTYPE, "a.png")), ("c.jpg", (tarfile.SYMTYPE, "/etc/passwd"))],
    "special-member": [("b.jpg", (tarfile.FIFOTYPE, "")), ("c.jpg", (tarfile.CHRTYPE, ""))],
    "failed-download": [
        (f"{key}.{ending}", content)
        for key in "bc"
        for ending, content in (("jpg", picture(4)), ("json", b'{"status": "failed", "error_message": "404"}'))
    ],
    "second-image": [("a.jpg", picture(5, "JPEG")), ("a.webp", picture(6, "WEBP"))],
    "no-record": [("b.png", picture(7)), ("b.json", b"[1]"), ("c.png", picture(8)), ("c.json", b'"text"')],
}


@pytest.mark.parametrize("reason", LEFT_OUT)
def test_what_a_shard_leaves_out_is_counted_by_reason(tmp_path, reason):
    pairs = read_pairs(shard(tmp_path / "s.tar", [*GOOD, *LEFT_OUT[reason]]))
    assert left_out(pairs)[reason] in (2, 3)
    assert "s.tar" in pairs.report.left_out[reason].example
    assert f"left-out-{reason}" in codes(pairs)
    shown = describe(pairs)["left_out"][reason]
    assert shown["count"] == left_out(pairs)[reason] and shown["example"]
    # a subset and a join still say it
    both = read_pairs([tmp_path / "s.tar", shard(tmp_path / "t.tar", [("z.png", picture(9)), ("z.txt", b"z")])])
    assert left_out(both.take([0])) == left_out(pairs)
    assert left_out(read_pairs(tmp_path / "t.tar")) == {}


def test_what_lies_behind_the_end_mark_is_counted(tmp_path):
    one = shard(tmp_path / "one.tar", GOOD).read_bytes()
    two = shard(tmp_path / "two.tar", [("b.png", picture(2)), ("b.txt", b"b")]).read_bytes()
    pairs = read_pairs(put(tmp_path / "joined.tar", one + two))
    assert len(pairs) == 1
    assert left_out(pairs)["behind-end-mark"] == len(two)
    assert f"byte {len(one)}" in pairs.report.left_out["behind-end-mark"].example
    assert left_out(read_pairs(put(tmp_path / "padded.tar", one + bytes(100_000)))) == {}
    assert left_out(read_pairs(put(tmp_path / "text.tar", one + b"trailing")))["behind-end-mark"] == 8


def test_sparse_members_are_counted_and_passed_over(tmp_path):
    raw = bytearray(shard(tmp_path / "s.tar", [*GOOD, ("b.png", picture(2)), ("b.txt", b"b")]).read_bytes())
    at = raw.index(b"b.png")
    raw[at + 156 : at + 157] = b"S"
    raw[at + 148 : at + 156] = b"        "
    raw[at + 148 : at + 156] = b"%06o\0 " % sum(raw[at : at + 512])
    assert left_out(read_pairs(put(tmp_path / "gnu.tar", bytes(raw)))) == {"sparse-member": 1, "no-image": 1}
    with tarfile.open(tmp_path / "pax.tar", "w", format=tarfile.PAX_FORMAT) as tar:
        for name, content in [*GOOD, ("b.png", picture(2))]:
            member = tarfile.TarInfo(name)
            member.size = len(content)
            if name == "b.png":
                member.pax_headers = {"GNU.sparse.major": "1", "GNU.sparse.minor": "0"}
            tar.addfile(member, io.BytesIO(content))
    assert left_out(read_pairs(tmp_path / "pax.tar")) == {"sparse-member": 1}


def header(size, *, kind=b"0", name=b"a.png"):
    block = bytearray(512)
    block[: len(name)] = name
    block[124 : 124 + len(size)] = size
    block[156:157] = kind
    block[148:156] = b"        "
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


BAD_SIZES = {
    "signed": header(b"-0000001000"),
    "binary, negative": header(b"\xff" * 11 + b"\x00"),
    "underscored": header(b"0000_000100"),
    "pax, negative": header(b"00000000014", kind=b"x") + b"12 size=-99\n".ljust(512, b"\0") + header(b"00000000010"),
    "pax, words": header(b"00000000015", kind=b"x") + b"13 size=many\n".ljust(512, b"\0") + header(b"00000000010"),
    "pax, length 0": header(b"00000000011", kind=b"x") + b"0 size=12\n".ljust(512, b"\0") + header(b"00000000010"),
    "huge header": header(b"77777777777", kind=b"L"),
}


@pytest.mark.parametrize("name", BAD_SIZES)
def test_a_tar_that_would_lead_backwards_is_refused(tmp_path, name):
    with pytest.raises(DataError, match=r"damaged|states the size|ends early"):
        read_pairs(put(tmp_path / "s.tar", BAD_SIZES[name] + bytes(4096)))


# --- fields ----------------------------------------------------------------------------------------------------


@pytest.fixture
def fields(tmp_path):
    record = b'{"long": "the long one", "Topic ": "dog", "caption": "short"}'
    members = [
        (f"{key}.{ending}", content)
        for key in ("a", "b")
        for ending, content in (("png", picture(1)), ("jpg", picture(2, "JPEG")), ("txt", b"alt"), ("json", record))
    ]
    return shard(tmp_path / "s.tar", [*members, ("c.png", picture(3)), ("c.alt.txt", b"other")])


@pytest.mark.parametrize(
    ("wanted", "texts"),
    [("long", ["the long one"] * 2 + [""]), (" LONG ", ["the long one"] * 2 + [""]), ("alt.txt", ["", "", "other"])],
)
def test_a_named_field_is_a_json_field_or_an_ending(fields, wanted, texts):
    pairs = read_pairs(fields, caption_field=wanted)
    assert pairs.text.to_pylist() == texts
    assert left_out(pairs)["no-such-field"] == texts.count("")
    assert read_pairs(fields, label_field="topic").labels.to_pylist() == [["dog"], ["dog"], []]


def test_a_field_that_does_not_exist_is_refused_with_those_that_do(fields, tmp_path):
    for option in ("caption_field", "label_field"):
        with pytest.raises(DataError, match=rf"no sample .* has the {option} 'lnog'; .*'txt', .*'long', 'Topic '"):
            read_pairs(fields, **cast(Any, {option: "lnog"}))
    with pytest.raises(DataError, match="has the image_field 'long'"):
        read_pairs(fields, image_field="long")
    assert read_bytes(read_pairs(fields, image_field="png").image[0].as_py()) == picture(1)
    assert read_bytes(read_pairs(fields, image_field="jpg").image[0].as_py()) == picture(2, "JPEG")
    table = put(tmp_path / "t.csv", "picture,words, label \na.jpg,a dog,dog\n")
    with pytest.raises(DataError, match=r"no column 'pictures'; its columns are 'picture', 'words', ' label '"):
        read_pairs(table, image_field="pictures", caption_field="words")
    pairs = read_pairs(table, image_field="Picture", caption_field="words ")
    assert (pairs.text.to_pylist(), pairs.labels.to_pylist()) == (["a dog"], [["dog"]])
    twice = put(tmp_path / "u.csv", "image,caption,Caption \na,b,c\n")
    with pytest.raises(DataError, match="'caption', 'Caption ' differ in case, blanks or hyphens only"):
        read_pairs(twice)


# --- splits ----------------------------------------------------------------------------------------------------

SPELLED = [
    ("training", "testing", "train", "test"),
    ("Train", "valid", "train", "val"),
    ("dev", "evaluation", "val", "eval"),
]


@pytest.mark.parametrize(("one", "two", "first", "second"), SPELLED)
def test_split_folders_are_splits_for_every_reader(tmp_path, one, two, first, second):
    for split, n in ((one, 2), (two, 3)):
        for i in range(n):
            for name in ("cat", "dog"):
                put(tmp_path / "classes" / split / name / f"{i}.png", picture(i))
            put(tmp_path / "captions" / split / f"{i}.png", picture(i))
        put(
            tmp_path / "captions" / split / "metadata.jsonl",
            lines({"file_name": f"{i}.png", "text": split} for i in range(n)),
        )
    classes, captions = read_labelled(tmp_path / "classes"), read_pairs(tmp_path / "captions")
    assert set(classes.classes) == {"cat", "dog"}
    assert describe(classes)["splits"] == {first: 4, second: 6}
    assert describe(captions)["splits"] == {first: 2, second: 3}
    assert (
        len(read_pairs(tmp_path / "captions", split=two)) == len(read_pairs(tmp_path / "captions", split=second)) == 3
    )


def test_splits_inside_classes_and_without_classes(tmp_path):
    for name in ("bolt", "nut"):
        for split in ("training", "test"):
            put(tmp_path / "a" / name / split / "0.png", picture(1))
    assert set(read_labelled(tmp_path / "a").split.to_pylist()) == {"train", "test"}
    assert set(read_labelled(tmp_path / "a").classes) == {"bolt", "nut"}
    for split in ("train", "val"):
        put(tmp_path / "b" / split / "0.png", picture(1))
    with pytest.raises(DataError, match="images in the split folders 'train', 'val' themselves"):
        read_labelled(tmp_path / "b")


def test_metadata_files_are_read_once_or_refused(tmp_path):
    def folder(name, *files):
        for file in files:
            put(
                tmp_path / name / file,
                "file_name,text\na.png,x\n" if file.endswith("csv") else '{"file_name": "a.png", "text": "x"}\n',
            )
        return tmp_path / name

    for name, files in {
        "two": ("metadata.csv", "metadata.jsonl"),
        "above": ("metadata.csv", "dev/metadata.jsonl"),
    }.items():
        for read in (read_pairs, read_labelled):
            with pytest.raises(DataError, match=r"remove all but one|keep one kind"):
                read(folder(name, *files))
    pairs = read_pairs(folder("other", "metadata.csv", "more/metadata.csv"))
    assert (len(pairs), left_out(pairs)) == (1, {"unread-file": 1})
    beside = shard(tmp_path / "beside" / "00000.tar", GOOD).parent
    put(beside / "00000.parquet", b"what img2dataset leaves")
    put(beside / "00000_stats.json", "{}")
    assert left_out(read_pairs(beside)) == {"unread-file": 1}


# --- identity ----------------------------------------------------------------------------------------------------


def test_rows_of_embeddings_with_one_name_stay_apart(tmp_path):
    rng = np.random.default_rng(0)
    image, text = (rng.normal(size=(6, 4)).astype(np.float32) for _ in range(2))
    image[1] = image[0]  # two captions of one image
    for part, rows in enumerate((slice(0, 3), slice(3, 6))):
        for name, array in (("img_emb", image), ("text_emb", text)):
            (tmp_path / name).mkdir(exist_ok=True)
            np.save(tmp_path / name / f"{name}_{part}.npy", array[rows])
        (tmp_path / "metadata").mkdir(exist_ok=True)
        keys = pa.table({"image_path": ["000", "000", "001"], "caption": ["c"] * 3})
        pq.write_table(keys, tmp_path / "metadata" / f"metadata_{part}.parquet")
    found = read_embeddings(tmp_path)
    assert found.image_index.tolist() == [0, 0, 1, 2, 3, 4]
    wanted = (image * text).sum(1) / np.linalg.norm(image, axis=1) / np.linalg.norm(text, axis=1)
    np.testing.assert_allclose(found.similarity(), wanted, rtol=1e-5)


def test_keys_that_repeat_across_shards_stay_apart(tmp_path):
    for number in range(2):
        shard(tmp_path / f"{number}.tar", [("0.png", picture(number)), ("0.txt", b"of %d" % number)])
    pairs = read_pairs(tmp_path)
    assert pairs.table["key"].to_pylist() == ["0", "0"]
    assert len(set(pairs.uid.to_pylist())) == len(pairs.images) == 2
    latin = [
        (b"caf\xe9.png".decode("utf-8", "surrogateescape"), picture(1)),
        (b"caf\xe8.png".decode("utf-8", "surrogateescape"), picture(2)),
    ]
    with tarfile.open(
        tmp_path / "latin.tar", "w", format=tarfile.USTAR_FORMAT, encoding="utf-8", errors="surrogateescape"
    ) as tar:
        for name, content in latin:
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    assert read_pairs(tmp_path / "latin.tar").table["key"].to_pylist() == ["caf\\xe9", "caf\\xe8"]


ARRAYS = {
    "one axis": lambda path: np.save(path, np.zeros(5)),
    "structured": lambda path: np.save(path, np.zeros(5, [("a", "f4")])),
    "text": lambda path: np.save(path, np.array([["a"]])),
    "objects": lambda path: np.save(path, np.array([[None]]), allow_pickle=True),
    "46 TiB": lambda path: path.write_bytes(_promise((10**10, 1280))),
    "negative": lambda path: path.write_bytes(_promise((-1, 4))),
    "cut": lambda path: path.write_bytes(b"\x93NUMPY\x01\x00v\x00{'descr'"),
    "no array": lambda path: path.write_bytes(b"PK\x03\x04"),
}


def _promise(shape):
    out = io.BytesIO()
    np.lib.format.write_array_header_1_0(out, {"descr": "<f4", "fortran_order": False, "shape": shape})
    return out.getvalue()


@pytest.mark.parametrize("name", ARRAYS)
def test_arrays_that_are_no_embeddings_are_one_sentence(tmp_path, name):
    for part in ("img_emb", "text_emb", "metadata"):
        (tmp_path / part).mkdir()
    pq.write_table(pa.table({"caption": ["a"]}), tmp_path / "metadata" / "metadata_0.parquet")
    np.save(tmp_path / "text_emb" / "text_emb_0.npy", np.ones((1, 4)))
    ARRAYS[name](tmp_path / "img_emb" / "img_emb_0.npy")
    with pytest.raises(DataError, match=r"img_emb_0.npy"):
        read_embeddings(tmp_path)


# --- one sample does not decide ------------------------------------------------------------------------------------


@pytest.mark.parametrize("ids", [["a", "b", "c"], [2**70, 2, 3], ["7", "8", "nine"]])
def test_ids_of_coco_are_opaque(tmp_path, ids):
    document = {
        "images": [{"id": key, "file_name": f"{n}.png"} for n, key in enumerate(ids)],
        "annotations": [{"no": 1, "image_id": ids[0]}, *({"image_id": key, "caption": f"of {key}"} for key in ids)],
    }
    put(
        tmp_path / "annotations" / "captions_val.json",
        json.dumps({**document, "annotations": document["annotations"][1:]}),
    )
    for n in (1, 2):  # the first is missing
        put(tmp_path / "images" / f"{n}.png", picture(n))
    pairs = read_pairs(tmp_path)
    assert pairs.text.to_pylist() == [f"of {key}" for key in ids]
    assert pairs.table["image_id"].to_pylist() == [str(key) for key in ids]
    assert [os.path.exists(place) for place in pairs.image.to_pylist()] == [False, True, True]  # noqa: PTH110


FORMATS = {
    "lines.json": lines([{"image": "a.png", "text": "one"}, {"image": "b.png", "text": "two"}]),
    "array.jsonl": json.dumps([{"image": "a.png", "text": "one"}, {"image": "b.png", "text": "two"}], indent=1),
    "captions.txt": "image,caption\na.png,one\nb.png,two\n",
    "lines.csv": lines([{"image": "a.png", "text": "one"}, {"image": "b.png", "text": "two"}]),
    "Flickr8k.token.txt": "a.png#0\tone\nb.png#0\ttwo\n",
    "long.json": lines([{"image": "a.png", "text": "one", "x": "y" * 70_000}, {"image": "b.png", "text": "two"}]),
    "bom.jsonl": "\ufeff" + lines([{"image": "a.png", "text": "one"}, {"image": "b.png", "text": "two"}]),
}


@pytest.mark.parametrize("name", FORMATS)
def test_the_format_follows_the_content(tmp_path, name):
    put(tmp_path / name, FORMATS[name])
    put(tmp_path / "Images" / "b.png", picture())  # most of those that are there lie here
    pairs = read_pairs(tmp_path / name)
    assert pairs.text.to_pylist() == ["one", "two"]
    assert pairs.image.to_pylist() == [f"{tmp_path}/Images/{name}.png" for name in "ab"]


def test_any_row_may_be_an_address(tmp_path):
    with pytest.raises(DataError, match=r"web addresses such as s3://b/c.png \(row 2\)"):
        read_pairs(put(tmp_path / "t.csv", "image,caption\na.png,b\ns3://b/c.png,d\n"))


# --- text ----------------------------------------------------------------------------------------------------------

TEXTS = {
    "cp1252": "Zürich à côté",
    "utf-16": "naïve",
    "gb18030": "一只狗在草地上奔跑",
    "cp1251": "собака бежит по траве",
    "utf-16-le": "a dog",
}


@pytest.mark.parametrize("encoding", ["cp1252", "utf-16", "gb18030"])
@pytest.mark.parametrize("form", ["csv", "jsonl", "json", "tar", "pascal"])
def test_another_encoding_is_refused_with_its_name_and_read_when_named(tmp_path, encoding, form):
    text = TEXTS[encoding]
    source = tmp_path / f"t.{form}"
    if form == "csv":
        put(source, f"image,caption\na.png,{text}\n".encode(encoding))
    elif form == "jsonl":
        put(source, f'{{"image": "a.png", "caption": "{text}"}}\n'.encode(encoding))
    elif form == "json":
        put(source, f'[{{"image": "a.png", "caption": "{text}"}}]'.encode(encoding))
    elif form == "tar":
        shard(source, [("a.png", picture()), ("a.txt", text.encode(encoding))])
    else:
        source = tmp_path
        put(tmp_path / "sentence" / "dog" / "a.txt", f"{text}\n".encode(encoding))
    with pytest.raises(DataError, match=rf"not UTF-8 .* looks like {encoding}.*--encoding {encoding}"):
        read_pairs(source)
    assert read_pairs(source, encoding=encoding).text.to_pylist() == [text]
    with pytest.raises(DataError, match="is not ascii"):
        read_pairs(source, encoding="ascii")


def test_encodings_are_told_apart_and_unknown_ones_refused(tmp_path):
    assert {
        name: likely_encoding(text.encode(name)).split()[0] for name, text in TEXTS.items() if name != "cp1251"
    } == {name: name for name in TEXTS if name != "cp1251"}
    assert "Cyrillic" in likely_encoding(TEXTS["cp1251"].encode("cp1251"))
    put(tmp_path / "t.csv", "image,caption\na,b\n")
    for name in ("klingon", "hex", "a\0b"):
        with pytest.raises(DataError, match="is unknown; expected a name such as utf-8"):
            read_pairs(tmp_path / "t.csv", encoding=name)
    pq.write_table(pa.table({"image": ["a"], "text": ["b"]}), tmp_path / "t.parquet")
    with pytest.raises(DataError, match="encoding is of no use with"):
        read_pairs(tmp_path / "t.parquet", encoding="cp1252")


def test_signs_that_a_wrong_encoding_leaves_are_findings(tmp_path):
    texts = ["caf\ufffd", "nul\0", "\ufeffmark", "half \ud800", "plain"]
    for n in range(5):
        put(tmp_path / f"{n}.png", picture(n))
    pairs = read_pairs(
        put(tmp_path / "t.jsonl", lines({"image": f"{n}.png", "text": text} for n, text in enumerate(texts)))
    )
    found = {finding.code: finding.message for finding in doctor(pairs, workers=1)}
    assert ": 2 of 5" in found["replacement-character"]
    assert ": 1 of 5" in found["nul-character"] and ": 1 of 5" in found["byte-order-mark"]
    members = [("0.png", picture()), ("0.txt", "\ufeffnotepad\r\n".encode())]
    assert read_pairs(shard(tmp_path / "s.tar", members)).text.to_pylist() == ["notepad"]


SPELT = {
    "python": (["['a dog', \"it's a dog\"]", "['x']", "[]"], [["a dog", "it's a dog"], ["x"], [""]]),
    "json": (['["one", "two, three"]', "", '["\\u00e9"]'], [["one", "two, three"], [""], ["é"]]),
    "newline": (["['a\\nb', 'c']", "['d']", "['e', ]"], [["a\nb", "c"], ["d"], ["e"]]),
}


@pytest.mark.parametrize("name", SPELT)
def test_lists_spelt_as_text_are_lists(tmp_path, name):
    cells, wanted = SPELT[name]
    table = pa.table({"image": ["a.png", "b.png", "c.png"], "captions": cells, "labels": cells})
    pq.write_table(table, tmp_path / "t.parquet")
    pairs = read_pairs(tmp_path / "t.parquet")
    assert pairs.text.to_pylist() == [text for texts in wanted for text in texts]
    assert pairs.labels.to_pylist() == [[text for text in texts if text] for texts in wanted for _ in texts]


@pytest.mark.parametrize("odd", ["['a' 'b']", "plain", "['a', __import__('os')]", "[" * 300 + "]" * 300])
def test_a_column_with_one_cell_that_is_no_list_stays_text_and_is_a_finding(tmp_path, odd):
    for n in range(2):
        put(tmp_path / f"{n}.png", picture(n))
    pq.write_table(pa.table({"image": ["0.png", "1.png"], "caption": ["['a', 'b']", odd]}), tmp_path / "t.parquet")
    pairs = read_pairs(tmp_path / "t.parquet")
    assert pairs.text.to_pylist() == ["['a', 'b']", odd]
    assert "list-as-text" in codes(pairs)


SWALLOWED = {
    "inches": ('image\tcaption\na.png\t"12 inch disc\nb.png\tb\nc.png\tc\n', "\t", 2),
    "twice": ('image,caption\na.png,"one\nb.png,b\nc.png,"c\nd.png,d\n', ",", 2),
    "first column": ('caption;image\n"open;a.png\nb;b.png\n', ";", 1),
}


@pytest.mark.parametrize("name", SWALLOWED)
def test_rows_swallowed_by_an_open_quote_are_counted(tmp_path, name):
    text, _, count = SWALLOWED[name]
    try:
        pairs = read_pairs(put(tmp_path / "t.tsv", text))
    except DataError as error:
        assert "quotes around cells" in str(error)
        return
    assert left_out(pairs) == {"swallowed-row": count}
    assert "row 1 of" in pairs.report.left_out["swallowed-row"].example
    assert "swallowed-rows" in codes(pairs)


def test_quoted_line_breaks_are_no_swallowed_rows(tmp_path):
    assert (
        left_out(read_pairs(put(tmp_path / "t.csv", 'image,caption\na.png,"two, three\nfour, five"\nb.png,c\n'))) == {}
    )


# --- wide and long ---------------------------------------------------------------------------------------------------


def wide(path, columns):
    names = ["image", "caption", *(f"column {n} with a name of some length" for n in range(columns))]
    row = ["a.png", "text", *["1"] * columns]
    if path.suffix == ".csv":
        put(path, "\n".join(",".join(cells) for cells in (names, row, row)) + "\n")
    elif path.suffix == ".jsonl":
        put(path, lines([dict(zip(names, row))] * 2))
    else:
        pq.write_table(pa.table([[cell] * 2 for cell in row], names=names), path)
    return path


@pytest.mark.parametrize("form", ["csv", "jsonl", "parquet"])
def test_work_is_linear_in_columns(tmp_path, form):
    few, many = (wide(tmp_path / f"{n}.{form}", n) for n in (1_000, 5_000))
    read_pairs(few)  # what the first table imports is no work of columns
    assert calls(lambda: read_pairs(many)) < 5.5 * calls(lambda: read_pairs(few))


@pytest.mark.parametrize("form", ["csv", "jsonl", "parquet"])
def test_twenty_thousand_columns(tmp_path, form):
    pairs = read_pairs(wide(tmp_path / f"t.{form}", 20_000))
    assert (len(pairs), len(pairs.table.column_names)) == (2, 5 + 20_000)


def test_headers_and_rows_longer_than_a_block(tmp_path):
    name, text = "n" * 200_000, "long " * 2_000_000
    pairs = read_pairs(put(tmp_path / "t.csv", f'image,caption,{name}\na.png,"{text}",1\nb.png,c,2\n'))
    assert pairs.text.to_pylist() == [text, "c"]
    assert pairs.table[name].to_pylist() == ["1", "2"]


# --- Parquet with images, and without -----------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["struct", "bytes", "paths", "mixed"])
def test_images_inside_parquet_are_read_in_place(tmp_path, kind):
    raws = [picture(n) for n in range(5)]
    put(tmp_path / "4.png", raws[4])
    column = {
        "struct": pa.array([{"bytes": raw, "path": f"{n}.png"} for n, raw in enumerate(raws)]),
        "bytes": pa.array(raws),
        "mixed": pa.array([{"bytes": raw if n < 4 else None, "path": f"{n}.png"} for n, raw in enumerate(raws)]),
        "paths": pa.array(
            [{"bytes": None, "path": "4.png"}] * 5, pa.struct([("bytes", pa.binary()), ("path", pa.string())])
        ),
    }[kind]
    table = pa.table({"image": column, "caption": [f"caption {n}" for n in range(5)], "hash": pa.array([b"\xff"] * 5)})
    pq.write_table(table, tmp_path / "train-00000-of-00002.parquet", row_group_size=2)
    pq.write_table(table.slice(0, 1), tmp_path / "test-00000-of-00001.parquet")
    pairs = read_pairs(tmp_path / "train-00000-of-00002.parquet")
    assert [read_bytes(place) for place in pairs.image.to_pylist()] == ([raws[4]] * 5 if kind == "paths" else raws)
    assert pairs.table["hash"].to_pylist() == [b"\xff"] * 5
    both = read_pairs(tmp_path)
    assert describe(both)["splits"] == {"train": 5, "test": 1}
    assert "duplicate-uid" not in codes(both)


def test_images_in_a_column_of_any_name(tmp_path):
    column = pa.array([{"bytes": picture(1), "path": None}])
    pq.write_table(pa.table({"img": column, "text": ["a"]}), tmp_path / "t.parquet")
    assert read_bytes(read_pairs(tmp_path / "t.parquet").image[0].as_py()) == picture(1)
    pq.write_table(pa.table({"one": column, "two": column, "text": ["a"]}), tmp_path / "u.parquet")
    with pytest.raises(DataError, match="has no image column"):
        read_pairs(tmp_path / "u.parquet")
    assert read_pairs(tmp_path / "u.parquet", image_field="two").image[0].as_py().endswith("#0@two")


@pytest.mark.parametrize(("url", "text"), [("URL", "TEXT"), ("url", "text")])
def test_tables_of_addresses_are_to_be_fetched_first(tmp_path, url, text):
    pq.write_table(pa.table({url: ["https://a/b.jpg"], text: ["a dog"]}), tmp_path / "t.parquet")
    with pytest.raises(DataError, match=rf"img2dataset --url_col {url} --caption_col {text}"):
        read_pairs(tmp_path / "t.parquet")


# --- strangers -------------------------------------------------------------------------------------------------------

DEEP = 50_000
HOSTILE = {
    "null.jsonl": b"null\n",
    "late.jsonl": b'{"image": "a", "text": "b"}\n  null\n',
    "deep.jsonl": b'{"image": "a", "text": ' + b"[" * DEEP + b"]" * DEEP + b"}\n",
    "objects.jsonl": b'{"a":' * DEEP + b"1" + b"}" * DEEP + b"\n",
    "medium.jsonl": b'{"image": "a", "text": "b", "c": ' + b"[" * 500 + b"]" * 500 + b"}\n",
    "deep.json": b"[" * 100_000 + b"]" * 100_000,
    "number.json": b"[" + b"9" * 5000 + b"]",
    "huge.jsonl": b'{"image": "a", "text": "b", "n": ' + b"9" * 5000 + b"}\n",
    "scalar.jsonl": b"3\n",
    "nul.csv": b"image,caption\na\0b,c\n",
    "bad.parquet": b"PAR1" + bytes(100) + b"PAR1",
    "bad.arrow": b"ARROW1\0\0" + bytes(64),
    "bad.feather": b"FEA1" + bytes(64),
    "types.json": b'{"images": {"id": 1}, "annotations": [{"caption": 3}]}',
    "ids.json": b'{"images": [{"id": [1], "file_name": "a"}], "annotations": [{"caption": "a", "image_id": [1]}]}',
    "names.json": b'{"images": [{"id": 1, "file_name": 7}], "annotations": [{"caption": "a", "image_id": 1}]}',
    "karpathy.json": b'{"images": [{"sentences": [{"raw": "x"}], "filename": null, "split": 3}]}',
    "regions.json": b'[{"regions": [{"phrase": "x", "region_id": 1}]}]',
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_tables_are_one_sentence(tmp_path, name):
    with pytest.raises(DataError) as caught:
        read_pairs(put(tmp_path / name, HOSTILE[name]))
    assert len(str(caught.value)) < 900


def test_names_with_nul_and_files_that_are_none(tmp_path):
    with pytest.raises(DataError, match="is no name of a file"):
        read_pairs("a\0b.csv")
    with pytest.raises(DataError, match="cannot read"):
        read_bytes("a\0b.jpg")
    os.mkfifo(tmp_path / "pipe.jpg")
    os.mkfifo(tmp_path / "pipe.csv")
    os.mkfifo(tmp_path / "pipe.tar")
    for place in (str(tmp_path / "pipe.jpg"), "/dev/zero", str(tmp_path)):
        with pytest.raises(DataError, match=r"no regular file|cannot read"):
            read_bytes(place)
    for name in ("pipe.csv", "pipe.tar"):
        with pytest.raises(DataError, match="no regular file"):
            read_pairs(tmp_path / name)


OUTSIDE = ["../private.png", "/etc/hostname", "a/../../private.png", "images/../../private.png"]


@pytest.mark.parametrize("name", OUTSIDE)
@pytest.mark.parametrize("form", ["csv", "coco", "ours", "karpathy"])
def test_images_outside_the_folder_need_leave(tmp_path, name, form):
    put(tmp_path / "private.png", picture())
    folder = tmp_path / "set"
    if form == "csv":
        source = put(folder / "t.csv", f"image,caption\n{name},x\n")
    elif form == "coco":
        document = {"images": [{"id": 1, "file_name": name}], "annotations": [{"image_id": 1, "caption": "x"}]}
        source = put(folder / "captions_val.json", json.dumps(document))
    elif form == "karpathy":
        image = {"filename": name, "split": "train", "sentences": [{"raw": "x"}]}
        source = put(folder / "dataset_x.json", json.dumps({"images": [image]}))
    else:
        from mithridate.data.pairs import make_pairs

        folder.mkdir()
        source = folder / "pairs.parquet"
        pq.write_table(make_pairs([name], ["x"]).table, source)
    with pytest.raises(DataError, match=r"outside .*--allow-outside"):
        read_pairs(source)
    assert len(read_pairs(source, allow_outside=True)) == 1


def test_an_overlay_is_trusted_by_whom_it_was_written(tmp_path, monkeypatch):
    from mithridate.data.pairs import make_pairs
    from mithridate.data.write import convert

    put(tmp_path / "in" / "a.png", picture())
    monkeypatch.setenv("MITHRIDATE_CACHE", str(tmp_path / "mine"))
    out = convert(make_pairs([str(tmp_path / "in" / "a.png")], ["x"]), tmp_path / "out", to="parquet")
    assert len(read_pairs(out)) == 1
    assert (tmp_path / "mine" / "overlay.key").stat().st_mode & 0o077 == 0
    table = pq.read_table(out / "pairs.parquet")
    moved = table.set_column(1, "image", pa.array([str(tmp_path / "secret.png")]))
    pq.write_table(moved.replace_schema_metadata(table.schema.metadata), out / "pairs.parquet")
    with pytest.raises(DataError, match="was not written by you on this machine"):
        read_pairs(out)
    pq.write_table(table, out / "pairs.parquet")
    monkeypatch.setenv("MITHRIDATE_CACHE", str(tmp_path / "another"))
    with pytest.raises(DataError, match="was not written by you on this machine"):
        read_pairs(out)
    assert len(read_pairs(out, allow_outside=True)) == 1


@pytest.mark.parametrize(
    ("header", "row"),
    [
        ("Image Path,Caption", "{},a {}"),
        ("IMAGE-NAME;Comment", "{};a {}"),
        ("image_name| comment_number| comment", "{}| 0| a {} "),
    ],
)
def test_names_and_cells_are_compared_without_what_only_spaces_them(tmp_path, header, row):
    for number in range(2):
        put(tmp_path / f"{number}.png", picture())
    rows = "".join(row.format(f"{number}.png", number) + "\r\n" for number in range(2))
    pairs = read_pairs(put(tmp_path / "t.csv", header + "\r\n" + rows))
    assert [Path(place).name for place in pairs.image.to_pylist()] == ["0.png", "1.png"]
    assert pairs.text.to_pylist() == ["a 0", "a 1"]


def test_names_that_differ_in_blanks_only_are_refused(tmp_path):
    put(tmp_path / "0.png", picture())
    with pytest.raises(DataError, match="rename one of them"):
        read_pairs(put(tmp_path / "t.csv", "image path,image_path,caption\n0.png,0.png,x\n"))


@pytest.mark.parametrize("ending", ["txt", "caption"])
@pytest.mark.parametrize("folders", [("",), ("train", "dev"), ("00000", "00001")])
def test_images_with_caption_files(tmp_path, ending, folders):
    root = tmp_path / "set"
    for at, folder in enumerate(folders):
        put(root / folder / f"{at}.b.png", picture())
        put(root / folder / f"{at}.b.{ending}", f"caption {at},\nin two lines\n")
        if folder.isdigit():
            put(root / folder / f"{at}.b.json", "{}")
        put(root / folder / "alone.png", picture())
        put(root / folder / f"missing.{ending}", "x")
        put(root / folder / "other.gif", picture())
        put(root / f"0000{at}.parquet", "not read")
        put(root / f"0000{at}_stats.json", "{}")
    pairs, n = read_pairs(root), len(folders)
    assert pairs.text.to_pylist() == [
        f"caption {at},\nin two lines" for at in ([1, 0] if "dev" in folders else range(n))
    ]
    assert pairs.split.to_pylist() == (["val", "train"] if "dev" in folders else [None] * n)
    counts = {reason: entry.count for reason, entry in pairs.report.left_out.items()}
    assert counts == {"no-caption": n, "no-image": n, "unread-ending": n}
    shutil.move(root, tmp_path / "moved")
    assert read_pairs(tmp_path / "moved").uid.to_pylist() == pairs.uid.to_pylist()


def test_caption_files_that_cannot_be_read_are_one_sentence(tmp_path):
    put(tmp_path / "a.png", picture())
    put(tmp_path / "a.txt", "k\u00e4se".encode("cp1252"))
    with pytest.raises(DataError, match="give --encoding"):
        read_pairs(tmp_path)
    assert read_pairs(tmp_path, encoding="cp1252").text.to_pylist() == ["k\u00e4se"]
    (tmp_path / "a.txt").unlink()
    os.mkfifo(tmp_path / "a.txt")
    with pytest.raises(DataError, match="no regular file"):
        read_pairs(tmp_path)
    (tmp_path / "a.txt").unlink()
    put(tmp_path / "a.txt", "x" * (2**20 + 1))
    with pytest.raises(DataError, match="at most"):
        read_pairs(tmp_path)
