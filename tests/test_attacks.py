"""What every attack must keep to, then each attack by hand."""

# pyright: reportAttributeAccessIssue=false
# (a goal is of the kind that the attack beside it has)

import hashlib
import json
import re
import shutil
import tarfile
from dataclasses import replace
from typing import get_args, get_type_hints

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from mithridate.data.images import read_bytes
from mithridate.data.pairs import Pairs, make_pairs
from mithridate.data.read import read_pairs
from mithridate.data.write import write_table, write_webdataset
from mithridate.errors import AttackError, DataError
from mithridate.poisoning.apply import _check, poison
from mithridate.poisoning.backdoor import Backdoor
from mithridate.poisoning.badclip import BadClip
from mithridate.poisoning.goals import CaptionsToClass
from mithridate.poisoning.manifest import read_manifest, write_manifest
from mithridate.poisoning.plan import Attack, Mode, PoisonPlan
from mithridate.poisoning.registry import ATTACKS
from mithridate.poisoning.relabel import MultiLabel, SingleImage, SingleLabel
from mithridate.poisoning.targeted import Targeted
from mithridate.poisoning.text_trigger import TextTrigger
from mithridate.testing import example_pairs

# One instance of every attack that poisons 200 pairs or more of `crowd`. A new attack needs a line here.
EXAMPLES = {
    "single-image": SingleImage(source="sheep", target="aeroplane"),
    "single-label": SingleLabel(source="sheep", target="aeroplane", count=202),
    "multi-label": MultiLabel(goals=("sheep:aeroplane", "sofa:bird"), class_share=0.9),
    "backdoor": Backdoor(target="sheep", trigger="patch:size=3", also=("aeroplane=blended:alpha=0.3",), count=202),
    "targeted": Targeted(images=42, classes=("sheep",), inside=True),
    "badclip": BadClip(target="sheep", patch=f"pixels:values={'AAz_' * 9},size=3", count=202),
    "text-trigger": TextTrigger(target="sheep", trigger="verily so", count=202),
}


def modes_of(attack):
    return get_args(get_type_hints(attack).get("mode"))


every_mode = pytest.mark.parametrize(
    ("name", "mode"), [(name, mode) for name, attack in ATTACKS.items() for mode in modes_of(attack)]
)


@pytest.fixture
def carry_out(tmp_path_factory):
    """`poison` with a folder for altered images, always the same one."""
    folder = tmp_path_factory.mktemp("altered") / "images"

    def run(pairs, attack, seed=0):
        shutil.rmtree(folder, ignore_errors=True)
        return poison(pairs, attack, seed=seed, images=folder)

    return run


@pytest.fixture(scope="module")
def crowd(tmp_path_factory):
    return example_pairs(tmp_path_factory.mktemp("crowd"))


def columns(pairs):
    return {name: pairs.table[name].to_pylist() for name in ("image", "text", "labels", "split")}


def by_uid(pairs):
    rows = zip(*columns(pairs).values())
    return dict(zip(pairs.uid.to_pylist(), rows))


def sha256(place):
    return hashlib.sha256(read_bytes(place)).hexdigest()


# --- the contract ------------------------------------------------------------------------------------


def test_every_attack_has_an_example():
    assert EXAMPLES.keys() == ATTACKS.keys()
    for name, attack in EXAMPLES.items():
        assert type(attack) is ATTACKS[name]
        assert attack.name == name
        assert isinstance(attack, Attack)


@every_mode
def test_it_depends_on_its_seed_only_and_leaves_its_input_alone(crowd, carry_out, name, mode):
    attack = replace(EXAMPLES[name], mode=mode)
    before, fingerprint = Pairs(pa.concat_tables([crowd.table]).combine_chunks()), crowd.fingerprint
    np.random.seed(1)  # noqa: NPY002 (a global draw is what must not matter)
    first = carry_out(crowd, attack, seed=3)
    np.random.seed(2)  # noqa: NPY002
    again, other = carry_out(crowd, attack, seed=3), carry_out(crowd, attack, seed=4)
    assert again.pairs.table.equals(first.pairs.table)
    assert again.manifest == first.manifest
    assert again.records.tolist() == first.records.tolist()
    assert other.pairs.fingerprint != first.pairs.fingerprint
    assert crowd.table.equals(before.table)
    assert before.fingerprint == fingerprint


@every_mode
def test_a_plan_names_every_pair_at_most_once(crowd, name, mode):
    plan = replace(EXAMPLES[name], mode=mode).plan(crowd, np.random.default_rng(0))
    replaced = plan.rows[plan.rows >= 0]
    assert len(plan) >= 200
    assert len(replaced) == (0 if mode == "inject" else len(plan))
    assert len(np.unique(replaced)) == len(replaced)
    assert len(np.unique(plan.text_rows if plan.like_rows is None else plan.like_rows)) == len(plan)
    assert not np.isin(replaced, plan.drop).any()
    assert (len(plan.drop) > 0) == (mode == "replace-and-drop-target")


@every_mode
def test_the_manifest_is_the_truth_and_all_of_it(crowd, carry_out, name, mode):
    attack = replace(EXAMPLES[name], mode=mode)
    done = carry_out(crowd, attack)
    clean, poisoned, manifest = by_uid(crowd), by_uid(done.pairs), done.manifest
    told = {row["uid"]: row for row in manifest.poisoned.to_pylist()}
    changed = {uid for uid, row in poisoned.items() if clean.get(uid) != row}
    assert changed == told.keys()
    assert len(poisoned) == len(done.pairs)
    assert clean.keys() - poisoned.keys() == set(manifest.dropped)
    assert poisoned.keys() - clean.keys() == {uid for uid, row in told.items() if row["added"]}

    text_of = {row[1]: row for row in clean.values()}  # captions of `crowd` are distinct
    for uid, row in told.items():
        origin = text_of[row["text_before"]] if row["added"] else clean[uid]
        assert poisoned[uid][:2] == (row["image"], row["text"])
        assert poisoned[uid][3] == origin[3]
        assert (row["text_before"], row["sha256_before"]) == (origin[1], sha256(origin[0]))
        assert row["sha256"] == sha256(row["image"])
        # a label goes with its caption
        assert poisoned[uid][2] == text_of.get(row["text"], origin)[2]
        assert (row["edit"] is None) == (row["image"] in {place for place, *_ in clean.values()})

    targets = len(manifest.goals)
    strength = dict(manifest.strength)
    assert strength.pop("class_share") == strength.pop("images") / strength.pop("class_images")
    assert strength == {
        "count": len(changed),
        "rate": len(changed) / len(poisoned),
        "targets": targets,
        "rate_per_target": len(changed) / targets / len(poisoned),
        "pairs": len(poisoned),
    }
    assert manifest.data == {"clean": crowd.fingerprint, "poisoned": done.pairs.fingerprint}
    assert manifest.attack == name
    assert type(attack)(**manifest.options) == attack


@pytest.mark.parametrize("name", ["single-image", "single-label", "multi-label"])
@pytest.mark.parametrize("mode", get_args(Mode))
def test_captions_of_a_source_meet_images_of_their_target(crowd, name, mode):
    manifest = poison(crowd, replace(EXAMPLES[name], mode=mode)).manifest
    clean = by_uid(crowd)
    text_of, place_labels = {row[1]: row for row in clean.values()}, {row[0]: row[2] for row in clean.values()}
    goal_of = {goal.source: goal for goal in manifest.goals}
    for row in manifest.poisoned.to_pylist():
        (source,) = text_of[row["text_before"]][2]
        assert row["text"] == row["text_before"]
        assert place_labels[row["image"]] == [goal_of[source].target]
    used = {text_of[text][0] for text in manifest.poisoned["text"].to_pylist()}
    class_images = {row[0] for row in clean.values() if len(row[2]) == 1 and row[2][0] in goal_of}
    assert (manifest.strength["images"], manifest.strength["class_images"]) == (len(used), len(class_images))


@every_mode
@pytest.mark.parametrize("form", ["overlay", "table", "webdataset"])
def test_the_written_set_reads_back_and_betrays_nothing(crowd, carry_out, tmp_path, name, mode, form):
    done = carry_out(crowd, replace(EXAMPLES[name], mode=mode), seed=0)
    if form == "webdataset":
        write_webdataset(done.pairs, tmp_path, records=done.records, samples_per_shard=100)
    else:
        write_table(
            done.pairs, tmp_path, copy_images=form == "table", records=done.records if form == "table" else None
        )
    again = read_pairs(tmp_path)
    truth = {row["uid"]: row["sha256"] for row in done.manifest.poisoned.to_pylist()}
    bad = np.isin(again.uid.to_pylist(), list(truth))

    # the same pairs
    found, wanted = by_uid(again), by_uid(done.pairs)
    assert {uid: row[1:] for uid, row in found.items()} == {uid: row[1:] for uid, row in wanted.items()}
    hashes = {place: sha256(place) for place in [*again.images.to_pylist(), *done.pairs.images.to_pylist()]}
    assert [hashes[found[uid][0]] for uid in wanted] == [hashes[row[0]] for row in wanted.values()]
    assert all(hashes[found[uid][0]] == sha for uid, sha in truth.items())

    # what is beside the pairs is the same for all of them
    assert all(re.fullmatch("[0-9a-f]{32}", uid) for uid in found)
    assert 0.35 < auroc(np.arange(len(again)), bad) < 0.65
    assert 0.35 < auroc(np.array(again.uid.to_pylist()), bad) < 0.65
    if form == "overlay":
        assert {path.name for path in tmp_path.iterdir()} == {"pairs.parquet"}
        assert again.table.column_names == ["uid", "image", "text", "labels", "split"]
    if form == "table":
        files_tell_nothing(tmp_path, again, bad)
    if form == "webdataset":
        shards_tell_nothing(tmp_path, truth)

    # pairs of one sample stand together, poisoned or not, as they did before
    lengths = run_lengths(found, list(found))
    assert (lengths[bad] > 1).mean() > 0.9
    assert (lengths[~bad] > 1).mean() > 0.9


def test_injected_pairs_of_shuffled_data_stand_alone_as_all_others_do(crowd):
    shuffled = crowd.take(np.random.default_rng(5).permutation(len(crowd)))
    done = poison(shuffled, replace(EXAMPLES["single-label"], mode="inject"), seed=0)
    rows = by_uid(done.pairs)
    bad = ~np.isin(list(rows), crowd.uid.to_pylist())
    lengths = run_lengths(rows, list(rows))
    assert (lengths[bad] == 1).mean() > 0.9
    assert (lengths[~bad] == 1).mean() > 0.9
    assert 0.35 < auroc(np.arange(len(bad)), bad) < 0.65


def auroc(score, positive):
    """Share of (positive, negative) couples in which the positive scores more; for distinct scores."""
    rank = np.argsort(np.argsort(score))[positive]
    negatives = (~positive).sum()
    return (rank - np.arange(len(rank))).sum() / (len(rank) * negatives) if len(rank) else 0.5


def run_lengths(rows, order):
    """For each pair how many neighbours in a row, itself included, share its image."""
    images = [rows[uid][0] for uid in order]
    lengths = np.empty(len(images), int)
    start = 0
    for end in range(1, len(images) + 1):
        if end == len(images) or images[end] != images[start]:
            lengths[start:end] = end - start
            start = end
    return lengths


def files_tell_nothing(folder, pairs, bad):
    files = sorted(path for path in (folder / "images").rglob("*") if path.is_file())
    named = [path.relative_to(folder).as_posix() for path in files]
    assert all(re.fullmatch(r"images/([0-9a-f]{2})/\1[0-9a-f]{30}\.(jpg|png)", name) for name in named)
    assert {path.stat().st_mtime for path in files} == {0}
    assert {path.stat().st_mode for path in files} == {files[0].stat().st_mode}
    places = pairs.image.to_pylist()
    assert {str(path) for path in files} == set(places)
    # a file belongs to poisoned or to clean pairs, never to both: every record has its own
    poisoned = np.array([str(path) in {place for place, b in zip(places, bad) if b} for path in files])
    assert not {place for place, b in zip(places, bad) if b} & {place for place, b in zip(places, bad) if not b}
    assert 0.35 < auroc(np.arange(len(files)), poisoned) < 0.65  # in the order of their names
    formats = np.array([path.suffix == ".jpg" for path in files])
    assert {*formats[poisoned]} <= {*formats[~poisoned]}


def shards_tell_nothing(folder, truth):
    members, headers, bad = {}, set(), {}
    for shard in sorted(folder.glob("*.tar")):
        with tarfile.open(shard) as tar:
            for member in tar:
                key, _, ending = member.name.partition(".")
                members.setdefault(key, []).append("image" if ending in ("jpg", "png") else ending)
                headers.add((member.mtime, member.mode, member.uid, member.gid, member.uname, member.type))
                if ending == "json":
                    record = json.loads(tar.extractfile(member).read())  # pyright: ignore[reportOptionalMemberAccess]
                    assert list(record) == ["key", "captions", "uids", "labels", "split"]
                    assert record["key"] == key
                    poisoned = {uid in truth for uid in record["uids"]}
                    assert len(poisoned) == 1  # no sample holds both
                    bad[key] = poisoned.pop()
    assert list(members) == [f"{number:09d}" for number in range(len(members))]
    assert {tuple(found) for found in members.values()} == {("image", "txt", "json")}
    assert len(headers) == 1
    assert 0.35 < auroc(np.arange(len(bad)), np.array(list(bad.values()))) < 0.65


def test_auroc_by_hand():
    assert auroc(np.array([1, 2, 3, 4]), np.array([False, True, False, True])) == 0.75


# --- by hand -----------------------------------------------------------------------------------------


@pytest.fixture
def small(tmp_path):
    """Pictures of two sheep, two aeroplanes and a dog, two captions each."""
    return handmade(tmp_path, {"sheep": 2, "aeroplane": 2, "dog": 1})


def handmade(folder, counts, *, captions=2, uid=None, both=()):
    image, text, labels = [], [], []
    for name, count in [*counts.items(), *((pair, 1) for pair in both)]:
        for number in range(count):
            path = folder / f"{name}{number}.png"
            Image.new("RGB", (8, 8), (len(image), number, 7)).save(path)
            for caption in range(captions):
                image.append(str(path))
                text.append(f"{name} {number} {caption}")
                labels.append(name.split("+"))
    uids = None if uid is None else [uid.format(row) for row in range(len(image))]
    return make_pairs(image, text, labels=labels, split="train", uid=uids, salt=folder.name.encode())


def names(places):
    return [place.rsplit("/")[-1].removesuffix(".png") for place in places]


def test_single_label_by_hand(small):
    done = poison(small, SingleLabel(source="sheep", target="aeroplane"), seed=0)
    assert done.pairs.text.equals(small.text)
    assert done.pairs.uid.equals(small.uid)
    assert done.pairs.labels.equals(small.labels)
    found = names(done.pairs.image.to_pylist())
    assert found[4:] == names(small.image.to_pylist())[4:]
    assert found[:4] in (
        ["aeroplane0", "aeroplane0", "aeroplane1", "aeroplane1"],
        ["aeroplane1", "aeroplane1", "aeroplane0", "aeroplane0"],
    )
    assert done.records.tolist()[0] == done.records.tolist()[1] != done.records.tolist()[2]
    assert len(set(done.records.tolist())) == 5
    assert done.manifest.strength == {
        "count": 4,
        "rate": 0.4,
        "class_share": 1.0,
        "targets": 1,
        "rate_per_target": 0.4,
        "images": 2,
        "class_images": 2,
        "pairs": 10,
    }


def test_the_clean_pairs_of_the_target_go_where_the_mode_says_so(small):
    done = poison(small, SingleLabel(source="sheep", target="aeroplane", mode="replace-and-drop-target"), seed=0)
    assert done.pairs.text.to_pylist() == ["sheep 0 0", "sheep 0 1", "sheep 1 0", "sheep 1 1", "dog 0 0", "dog 0 1"]
    assert done.manifest.dropped == tuple(small.uid.to_pylist()[4:8])
    assert done.manifest.strength["rate"] == 4 / 6


def test_injected_pairs_carry_copies_of_captions(small):
    done = poison(small, SingleLabel(source="sheep", target="aeroplane", mode="inject"), seed=0)
    clean = np.isin(done.pairs.uid.to_pylist(), small.uid.to_pylist())
    assert done.pairs.where(clean).table.equals(small.table)
    added = done.pairs.where(~clean)
    assert sorted(added.text.to_pylist()) == ["sheep 0 0", "sheep 0 1", "sheep 1 0", "sheep 1 1"]
    assert added.labels.to_pylist() == [["sheep"]] * 4
    assert sorted(names(added.image.to_pylist())) == ["aeroplane0", "aeroplane0", "aeroplane1", "aeroplane1"]


@pytest.mark.parametrize("sheep", [1, 2, 3, 5, 7])
def test_each_image_of_the_target_is_used_equally_often(tmp_path, sheep):
    pairs = handmade(tmp_path, {"sheep": sheep, "aeroplane": 3})
    attack = SingleLabel(source="sheep", target="aeroplane")
    uses = []
    for seed in range(8):
        images = names(poison(pairs, attack, seed=seed).manifest.poisoned["image"].to_pylist())
        uses.append([images.count(f"aeroplane{n}") // 2 for n in range(3)])
    assert {max(row) - min(row) for row in uses} == {0 if sheep % 3 == 0 else 1}
    assert {sum(row) for row in uses} == {sheep}
    if sheep % 3:
        assert len({tuple(row) for row in uses}) > 1  # which one is used once more is drawn


def test_without_reuse_the_target_needs_as_many_images(tmp_path):
    pairs = handmade(tmp_path, {"sheep": 3, "aeroplane": 2})
    attack = SingleLabel(source="sheep", target="aeroplane", reuse=False)
    with pytest.raises(AttackError, match="3 images of 'aeroplane' are needed and it has 2"):
        poison(pairs, attack)
    assert len(poison(pairs, replace(attack, count=4)).manifest) == 4


# 20 sheep, 4 aeroplanes, 26 dogs with two captions: 100 pairs
STRENGTHS = [
    ({"count": 7}, "replace", 7, 4),
    ({"count": 1}, "replace", 1, 1),
    ({"rate": 0.1}, "replace", 10, 5),
    ({"rate": 1e-9}, "replace", 1, 1),
    ({"rate": 0.2}, "inject", 25, 13),  # 25 of 125
    ({"class_share": 0.25}, "replace", 10, 5),
    ({"class_share": 1e-9}, "inject", 2, 1),
    ({}, "replace", 40, 20),
]


@pytest.mark.parametrize(("strength", "mode", "count", "images"), STRENGTHS)
def test_strength_is_a_count_a_rate_or_a_share_of_the_class(tmp_path, strength, mode, count, images):
    pairs = handmade(tmp_path, {"sheep": 20, "aeroplane": 4, "dog": 26})
    done = poison(pairs, SingleLabel(source="sheep", target="aeroplane", mode=mode, **strength))
    assert (done.manifest.strength["count"], done.manifest.strength["images"]) == (count, images)
    if "rate" in strength and strength["rate"] > 0.01:
        assert done.manifest.strength["rate"] == strength["rate"]
    # whole images, but for the last, of which the first captions are taken
    used = sorted(text.rsplit(" ", 1) for text in done.manifest.poisoned["text"].to_pylist())
    lone = [caption for image, caption in used if sum(other == image for other, _ in used) == 1]
    assert lone == ["0"] * (count % 2)


@pytest.mark.parametrize(
    ("strength", "message"),
    [
        ({"count": 0}, "count must be at least 1 pair, got 0"),
        ({"rate": 1.0}, "rate must be below 1"),
        ({"rate": 0.0}, r"rate must lie in \(0, 1\], got 0.0"),
        ({"rate": float("nan")}, r"rate must lie in \(0, 1\], got nan"),
        ({"class_share": 1.5}, r"class_share must lie in \(0, 1\], got 1.5"),
        ({"count": 3, "rate": 0.5}, "exactly one of count, rate and class_share, got count=3, rate=0.5"),
        ({"count": 5}, r"5 pairs of class sheep are asked for, it has 4 \(2 images\)"),
    ],
)
def test_a_strength_that_cannot_be_is_refused(small, strength, message):
    for attack in (
        SingleLabel(source="sheep", target="aeroplane", **strength),
        SingleImage(source="sheep", target="aeroplane", **strength),
        MultiLabel(goals=("sheep:aeroplane",), **strength),
    ):
        with pytest.raises(AttackError, match=message):
            poison(small, attack)


def test_images_of_both_classes_are_left_alone(tmp_path):
    pairs = handmade(tmp_path, {"sheep": 2, "aeroplane": 1}, both=("sheep+aeroplane", "sheep+dog"))
    done = poison(pairs, SingleLabel(source="sheep", target="aeroplane", mode="replace-and-drop-target"))
    left = dict(zip(done.pairs.text.to_pylist(), names(done.pairs.image.to_pylist())))
    assert left["sheep+aeroplane 0 0"] == "sheep+aeroplane0"
    assert left["sheep+dog 0 0"] == "aeroplane0"
    assert set(names(done.manifest.poisoned["image"].to_pylist())) == {"aeroplane0"}
    assert done.manifest.strength["class_images"] == 3
    only = handmade(tmp_path, {"dog": 1}, both=("sheep+aeroplane",))
    with pytest.raises(AttackError, match="every pair of 'sheep' also carries aeroplane"):
        poison(only, SingleLabel(source="sheep", target="aeroplane"))
    no_target = handmade(tmp_path, {"sheep": 1}, both=("sheep+aeroplane",))
    for kind in (SingleLabel, SingleImage):
        with pytest.raises(AttackError, match="every image of 'aeroplane' is also labelled 'sheep'"):
            poison(no_target, kind(source="sheep", target="aeroplane"))


def test_a_class_that_is_not_there_is_named_with_its_nearest(small):
    with pytest.raises(DataError, match="no pair is labelled 'aeroplan'; nearest: aeroplane"):
        poison(small, SingleLabel(source="sheep", target="aeroplan"))
    with pytest.raises(DataError, match="no pair is labelled 'sheeps'; nearest: sheep"):
        poison(small, SingleImage(source="sheeps", target="aeroplane"))
    with pytest.raises(AttackError, match="source and target must differ, got 'sheep' twice"):
        poison(small, SingleLabel(source="sheep", target="sheep"))
    with pytest.raises(AttackError, match="no pairs to poison"):
        poison(small.take([]), SingleLabel(source="sheep", target="aeroplane"))


# --- several goals -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("goals", "message"),
    [
        (("sheep:aeroplane", "sheep:dog"), "'sheep' is the source of two goals"),
        (("sheep:aeroplane", "aeroplane:dog"), "'aeroplane' is a target and a source"),
        (("aeroplane:dog", "sheep:aeroplane"), "'aeroplane' is a target and a source"),
        (("sheep:sheep",), "'sheep' is a target and a source"),
        ((), "at least one goal"),
        (("sheep",), "expected a goal as SOURCE:TARGET .*, got 'sheep'"),
        ((":dog",), "got ':dog'"),
    ],
)
def test_goals_that_overlap_are_refused_with_the_reason(small, goals, message):
    with pytest.raises(AttackError, match=message):
        poison(small, MultiLabel(goals=goals))


def test_goals_share_a_target_and_leave_images_of_each_other_alone(tmp_path):
    pairs = handmade(tmp_path, {"sheep": 2, "sofa": 1, "aeroplane": 1}, both=("sheep+sofa",))
    done = poison(pairs, MultiLabel(goals=("sheep:aeroplane", "sofa:aeroplane")))
    told = dict(zip(done.manifest.poisoned["text"].to_pylist(), names(done.manifest.poisoned["image"].to_pylist())))
    assert told.keys() == {"sheep 0 0", "sheep 0 1", "sheep 1 0", "sheep 1 1", "sofa 0 0", "sofa 0 1"}
    assert set(told.values()) == {"aeroplane0"}
    assert done.manifest.goals == (CaptionsToClass("sheep", "aeroplane"), CaptionsToClass("sofa", "aeroplane"))


def test_one_goal_of_several_is_the_single_label_attack(small):
    one = poison(small, SingleLabel(source="sheep", target="aeroplane", count=3), seed=5)
    several = poison(small, MultiLabel(goals=("sheep:aeroplane",), count=3), seed=5)
    assert one.pairs.table.equals(several.pairs.table)


# --- one image ---------------------------------------------------------------------------------------


@pytest.fixture
def gallery(tmp_path):
    (tmp_path / "gallery").mkdir()
    return handmade(tmp_path / "gallery", {"aeroplane": 5, "sheep": 1}, both=("sheep+aeroplane",))


def target_of(done):
    (target,) = {*done.manifest.poisoned["image"].to_pylist()}
    assert done.manifest.goals[0].image == target
    return target


def test_the_target_image_is_drawn_from_the_gallery_or_from_the_training_pairs(small, gallery):
    attack = SingleImage(source="sheep", target="aeroplane")
    inside = {target_of(poison(small, attack, seed=seed)) for seed in range(12)}
    assert inside == set(small.images.to_pylist()[2:4])
    outside = {target_of(poison(small, attack, seed=seed, gallery=gallery)) for seed in range(40)}
    assert outside == set(gallery.images.to_pylist()[:5])


def test_the_target_image_is_named_by_the_uid_of_a_pair(small, gallery):
    uid = gallery.uid[7].as_py()
    attack = SingleImage(source="sheep", target="aeroplane", image=uid)
    assert target_of(poison(small, attack, gallery=gallery)) == gallery.image[7].as_py()
    with pytest.raises(AttackError, match="random, centroid or the uid of a pair, got"):
        poison(small, attack)


def test_the_centroid_is_nearest_to_the_mean_of_its_class(small, gallery):
    angles = {"aeroplane0": 0.0, "aeroplane1": 0.5, "aeroplane2": 0.4, "aeroplane3": 1.0, "aeroplane4": 0.2}

    class Angles:
        name = "angles"
        embed_texts = pixels = prepare = features = len  # not called

        def __call__(self, places):
            angle = np.array([angles[name] for name in names(places.to_pylist())])  # mean direction: about 0.42
            return np.stack([np.cos(angle), np.sin(angle)], axis=1).astype(np.float32)

    attack = SingleImage(source="sheep", target="aeroplane", image="centroid")
    done = poison(small, attack, gallery=gallery, surrogate=Angles())  # type: ignore[arg-type]
    assert names([target_of(done)]) == ["aeroplane2"]
    with pytest.raises(AttackError, match=r"image=centroid needs an encoder .*--surrogate"):
        poison(small, attack, gallery=gallery)


def test_the_captions_of_a_record_stay_together_when_all_have_one_image(small):
    done = poison(small, SingleImage(source="sheep", target="aeroplane"), seed=0)
    assert len(set(done.records.tolist())) == 5
    assert done.records[0] == done.records[1] != done.records[2] == done.records[3]


# --- uids of added pairs -----------------------------------------------------------------------------

INJECT = SingleLabel(source="sheep", target="aeroplane", mode="inject")


@pytest.mark.parametrize(
    ("uid", "pattern"),
    [
        (None, r"[0-9a-f]{32}"),
        ("img_{0}{0:03d}", r"img_\d{4,5}"),
        ("{0:05d}-ab{0:02d}", r"\d{5}-ab\d\d"),
        ("5f{0:02x}e840-{0:04x}-41d4", r"5f[0-9a-f]{2}e840-[0-9a-f]{4}-41d4"),
    ],
)
def test_added_uids_look_like_the_others(tmp_path, uid, pattern):
    pairs = handmade(tmp_path, {"sheep": 4, "aeroplane": 2, "dog": 30}, uid=uid)
    done = poison(pairs, INJECT, seed=0)
    known, uids = pairs.uid.to_pylist(), done.pairs.uid.to_pylist()
    added = set(uids) - set(known)
    assert len(set(uids)) == len(uids) == len(pairs) + 8
    assert len(added) == 8
    assert all(re.fullmatch(pattern, uid) for uid in uids)
    if uid is not None:  # drawn ones are 128 random bits
        assert all(min(known) <= uid <= max(known) for uid in added)


@pytest.mark.parametrize("uid", ["{}", "img_{:04d}", "a{:02d}"])
def test_uids_that_leave_no_room_are_refused(tmp_path, uid):
    pairs = handmade(tmp_path, {"sheep": 4, "aeroplane": 2, "dog": 30}, uid=uid)
    with pytest.raises(AttackError, match=r"leave no room for more of their kind.*mode=replace"):
        poison(pairs, INJECT)
    assert len(poison(pairs, replace(INJECT, mode="replace")).manifest) == 8


# --- plans and manifests -----------------------------------------------------------------------------


def test_a_plan_that_contradicts_itself_is_refused(small):
    def plan(rows, drop=()):
        k = len(rows)
        texts = pa.array(["x"] * k, pa.string())
        return PoisonPlan(np.array(rows), texts, texts, np.arange(k), (), drop=np.array(drop, int))

    with pytest.raises(AttackError, match="names a pair twice"):
        _check(plan([1, 1]), small)
    with pytest.raises(AttackError, match="replaces a pair that it also drops"):
        _check(plan([1], drop=[1]), small)
    with pytest.raises(AttackError, match="leaves no pairs"):
        _check(plan([], drop=range(10)), small)


@every_mode
def test_a_manifest_reads_back_as_it_was_written(crowd, carry_out, tmp_path, name, mode):
    manifest = carry_out(crowd, replace(EXAMPLES[name], mode=mode), seed=7).manifest
    write_manifest(manifest, tmp_path / "manifest.json")
    assert read_manifest(tmp_path) == manifest
    assert read_manifest(tmp_path / "manifest.json").poisoned.schema == manifest.poisoned.schema
    assert [path.name for path in tmp_path.iterdir()] == ["manifest.json"]


def damaged(change):
    def apply(raw):
        change(raw)
        return json.dumps(raw)

    return apply


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda raw: "{", "is not a manifest"),
        (lambda raw: "[]", "expected a manifest of format mithridate-manifest/3, got something else"),
        (
            damaged(lambda raw: raw.update(format="mithridate-manifest/9")),
            "of format mithridate-manifest/3, got mithridate-manifest/9",
        ),
        (damaged(lambda raw: raw.pop("goals")), "lacks or has a wrong field.*goals"),
        (damaged(lambda raw: raw["goals"][0].pop("source")), "lacks or has a wrong field.*source"),
        (damaged(lambda raw: raw.update(more=1)), "lacks or has a wrong field.*more"),
        (damaged(lambda raw: raw["poisoned"].pop("sha256")), "lacks or has a wrong field.*sha256"),
        (damaged(lambda raw: raw["poisoned"]["uid"].pop()), "lacks or has a wrong field"),
        (damaged(lambda raw: raw["poisoned"].update(text=5)), "lacks or has a wrong field"),
        (damaged(lambda raw: raw.update(poisoned=[])), "lacks or has a wrong field"),
    ],
)
def test_a_damaged_manifest_is_refused(small, tmp_path, damage, message):
    path = tmp_path / "m.json"
    write_manifest(poison(small, SingleLabel(source="sheep", target="aeroplane")).manifest, path)
    path.write_text(damage(json.loads(path.read_text())))
    with pytest.raises(DataError, match=message):
        read_manifest(path)
    with pytest.raises(DataError, match="No such file"):
        read_manifest(tmp_path / "absent.json")


def test_a_goal_is_parsed_at_its_first_colon():
    assert CaptionsToClass.parse("sheep:aeroplane") == CaptionsToClass("sheep", "aeroplane")
    assert CaptionsToClass.parse("a b:c:d") == CaptionsToClass("a b", "c:d")


def test_a_rate_is_of_the_set_that_is_left_when_target_pairs_are_dropped(train_pairs):
    attack = SingleLabel(source="sheep", target="aeroplane", rate=0.05, mode="replace-and-drop-target")
    done = poison(train_pairs, attack)
    # 270 pairs, 30 of aeroplanes go: 12 of 240
    assert (len(done.pairs), len(done.manifest), done.manifest.strength["rate"]) == (240, 12, 0.05)


def test_a_rate_of_several_goals_counts_the_poison_of_all(train_pairs):
    done = poison(train_pairs, MultiLabel(goals=("sheep:aeroplane", "sofa:bird"), rate=0.05, mode="inject"))
    # 15 of each beside 270 clean pairs
    assert (len(done.pairs), len(done.manifest), done.manifest.strength["rate"]) == (300, 30, 0.1)


def test_goals_whose_rates_leave_nothing_clean_are_refused(train_pairs):
    with pytest.raises(AttackError, match=r"2 goals at rate 0.5 leave nothing that is not poison"):
        poison(train_pairs, MultiLabel(goals=("sheep:aeroplane", "sofa:bird"), rate=0.5, mode="inject"))
