"""COCO, Karpathy, Flickr-PASCAL and Visual Genome."""

import json

import numpy as np
import pytest

from mithridate.data.coco import Instances
from mithridate.data.read import read_flickr_pascal, read_pairs
from mithridate.errors import DataError


def save(path, value):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value))
    return path


NAMES = {1: "dog", 2: "hot dog", 3: "baby", 4: "bus"}
CAPTIONS = {10: ["A dog.", "Two Hot Dogs on buses"], 11: ["Babies dogged by a bus-stop"], 12: []}
OBJECTS = {10: [(1, 5.0), (1, 7.0), (4, 9.0)], 11: [(3, 1.0)]}


@pytest.fixture
def coco(tmp_path):
    for part in ("train", "val"):
        images = [{"id": key, "file_name": f"{part}_{key}.jpg"} for key in CAPTIONS]
        captions = [{"image_id": key, "caption": text} for key, texts in CAPTIONS.items() for text in texts]
        objects = [
            {"image_id": key, "category_id": kind, "area": area, "segmentation": [[1, 2, 3]]}
            for key, found in OBJECTS.items()
            for kind, area in found
        ]
        categories = [{"id": key, "name": name} for key, name in NAMES.items()]
        folder = tmp_path / "annotations"
        save(folder / f"captions_{part}2014.json", {"images": images, "annotations": captions[::-1]})
        save(folder / f"instances_{part}2014.json", {"annotations": objects, "categories": categories})
        (tmp_path / f"{part}2014").mkdir()
        (tmp_path / f"{part}2014" / f"{part}_10.jpg").touch()
    return tmp_path


def test_coco_folder(coco):
    pairs = read_pairs(coco, label_rule="largest-object")
    assert pairs.split.to_pylist() == ["train"] * 4 + ["val"] * 4
    train = read_pairs(coco, label_rule="largest-object", split="train")
    assert train.text.to_pylist() == ["Two Hot Dogs on buses", "A dog.", "Babies dogged by a bus-stop", ""]
    assert train.image.to_pylist() == [f"{coco}/train2014/train_{key}.jpg" for key in (10, 10, 11, 12)]
    assert train.labels.to_pylist() == [["bus"], ["bus"], ["baby"], []]
    assert train.table["image_id"].to_pylist() == [10, 10, 11, 12]
    alone = read_pairs(coco / "annotations" / "captions_val2014.json", label_rule="largest-object", split="val")
    assert alone.uid.equals(pairs.uid.slice(4))


def test_classes_named_in_captions_are_whole_words_and_the_longest(coco):
    pairs = read_pairs(coco, label_rule="named-in-caption", split="train")
    assert pairs.labels.to_pylist() == [["dog", "hot dog", "bus"]] * 2 + [["baby", "bus"], []]
    assert Instances(["bus"]).pattern.search("a busy busstop") is None


def test_a_random_instance_is_drawn_with_multiplicity_for_each_image_alone(coco):
    drawn = [read_pairs(coco, split="train", seed=seed).labels[0].as_py() for seed in range(60)]
    # two dogs and a bus: 40 of 60 expected, four standard deviations are 14.6
    assert 25 <= drawn.count(["dog"]) <= 55
    assert drawn.count(["dog"]) + drawn.count(["bus"]) == 60
    path = coco / "annotations" / "instances_train2014.json"
    document = json.loads(path.read_text())
    save(path, document | {"annotations": document["annotations"][1::-1] + document["annotations"][2:]})
    save(
        coco / "annotations" / "captions_train2014.json",
        {"images": [{"id": 10, "file_name": "x.jpg"}], "annotations": [{"image_id": 10, "caption": "a"}]},
    )
    assert [read_pairs(coco, split="train", seed=seed).labels[0].as_py() for seed in range(60)] == drawn


def test_coco_without_instances(coco):
    for path in coco.glob("annotations/instances_*"):
        path.unlink()
    assert read_pairs(coco).classes == {}
    with pytest.raises(DataError, match=r"named-in-caption takes the class names from instances_\*.json"):
        read_pairs(coco, label_rule="named-in-caption")
    with pytest.raises(DataError, match=r"the label rule must be one of random-instance, .*got 'any'"):
        read_pairs(coco, label_rule="any")


def test_coco_elsewhere_and_in_another_form(coco, tmp_path):
    assert (
        read_pairs(coco, image_root=tmp_path / "no" / "where")
        .image[0]
        .as_py()
        .endswith("/no/where/train2014/train_10.jpg")
    )
    path = coco / "annotations" / "captions_train2014.json"
    save(path, {"images": [], "annotations": [{"image_id": 1, "caption": "a"}]})
    with pytest.raises(DataError, match="a caption for image 1, which it does not list"):
        read_pairs(path)
    save(path, {"images": [{"file_name": "a"}], "annotations": [{"caption": "a"}]})
    with pytest.raises(DataError, match="looks like COCO captions but has another form: KeyError"):
        read_pairs(coco)
    with pytest.raises(DataError, match="holds no captions that are known; expected COCO captions, a Karpathy"):
        read_pairs(coco / "annotations" / "instances_train2014.json")


def karpathy(images, dataset="flickr30k"):
    return {"dataset": dataset, "images": images}


def sentence_record(name, split, texts, **more):
    return {"filename": name, "split": split, "sentences": [{"raw": text} for text in texts], **more}


def test_karpathy_of_coco(coco):
    images = [
        sentence_record("val_10.jpg", "restval", ["a", "b"], filepath="val2014", cocoid=10),
        sentence_record("val_11.jpg", "test", ["c"], filepath="val2014", cocoid=11),
    ]
    pairs = read_pairs(save(coco / "dataset_coco.json", karpathy(images, "coco")), label_rule="largest-object")
    assert pairs.image.to_pylist() == [f"{coco}/val2014/val_10.jpg"] * 2 + [f"{coco}/val2014/val_11.jpg"]
    assert pairs.split.to_pylist() == ["train", "train", "test"]
    assert pairs.labels.to_pylist() == [["bus"], ["bus"], ["baby"]]


@pytest.fixture
def flickr_pascal(tmp_path):
    images = [sentence_record(f"f{n}.jpg", "test" if n == 3 else "train", [f"flickr {n}"]) for n in range(4)]
    save(tmp_path / "flickr30k" / "dataset_flickr30k.json", karpathy(images))
    (tmp_path / "flickr30k" / "flickr30k-images").mkdir()
    (tmp_path / "flickr30k" / "flickr30k-images" / "f0.jpg").touch()
    rows = [
        {"file_name": f"images/{name}{n}.jpg", "class": name, "captions": [f"{name} {n}", "again"]}
        for name in ("sheep", "boat")
        for n in range(6)
    ]
    (tmp_path / "pascal").mkdir()
    (tmp_path / "pascal" / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return tmp_path


def test_flickr_pascal_halves_every_class(flickr_pascal):
    pairs = read_pairs(flickr_pascal)
    flickr = f"{flickr_pascal}/flickr30k/flickr30k-images"
    assert pairs.image.to_pylist()[:3] == [f"{flickr}/f{n}.jpg" for n in range(3)]
    train, test = read_pairs(flickr_pascal, split="train"), read_pairs(flickr_pascal, split="test")
    assert train.classes == test.classes == {"sheep": 3, "boat": 3}
    assert (len(train), len(test)) == (3 + 12, 12)
    assert not set(train.images.to_pylist()) & set(test.images.to_pylist())
    same = read_flickr_pascal(flickr_pascal / "flickr30k", flickr_pascal / "pascal")
    assert same.table.equals(pairs.table)
    other = read_pairs(flickr_pascal, seed=1)
    assert other.split.to_pylist() != pairs.split.to_pylist()
    (flickr_pascal / "pascal").rename(flickr_pascal / "pascal50")
    assert read_pairs(flickr_pascal).split.equals(pairs.split)


def test_pascal_sentences_as_published(flickr_pascal):
    for name in ("cat", "cow"):
        for n in range(2):
            for folder, ending in ((f"sentence/{name}", ".txt"), (f"dataset/{name}", ".jpg")):
                path = flickr_pascal / "pascal" / folder / f"2008_{n}{ending}"
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text("one \n\ntwo\n")
    (flickr_pascal / "pascal" / "metadata.jsonl").unlink()
    pairs = read_pairs(flickr_pascal / "pascal")
    assert pairs.image[0].as_py() == f"{flickr_pascal}/pascal/dataset/cat/2008_0.jpg"
    assert pairs.text.to_pylist() == ["one", "two"] * 4
    assert read_pairs(flickr_pascal, split="test").classes == {"cat": 1, "cow": 1}


def test_flickr_pascal_needs_classes(flickr_pascal):
    (flickr_pascal / "pascal" / "metadata.jsonl").write_text('{"image": "a.jpg", "text": "b"}')
    with pytest.raises(DataError, match="need the class of each image"):
        read_pairs(flickr_pascal)


@pytest.fixture
def genome(tmp_path):
    regions = [
        {
            "id": image,
            "regions": [{"phrase": f"{image} {n}", "region_id": n, "image_id": image, "x": 1} for n in range(2)],
        }
        for image in (1, 2, 3)
    ]
    save(tmp_path / "region_descriptions.json", regions)
    about = [
        {
            "image_id": image,
            "coco_id": 7 if image == 2 else None,
            "url": f"https://x/VG_100K{'_2' * (image > 1)}/{image}.jpg",
        }
        for image in (1, 2, 3)
    ]
    save(tmp_path / "image_data.json", about)
    (tmp_path / "VG_100K").mkdir()
    (tmp_path / "VG_100K" / "3.jpg").touch()
    return tmp_path


def test_visual_genome(genome):
    pairs = read_pairs(genome)
    assert pairs.text.to_pylist() == ["1 0", "1 1", "2 0", "2 1", "3 0", "3 1"]
    places = [f"{genome}/VG_100K/1.jpg", f"{genome}/VG_100K_2/2.jpg", f"{genome}/VG_100K/3.jpg"]
    assert pairs.images.to_pylist() == places
    without = read_pairs(genome, exclude_coco=True)
    assert np.unique(without.table["image_id"]).tolist() == [1, 3]


def test_visual_genome_as_a_plain_list(genome):
    (genome / "image_data.json").unlink()
    plain = [{"phrase": "a", "region_id": 1, "image_id": 3}]
    pairs = read_pairs(save(genome / "plain.json", plain))
    assert pairs.image.to_pylist() == [f"{genome}/VG_100K/3.jpg"]
    with pytest.raises(DataError, match=r"exclude_coco needs image_data.json"):
        read_pairs(genome / "plain.json", exclude_coco=True)
