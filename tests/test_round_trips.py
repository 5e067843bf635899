"""From any layout to any other and back, every uid, caption, label, split and image byte; and other readers."""

import csv
import gc
import io
import itertools
import json
from typing import Any, cast

import pandas
import pyarrow as pa
import pytest
from datasets import load_dataset
from open_clip_train.data import CsvDataset
from PIL import Image
from webdataset.compat import WebDataset

from mithridate.data.images import read_bytes
from mithridate.data.pairs import make_pairs
from mithridate.data.read import read_pairs
from mithridate.data.write import convert

LAYOUTS: Any = ("table", "parquet", "webdataset", "imagefolder")
TEXTS = [
    "plain",
    "two\nlines\r\nand\ra carriage return",
    "tab\tsemicolon; comma, bar| hash # and 'both' \"quotes\"",
    "-leading, =formula, +plus, @at",
    "nul\0inside",
    "emoji 🐶🏽 猫 é \u2028 \u200f",
    "",
    " blanks around ",
    "['spelt', 'as a list']",
    "NA",
    "\ufeffmark",
    "x" * 300,
    "1984",
    '"',
]
# signs that joined names could be told apart by, were they joined
LABELS = [["a\x1fb"], ["a", "b"], ["a b"], [], ["-x", "#y", '"z"'], ["n" * 300], ["new\nline"]]
SPLITS = ["train", None, "test\x1d", "Training", "", "-s", "x" * 300]


@pytest.fixture
def pairs(tmp_path):
    """Pairs whose images have odd names and several formats; every image but one has several captions."""
    folder = tmp_path / "in"
    folder.mkdir()
    names = ["a.jpg", "b b#1+2.png", "-c.webp", "d'\"\t.png", "émoji🐶.jpg", "new\nline.png", "n" * 240 + ".jpg"]
    forms = {"jpg": "JPEG", "png": "PNG", "webp": "WEBP"}
    for n, name in enumerate(names):
        image = Image.new("RGB", (12, 10), (n, 2 * n, 200))
        image.putpixel((n, 0), (255, 255, 255))
        image.save(folder / name, forms[name.rpartition(".")[2]])
    at = [n // 2 for n in range(len(TEXTS))]
    return make_pairs(
        [str(folder / names[i]) for i in at],
        TEXTS,
        labels=[LABELS[i] for i in at],
        split=pa.array([SPLITS[i] for i in at]),
        uid=[f"{text[:20]}\0{n}#" for n, text in enumerate(TEXTS)],
    )


def content(pairs):
    rows = zip(*(pairs.table[name].to_pylist() for name in ("uid", "text", "labels", "split", "image")))
    return sorted((uid, text, labels, split or "", read_bytes(image)) for uid, text, labels, split, image in rows)


@pytest.mark.parametrize(("there", "back"), list(itertools.permutations(LAYOUTS, 2)))
def test_there_and_back_everything_is_as_it_was(pairs, tmp_path, there: Any, back: Any):
    first = convert(pairs, tmp_path / "first", to=there)
    second = convert(read_pairs(first), tmp_path / "second", to=back)
    third = convert(read_pairs(second), tmp_path / "third", to=there)
    for folder in (first, second, third):
        found = read_pairs(folder)
        assert content(found) == content(pairs)
        assert found.report.left_out == {}


# --- other programs ---------------------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore::ResourceWarning")  # open_clip leaves its files to the garbage collector
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_pandas_csv_and_open_clip_read_the_table(pairs, tmp_path, monkeypatch):
    out = convert(pairs, tmp_path / "out", to="table")
    # pandas takes some captions for missing values, and ends a cell at NUL
    wanted = [f" {text}" if text in ("", "NA") else text.replace("\0", " ") for text in TEXTS]
    with (out / "open_clip.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    assert [row["title"] for row in rows] == wanted
    table = pandas.read_csv(out / "open_clip.csv", sep="\t")
    assert table["title"].tolist() == wanted
    monkeypatch.chdir(out)
    as_text = cast(Any, lambda texts: texts)  # in place of a tokenizer
    seen = CsvDataset("open_clip.csv", lambda image: image.size, "filepath", "title", sep="\t", tokenizer=as_text)
    assert [seen[n] for n in range(len(seen))] == [((12, 10), text) for text in wanted]
    assert [(out / path).read_bytes() for path in table["filepath"]] == [read_bytes(p) for p in pairs.image.to_pylist()]


@pytest.mark.filterwarnings("ignore::ResourceWarning")  # webdataset leaves its files to the garbage collector
def test_webdataset_reads_the_shards(pairs, tmp_path):
    out = convert(pairs, tmp_path / "out", to="webdataset")
    samples = list(WebDataset([str(path) for path in sorted(out.glob("*.tar"))], shardshuffle=False))
    gc.collect()
    records = [json.loads(sample["json"]) for sample in samples]
    assert [text for record in records for text in record["captions"]] == TEXTS
    assert [sample["txt"].decode() for sample in samples] == TEXTS[::2]
    images = [next(sample[ending] for ending in ("jpg", "png", "webp") if ending in sample) for sample in samples]
    assert images == [read_bytes(place) for place in pairs.images.to_pylist()]


@pytest.mark.filterwarnings("ignore")  # of the library's own
@pytest.mark.parametrize("layout", ["imagefolder", "webdataset", "parquet"])
def test_hugging_face_datasets_reads_what_is_written(pairs, tmp_path, layout: Any):
    if layout == "webdataset":  # that reader wants samples of one kind
        pairs = pairs.take([n for n, place in enumerate(pairs.image.to_pylist()) if place.endswith(".jpg")])
    texts = pairs.text.to_pylist()
    out = convert(pairs, tmp_path / "out", to=layout)
    files = {"webdataset": "*.tar", "parquet": "pairs.parquet"}
    options: Any = {"data_dir": str(out)} if layout == "imagefolder" else {"data_files": str(out / files[layout])}
    found = load_dataset(layout, split="train", cache_dir=str(tmp_path / "cache"), **options)
    rows = found.to_list() if layout == "parquet" else list(found)  # pyright: ignore
    if layout == "parquet":
        assert [row["text"] for row in rows] == texts
    elif layout == "imagefolder":
        assert sorted(text for row in rows for text in row["text"]) == sorted(texts)
        assert {row["image"].size for row in rows} == {(12, 10)}
    else:
        assert [text for row in rows for text in row["json"]["captions"]] == texts


def test_a_data_set_of_hugging_face_is_read(tmp_path):
    from datasets import Dataset, Features, Value
    from datasets import Image as ImageFeature

    raws = []
    for n in range(5):
        out = io.BytesIO()
        Image.new("RGB", (12, 10), (n, 9, 9)).save(out, "PNG")
        raws.append(out.getvalue())
    columns = {"image": [{"bytes": raw, "path": None} for raw in raws], "text": [f"text {n}" for n in range(5)]}
    features = Features({"image": ImageFeature(), "text": Value("string")})
    Dataset.from_dict(columns, features=features).to_parquet(str(tmp_path / "train-00000-of-00001.parquet"))
    pairs = read_pairs(tmp_path)
    assert [read_bytes(place) for place in pairs.image.to_pylist()] == raws
    assert set(pairs.split.to_pylist()) == {"train"}
    assert content(read_pairs(convert(pairs, tmp_path / "out", to="webdataset"))) == content(pairs)
