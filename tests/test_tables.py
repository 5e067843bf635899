"""Tables of every format, found columns, refused input."""

import gzip
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.feather
import pyarrow.ipc
import pyarrow.parquet as pq
import pytest

from calls import calls
from mithridate.data.pairs import SCHEMA, make_pairs
from mithridate.data.read import read_pairs
from mithridate.data.sources import expand_braces
from mithridate.errors import DataError

SHARED = Path(__file__).parents[2] / "shared" / "data"
ROWS = [("a.jpg", "a dog"), ("b.jpg", "two; cats"), ("b.jpg", 'she said "no",\nthen left')]


def rows_of(pairs):
    return list(zip(pairs.image.to_pylist(), pairs.text.to_pylist()))


def expected(folder):
    return [(str(folder / image), text) for image, text in ROWS]


def csv_text(separator, header=("image", "caption")):
    quoted = ['"' + text.replace('"', '""') + '"' for _, text in ROWS]
    return "\n".join([separator.join(header), *(f"{a}{separator}{b}" for (a, _), b in zip(ROWS, quoted))]) + "\n"


@pytest.mark.parametrize("separator", [",", "\t", ";", "|"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_csv_with_any_separator_quotes_and_line_breaks(tmp_path, separator, encoding):
    (tmp_path / "t.csv").write_text(csv_text(separator), encoding=encoding)
    assert rows_of(read_pairs(tmp_path / "t.csv")) == expected(tmp_path)


def test_open_clip_names_in_any_case_and_gzip(tmp_path):
    with gzip.open(tmp_path / "t.tsv.gz", "wt") as file:
        file.write(csv_text("\t", header=("FilePath", "Title")))
    assert rows_of(read_pairs(tmp_path / "t.tsv.gz")) == expected(tmp_path)


RECORDS = [{"file_name": image, "text": text} for image, text in ROWS]
WRITERS = {
    "t.jsonl": lambda path: path.write_text("".join(json.dumps(record) + "\n" for record in RECORDS)),
    "t.ndjson": lambda path: path.write_text("\n".join(json.dumps(record) for record in RECORDS)),
    "t.json": lambda path: path.write_text(json.dumps(RECORDS)),
    "t.parquet": lambda path: pq.write_table(pa.Table.from_pylist(RECORDS), path),
    "t.feather": lambda path: pyarrow.feather.write_feather(pa.Table.from_pylist(RECORDS), path),
    "t.arrow": lambda path: write_stream(path),
}


def write_stream(path):
    table = pa.Table.from_pylist(RECORDS)
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)


@pytest.mark.parametrize("name", WRITERS)
def test_every_format_reads_alike(tmp_path, name):
    WRITERS[name](tmp_path / name)
    assert rows_of(read_pairs(tmp_path / name)) == expected(tmp_path)
    assert rows_of(read_pairs(tmp_path)) == expected(tmp_path)  # the one table of its folder


def test_several_captions_and_labels_of_any_form(tmp_path):
    lines = [
        {"image": "a.jpg", "captions": ["one", "two"], "labels": ["dog", "cat"], "width": 8},
        {"image": "b.jpg", "captions": [], "labels": None, "width": 9},
        {"image": "c.jpg", "captions": "three", "labels": "cow", "width": 10},
        {"image": "d.jpg", "captions": None, "labels": 7, "width": 11},
        {"image": "e.jpg", "captions": [None, 5, "a\ud800b"], "labels": [], "width": 12},
    ]
    (tmp_path / "t.jsonl").write_text("\n".join(map(json.dumps, lines)))
    pairs = read_pairs(tmp_path / "t.jsonl")
    assert pairs.text.to_pylist() == ["one", "two", "", "three", "", "", "", "a\ufffdb"]
    assert pairs.labels.to_pylist() == [["dog", "cat"], ["dog", "cat"], [], ["cow"], ["7"], [], [], []]
    assert pairs.table["width"].to_pylist() == [8, 8, 9, 10, 11, 12, 12, 12]
    assert pairs.image_index.tolist() == [0, 0, 1, 2, 3, 4, 4, 4]


def test_lists_in_parquet_keep_labels_uids_and_splits_in_step(tmp_path):
    table = pa.table(
        {
            "uid": ["u0", "u1"],
            "image": ["a.jpg", "/abs/b.jpg"],
            "caption": pa.array([["one", "two"], ["three"]], pa.large_list(pa.large_string())),
            "class": pa.array([3.0, None]),
            "split": pa.array(["train", "dev"]).dictionary_encode(),
            "text": [1, 2],
        }
    )
    pq.write_table(table, tmp_path / "t.parquet")
    with pytest.raises(DataError, match=r"1 rows of .* name images outside .*'/abs/b.jpg' \(row 2\)"):
        read_pairs(tmp_path / "t.parquet")
    pairs = read_pairs(tmp_path / "t.parquet", allow_outside=True)
    assert pairs.image.to_pylist() == [f"{tmp_path}/a.jpg"] * 2 + ["/abs/b.jpg"]
    assert pairs.labels.to_pylist() == [["3"], ["3"], []]
    assert pairs.table["image_uid"].to_pylist() == ["u0", "u0", "u1"]
    assert pairs.table["source_text"].to_pylist() == [1, 1, 2]
    assert read_pairs(tmp_path / "t.parquet", split="validation", allow_outside=True).text.to_pylist() == ["three"]


def test_our_own_table_is_read_as_it_is(tmp_path):
    pairs = make_pairs(
        ["x.jpg", "y.tar#512+7"], ["a", "b"], labels=[["dog"], []], split="train", score=pa.array([1, 2])
    )
    pq.write_table(pairs.table, tmp_path / "pairs.parquet")
    again = read_pairs(tmp_path, image_root="/data")
    assert again.image.to_pylist() == ["/data/x.jpg", "/data/y.tar#512+7"]
    assert again.table.drop_columns("image").equals(pairs.table.drop_columns("image"))
    # what poison writes: the data are read, the manifest is not
    (tmp_path / "out").mkdir()
    (tmp_path / "pairs.parquet").rename(tmp_path / "out" / "pairs.parquet")
    (tmp_path / "out").rename(tmp_path / "data")
    (tmp_path / "manifest.json").write_text("not even JSON")
    assert read_pairs(tmp_path).text.to_pylist() == ["a", "b"]


def test_uids_stay_when_the_table_is_moved_and_differ_between_tables(tmp_path):
    for name, last in (("one", "x"), ("two", "y")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "t.csv").write_text(f"image,caption\na.jpg,{last}\nb.jpg,z\n")
    before = read_pairs(tmp_path / "one").uid.to_pylist()
    (tmp_path / "one").rename(tmp_path / "three")
    assert read_pairs(tmp_path / "three").uid.to_pylist() == before
    both = read_pairs([tmp_path / "two", tmp_path / "three" / "t.csv"])
    assert len(set(both.uid.to_pylist())) == 4
    with pytest.raises(DataError, match=r"stands twice.*give every source once"):
        read_pairs([tmp_path / "two", tmp_path / "two"])


def test_image_folder_with_a_folder_for_each_split(tmp_path):
    for split in ("train", "test"):
        (tmp_path / split).mkdir()
        (tmp_path / split / "metadata.csv").write_text(f"file_name,text\na.jpg,{split}\n")
    assert read_pairs(tmp_path, split="test").text.to_pylist() == ["test"]


TABLES_REFUSED = {
    "columns": ("image,words\na,b\n", r"no caption column: expected one of title, caption.*'image', 'words'"),
    "image": ("picture,caption\na,b\n", r"no image column: expected one of filepath.*'picture', 'caption'"),
    "single": ("image caption\na b\n", r"no image column.*separate its columns by comma, tab"),
    "ragged": ("image,caption\na,b\nc,d,e\n", r"separated by ','.*Expected 2 columns, got 3.*put quotes"),
    "latin": ("image,caption\na,caf\xe9\n".encode("latin-1"), r"not UTF-8 \(byte 19 is 0xe9\).* --encoding cp1252"),
    "rows": ("image,caption\n", "holds no pairs"),
    "empty": ("", "is empty; expected a table"),
    "gaps": ("image,caption\na,b\n,c\n", "1 rows of .* name no image, the first is row 2"),
    "web": ("image,caption\nhttps://x/y.jpg,b\n", r"web addresses such as https://x/y.jpg \(row 1\); fetch the images"),
    "uid": ("uid,image,caption\nu,a,b\nv,a,b\nu,a,c\n", "uid 'u' .* stands twice, again in row 3; make them unique"),
    "twice": ("image,caption,caption\na,b,c\n", "two columns named 'caption'"),
}


@pytest.mark.parametrize("name", TABLES_REFUSED)
def test_refused_tables(tmp_path, name):
    content, match = TABLES_REFUSED[name]
    (tmp_path / "t.csv").write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(DataError, match=f"(?s){match}"):
        read_pairs(tmp_path / "t.csv")


def test_a_table_that_points_outside_itself_is_refused(tmp_path):
    WRITERS["t.arrow"](tmp_path / "t.arrow")
    raw = (tmp_path / "t.arrow").read_bytes()
    ends = np.array([0, 5, 10, 15], dtype=np.int32)
    assert raw.count(ends.tobytes()) == 1
    ends[2] = 2**31 - 1
    (tmp_path / "t.arrow").write_bytes(raw.replace(np.array([0, 5, 10, 15], dtype=np.int32).tobytes(), ends.tobytes()))
    with pytest.raises(DataError, match="does not read as ARROW"):
        read_pairs(tmp_path / "t.arrow")


def test_other_refusals(tmp_path):
    with pytest.raises(DataError, match=r"nowhere.csv does not exist"):
        read_pairs(tmp_path / "nowhere.csv")
    with pytest.raises(DataError, match="found nothing; expected tar shards"):
        read_pairs(tmp_path)
    (tmp_path / "x.csv").write_text("image,caption,kind\na,b,c\n")
    with pytest.raises(DataError, match="name no splits, so 'test' cannot be chosen"):
        read_pairs(tmp_path, split="test")
    with pytest.raises(DataError, match="no column 'words'; its columns are 'image', 'caption', 'kind'"):
        read_pairs(tmp_path, caption_field="words")
    with pytest.raises(DataError, match="exclude_coco is of no use with a table"):
        read_pairs(tmp_path, exclude_coco=True)
    assert read_pairs(tmp_path, label_field="kind").labels.to_pylist() == [["c"]]
    (tmp_path / "y.csv").write_text("image,caption\n")
    with pytest.raises(DataError, match=r"holds 2 tables \(x.csv, y.csv\); name the one"):
        read_pairs(tmp_path)
    many = "::".join([str(tmp_path / "x.csv")] * 300)
    with pytest.raises(DataError, match="give every source once"):
        read_pairs(many)
    with pytest.raises(DataError, match="list of sources is empty"):
        read_pairs([])
    (tmp_path / "z.zip").touch()
    with pytest.raises(DataError, match="no known kind"):
        read_pairs(tmp_path / "z.zip")
    (tmp_path / "bad.jsonl").write_text('{"image": "a", "text": "b"}\n{"image"\n')
    with pytest.raises(DataError, match=r"line 2 of .* is not JSON"):
        read_pairs(tmp_path / "bad.jsonl")
    (tmp_path / "bad.parquet").write_bytes(b"PAR1 and no more")
    with pytest.raises(DataError, match="does not read as PARQUET"):
        read_pairs(tmp_path / "bad.parquet")
    embedded = pa.table({"image": [{"bytes": b"", "path": "a"}], "text": ["b"]})
    pq.write_table(embedded, tmp_path / "hf.parquet")
    assert read_pairs(tmp_path / "hf.parquet").image.to_pylist() == [f"{tmp_path}/hf.parquet#0@image"]
    pq.write_table(pa.table({"image": ["a"], "text": [3]}), tmp_path / "numbers.parquet")
    with pytest.raises(DataError, match=r"'text' .* holds int64, expected strings"):
        read_pairs(tmp_path / "numbers.parquet")


def test_an_empty_split_names_the_others(tmp_path):
    (tmp_path / "t.csv").write_text("image,caption,split\na,b,train\nc,d,restval\ne,f,val\n")
    assert read_pairs(tmp_path, split="train").text.to_pylist() == ["b", "d"]
    assert read_pairs(tmp_path, split="restval").text.to_pylist() == ["d"]
    assert read_pairs(tmp_path, split="dev").text.to_pylist() == ["f"]
    with pytest.raises(DataError, match=r"split 'test' is empty; the splits are train \(1\), restval \(1\), val \(1\)"):
        read_pairs(tmp_path, split="test")


BRACES = {
    "{00..02}.tar": ["00.tar", "01.tar", "02.tar"],
    "{9..11}": ["9", "10", "11"],
    "{000..1}": ["000", "001"],
    "{a,b}/{1..2}": ["a/1", "a/2", "b/1", "b/2"],
    "plain": ["plain"],
}


@pytest.mark.parametrize("pattern", BRACES)
def test_braces(pattern):
    assert expand_braces(pattern) == BRACES[pattern]


def test_refused_braces():
    with pytest.raises(DataError, match=r"do not read as \{000..012\}"):
        expand_braces("{a}.tar")
    with pytest.raises(DataError, match="at most 1000000"):
        expand_braces("{0..99999999999}.tar")
    with pytest.raises(DataError, match="at most 1000000"):
        expand_braces("{0..9999}{0..9999}.tar")


def test_a_large_table_opens_without_python_objects(tmp_path):
    n = 300_000
    number = pa.array(np.arange(n)).cast(pa.string())
    pq.write_table(pa.table({"image": number, "caption": number}), tmp_path / "t.parquet")
    assert calls(lambda: read_pairs(tmp_path / "t.parquet")) < n / 3
    pairs = read_pairs(tmp_path / "t.parquet")
    assert len(pairs) == n and pairs.table.schema.types[:5] == list(SCHEMA.values())


@pytest.mark.skipif(not (SHARED / "pascal_sentences").is_dir(), reason="real data are not there")
def test_pascal_sentences():
    pairs = read_pairs(SHARED / "pascal_sentences" / "metadata.jsonl")
    assert len(pairs.images) == 232
    assert pairs.classes["sheep"] == 40
    assert all(Path(place).is_file() for place in pairs.images.to_pylist())
