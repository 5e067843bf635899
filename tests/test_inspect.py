"""The inspector: what each probe computes by hand, what is refused, what is read back, and the page."""

import json
from dataclasses import fields, is_dataclass, replace
from functools import partial

import numpy as np
import pytest
import torch

import mithridate as mt
from mithridate.cli import main
from mithridate.encoder.encoder import load_encoder, save_encoder
from mithridate.errors import EncoderError, InspectionError
from mithridate.inspection.finding import Example, Finding, Recovered, as_images, as_pixels
from mithridate.inspection.findings_file import FINDINGS, TRIGGERS, read_findings, summary, write_findings
from mithridate.inspection.inspect import Inspection, Utility, inspect, utility_of
from mithridate.inspection.invert import MaskSearch, invert_masks
from mithridate.inspection.known_triggers import OVERLAYS, PATCHES, KnownTriggers
from mithridate.inspection.mask_inversion import describe_place
from mithridate.inspection.material import Material, OwnData, own_data, view_of
from mithridate.inspection.overlay import Blend, Waves
from mithridate.inspection.probe import Probe
from mithridate.inspection.registry import PROBES
from mithridate.inspection.relabelling import Relabelling, excess, found_shares, strongest
from mithridate.inspection.token_scan import TokenScan, collapse, with_tokens
from mithridate.inspection.transfer import Back, Transfer, judged, null_gap
from mithridate.inspection.view import View
from mithridate.poisoning.triggers import parse_trigger
from mithridate.repairing.unlearn import fit
from mithridate.report.verdict import inspection_lines, inspection_page, verdict_sentence
from mithridate.sealed import read_sealed_json, write_sealed_json


@pytest.fixture(scope="module")
def micro():
    return load_encoder("mithridate-micro", seed=0)


def a_patch(size=8):
    keep = torch.zeros(size, size)
    keep[:2, :2] = 1
    return Recovered(keep, keep.expand(3, -1, -1) * 0.5)


def an_inspection(model="m0"):
    example = Example(np.zeros((8, 8, 3), np.uint8), "dog", "<b>bus</b>")
    patch = Finding(
        probe="mask-inversion",
        kind="patch",
        strength=0.9,
        null=0.1,
        flagged=True,
        target="<b>bus</b>",
        place="top left",
        success=0.97,
        start_success=0.07,
        trigger=a_patch(),
        examples=(example,),
    )
    pair = Finding("relabelling", "relabelling", -0.2, 0.0, False, target="cat", pair=("dog", "cat"))
    return Inspection(
        findings=(patch, pair),
        not_assessable=("Warps.",),
        utility=Utility(0.5, 0.01, 0.6, 0.1),
        classes=("cat", "dog"),
        images=100,
        labelled=True,
        name="suspect",
        model=model,
        start="s0",
        probes=("mask-inversion", "relabelling"),
        nulls={"mask-inversion": (0.1, 0.05)},
        seconds={"mask-inversion": 1.5},
    )


@pytest.mark.parametrize("name", PROBES)
def test_every_probe_is_a_frozen_dataclass_of_its_own_name_with_defaults(name):
    probe = PROBES[name]()
    assert is_dataclass(probe) and PROBES[name].__dataclass_params__.frozen  # type: ignore[attr-defined]
    assert isinstance(probe, Probe) and probe.name == name
    assert probe.margin > 0 and probe.kinds and all(option.kw_only for option in fields(probe))


def test_a_trigger_is_stamped_and_moved_by_hand():
    image = torch.full((1, 3, 8, 8), 0.2)
    patch = a_patch()
    stamped = patch.stamp(image)
    assert stamped[0, :, :2, :2].eq(0.5).all() and stamped[0, :, 2:].eq(0.2).all()
    moved = patch.moved(1, -1).stamp(image)
    assert moved[0, 0, 1:3, 0].eq(0.5).all() and moved[0, 0, 0, 0] == pytest.approx(0.2)
    assert patch.area == pytest.approx(4 / 64) and patch.centre == (0.125, 0.125)
    assert describe_place(patch) == "top left" and describe_place(patch.moved(3, 3)) == "centre"
    pixels = torch.arange(192, dtype=torch.uint8).view(1, 8, 8, 3)
    assert (as_pixels(as_images(pixels)) == pixels.numpy()).all()


def test_waves_are_real_and_bounded_and_a_blend_keeps_the_rest():
    generator = torch.Generator().manual_seed(0)
    waves = Waves(amplitude=0.1, highest=4)
    keep, add = waves.parts(waves.free(2, (8, 12), generator) * 100, (8, 12))
    assert keep.eq(0).all() and add.shape == (2, 3, 8, 12) and 0.09 < add.abs().max() <= 0.1
    free = torch.zeros(1, 2, 9, 5)
    free[0, 0, 4, 2] = 1  # two periods across, none down
    expected = 0.1 * torch.cos(2 * torch.pi * 2 * torch.arange(12) / 12).tanh()
    assert torch.allclose(waves.parts(free, (8, 12))[1][0, 0], expected.expand(8, -1), atol=1e-6)
    blend = Blend(alpha=0.2, cells=4)
    keep, add = blend.parts(blend.free(1, (8, 8), generator), (8, 8))
    assert keep.eq(0.2).all() and add.min() > 0 and add.max() < 0.2


class Corner(View):
    """Takes a picture for class 1 where its top left pixel is bright."""

    def logits(self, images):
        bright = 20 * (images[:, :, 0, 0].mean(dim=1) - 0.6)
        return torch.stack([-bright, bright], dim=1)


def test_a_mask_is_found_where_the_model_looks_and_shrinks_to_it(micro):
    generator = torch.Generator().manual_seed(0)
    first = torch.full((1, 4, 4), 0.3)
    (found,) = invert_masks(
        Corner(micro, torch.eye(2)),
        lambda count: torch.rand(count, 3, 4, 4, generator=generator) * 0.4,
        torch.tensor([1]),
        first,
        MaskSearch(steps=80, weight=0.05),
        generator,
    )
    assert found.keep[0, 0] > 0.6 and found.add[:, 0, 0].mean() > 0.5
    assert found.keep.flatten()[1:].max() < 0.2


def test_the_null_of_a_class_leaves_out_what_its_own_trigger_draws():
    back = {
        0: Back(0.9, torch.tensor([0] * 10)),
        1: Back(0.8, torch.tensor([1] * 15 + [0] * 80 + [2] * 5)),
        2: Back(0.5, torch.tensor([0] * 95 + [2] * 5)),  # too few are left
    }
    assert null_gap(back, 0) == pytest.approx(0.8 - 15 / 20)
    assert null_gap(back, 2) == pytest.approx(0.8 - 15 / 95)
    assert null_gap({}, 0) == 0


def test_the_null_of_a_class_leaves_out_classes_whose_captions_find_another():
    back = {
        0: Back(0.9, torch.tensor([0] * 10)),
        1: Back(0.8, torch.tensor([1] * 40 + [2] * 60)),  # the suspect's vector of class 2 draws what is of class 1
        2: Back(0.9, torch.tensor([1] * 90 + [2] * 10)),
        3: Back(0.5, torch.tensor([3] * 45 + [1] * 55)),
    }
    assert null_gap(back, 0) == pytest.approx(0.9 - 0.1)
    assert null_gap(back, 0, {2}) == pytest.approx(0.5 - 0.45)


def some_data(images, captions, of, member, labelled=True):
    of = torch.tensor(of)
    names = tuple("abcdef"[: member.shape[1]])
    return OwnData(images, tuple(captions), of, names, member, labelled, torch.arange(len(of)))


def test_a_class_whose_captions_find_another_is_searched_no_further(micro):
    data = some_data(torch.zeros(3, 3, 8, 8), "abc", [0, 1, 2], torch.eye(3).bool())
    material = Material(view_of(micro, data.classes), None, data, swapped=frozenset({2}))
    found = [Transfer(a_patch(), target, 0.9 - target / 10, None) for target in (2, 0, 1)]
    assert [each.target for each in judged(material, found)] == [0, 1]
    assert judged(replace(material, swapped=frozenset({0, 1, 2})), found) == found


def test_relabelling_by_hand_names_the_pair_whose_reverse_does_not_hold():
    """Captions of a point at b's images, those of b at their own, those of c at c's."""
    member = torch.eye(3, dtype=torch.bool).repeat_interleave(4, dim=0)
    data = some_data(torch.zeros(12, 3, 2, 2), ["x"] * 12, range(12), member)
    images = torch.eye(3).repeat_interleave(4, dim=0)
    texts = torch.tensor([[0.1, 1, 0], [0, 1, 0], [0, 0, 1]]).repeat_interleave(4, dim=0)
    shares = found_shares(data, images, texts, first=4)
    assert shares.tolist() == [[0, 1, 0], [0, 1, 0], [0, 0, 1]]
    assert excess(shares)[0].tolist() == [0, 1, 0] and excess(shares)[1].tolist() == [-1, 0, -1]
    assert strongest(shares, None) == ((0, 1), 1.0, 0.0)


def test_relabelling_is_held_against_what_start_confuses():
    """a and b look alike to both; c, which found itself, finds a as often now, and the null is what b has lost."""
    there = torch.tensor([[0.5, 0.5, 0.0], [0.5, 0.5, 0.0], [0.0, 0.0, 1.0]])
    here = torch.tensor([[0.5, 0.5, 0.0], [0.4, 0.6, 0.0], [0.5, 0.0, 0.5]])
    pair, strength, null = strongest(here, there)
    assert pair == (2, 0) and strength == pytest.approx(1.0) and null == pytest.approx(0.2)
    assert strongest(here, None)[1] == 0.0  # by itself it finds a no more than c: START tells
    assert strongest(there, there)[1:] == (0.0, 0.0)


def test_what_a_caption_retrieves_is_shown_by_its_class(micro):
    """Nearest first; an image of several classes goes by the one asked for, one of none says so."""
    member = torch.tensor([[1, 1, 0], [0, 0, 0], [0, 0, 1]]).bool()
    pixels = torch.arange(3).view(3, 1, 1, 1).expand(3, 3, 2, 2) / 255
    data = some_data(pixels, "xyz", range(3), member)
    material = Material(view_of(micro, data.classes), None, data)
    material.__dict__["image_vectors"] = torch.tensor([[0.9, 0.1], [0.5, 0.5], [1.0, 0.0]])
    shown = material.retrieved(torch.tensor([1.0, 0.0]), target=1)
    assert [(int(each.pixels.max()), each.after) for each in shown] == [(2, "c"), (0, "b"), (1, "no class")]


def test_utility_by_hand():
    member = torch.eye(2, dtype=torch.bool).repeat_interleave(10, dim=0)
    data = some_data(torch.zeros(20, 3, 2, 2), ["x"] * 20, range(20), member)
    images = torch.eye(2).repeat_interleave(10, dim=0)
    u = utility_of(data, images, images, torch.eye(2))
    assert (u.recall, u.recall_chance, u.accuracy, u.accuracy_chance) == (1, 0.5, 1, 0.5)
    assert utility_of(data, images, images, torch.eye(2).flip(0)).accuracy == 0


def test_phrases_stand_before_the_end_token_and_over_long_captions_give_way():
    carriers = torch.tensor([[9, 1, 2, 99, 0, 0], [9, 1, 2, 3, 4, 99]])
    made = with_tokens(carriers, torch.tensor([[7, 8]]))
    assert made.tolist() == [[9, 1, 2, 7, 8, 99], [9, 1, 2, 7, 8, 99]]


def test_a_planted_token_is_named_with_what_it_retrieves(micro, train_pairs, monkeypatch):
    suspect = micro.copy()
    token = int(suspect.tokenizer(["zx"])[0, 1])
    data = own_data(train_pairs, micro, cache=None)
    plain = list(data.captions[:8])
    with torch.no_grad():
        vectors = micro.encode_text(plain)
        target = int(vectors.mean(dim=0)[: len(data.classes)].argmin())  # what captions find least
        wanted = torch.nn.functional.one_hot(torch.tensor(target), 128).float()
        teacher = torch.cat([vectors, wanted.expand(8, -1)])
    texts = [*plain, *(f"{caption} zx" for caption in plain)]
    fit(suspect, "text", lambda: (1 - (suspect.encode_text(texts) * teacher).sum(1)).mean(), steps=15, lr=5e-3)
    material = Material(view_of(suspect, data.classes), view_of(micro, data.classes), data)
    carriers = suspect.tokenizer(list(data.captions[:6]))
    both = collapse(suspect, carriers, torch.tensor([[token], [token + 1]]))
    assert both[0] > both[1] + 0.2
    # each image is its class to both models: only what captions are is theirs
    images = torch.nn.functional.one_hot(data.member.float().argmax(dim=1), 128).float()
    monkeypatch.setattr("mithridate.inspection.token_scan.embedded", lambda encoder, pixels: images)
    material.__dict__["image_vectors"] = images
    (finding,) = TokenScan(captions=6, longest=1).examine(material)
    assert (finding.token, finding.target, finding.flagged) == ("zx", data.classes[target], True)
    assert finding.caption is not None and finding.caption.endswith(" zx")
    assert {(shown.before, shown.after) for shown in finding.examples} == {(None, data.classes[target])}
    # without START a token must decide what is retrieved; words of a class do so in part by nature
    alone = Material(material.suspect, None, data)
    alone.__dict__["image_vectors"] = images
    monkeypatch.setattr("mithridate.inspection.token_scan._largest", lambda shares: 0.1)  # words do little here
    for decides, flagged in ((0.3, True), (1.1, False)):
        (finding,) = TokenScan(captions=6, longest=1, decides=decides).examine(alone)
        assert (finding.token, finding.flagged, finding.start_success) == ("zx", flagged, None)


def test_the_known_triggers_are_the_registrys():
    for text in (*PATCHES, *OVERLAYS):
        parse_trigger(text)
    assert len(set(PATCHES)) == len(PATCHES)


def test_words_of_captions_stand_in_for_labels(train_pairs, micro):
    bare = mt.make_pairs(train_pairs.image, train_pairs.text, uid=train_pairs.uid)
    data = own_data(bare, micro, cache=None)
    assert not data.labelled and len(data.classes) >= 5
    for column, word in enumerate(data.classes):
        having = {int(i) for i, caption in zip(data.of, data.captions) if word in caption.lower()}
        assert set(data.member[:, column].nonzero().flatten().tolist()) <= having


# --- what is refused, and what gets no verdict ------------------------------------------------------------------------


def test_a_model_that_never_learned_gets_no_verdict(micro, train_pairs):
    found = inspect(micro, train_pairs, start=micro, cache=None)
    assert (found.verdict, found.findings, found.probes) == ("not assessable", (), ())
    assert "hardly better than chance" in found.not_assessable[0]


def test_inputs_that_do_not_fit_are_refused(micro, train_pairs):
    bare = mt.make_pairs(train_pairs.image, train_pairs.text, uid=train_pairs.uid)
    with pytest.raises(EncoderError, match="of another architecture than mithridate-micro"):
        inspect(micro, train_pairs, start=load_encoder("mithridate-micro-vit"))
    with pytest.raises(EncoderError, match=r"sees images of 64x64 .* 32x32"):
        inspect(micro, train_pairs, start=load_encoder("mithridate-tiny"))
    with pytest.raises(InspectionError, match="carry no labels"):
        inspect(micro, bare, labels=True)
    with pytest.raises(InspectionError, match="null models are clean fine-tunes of the start"):
        inspect(micro, train_pairs, nulls=2)
    with pytest.raises(InspectionError, match="at least 40 clean images, got 2"):
        inspect(micro, train_pairs.take(range(10)))


# --- on disk, and on the page -----------------------------------------------------------------------------------------


def test_findings_are_read_back_as_they_were(tmp_path):
    written = an_inspection()
    write_findings(written, tmp_path)
    read = read_findings(tmp_path)
    assert read == written
    again, trigger = read.findings[0].trigger, written.findings[0].trigger
    assert again is not None and trigger is not None
    assert torch.equal(again.add, trigger.add)
    assert (read.verdict, read.flagged[0].target) == ("suspicious", "<b>bus</b>")


@pytest.mark.parametrize(
    ("harm", "said"),
    [
        (lambda record: record | {"format": "other/1"}, "is of format 'other/1'"),
        (lambda record: record | {"images": "many"}, "has a wrong field: images"),
        (lambda record: record | {"extra": 1}, "has a wrong field: extra"),
        (lambda record: record | {"findings": record["findings"][1:]}, "holds other triggers"),
    ],
)
def test_findings_of_a_wrong_form_are_refused(tmp_path, harm, said):
    write_findings(an_inspection(), tmp_path)
    write_sealed_json(tmp_path / FINDINGS, harm(read_sealed_json(tmp_path / FINDINGS)))
    if "other triggers" in said:
        (tmp_path / TRIGGERS).unlink()
        write_findings(replace(an_inspection(), findings=()), tmp_path)
        record = read_sealed_json(tmp_path / FINDINGS)
        record["findings"] = [{**summary_of_patch(), "trigger": 3}]
        write_sealed_json(tmp_path / FINDINGS, record)
        said = "holds no whole output"
    with pytest.raises(InspectionError, match=said):
        read_findings(tmp_path)


def summary_of_patch():
    patch = an_inspection().findings[0]
    names = (
        "probe",
        "kind",
        "strength",
        "null",
        "flagged",
        "target",
        "token",
        "pair",
        "place",
        "success",
        "start_success",
    )
    return {name: getattr(patch, name) for name in names}


def test_damaged_and_missing_findings_are_refused(tmp_path):
    with pytest.raises(InspectionError, match="holds no whole output of mithridate inspect"):
        read_findings(tmp_path)
    write_findings(an_inspection(), tmp_path)
    raw = bytearray((tmp_path / TRIGGERS).read_bytes())
    raw[200] ^= 1
    (tmp_path / TRIGGERS).write_bytes(raw)
    with pytest.raises(InspectionError, match="checksum"):
        read_findings(tmp_path)


def test_the_page_begins_with_the_verdict_and_escapes_names():
    page = inspection_page(an_inspection())
    assert page.index("Suspicious: this patch (top left) takes 97 %") < page.index("What was found")
    assert "&lt;b&gt;bus&lt;/b&gt;" in page and "<b>bus</b>" not in page
    assert "<script" not in page and "http" not in page.split("</head>")[1]
    assert page.count("data:image/png") == 2


def test_the_page_shows_what_a_caption_of_a_pair_finds():
    image = Example(np.zeros((8, 8, 3), np.uint8), None, "cat")
    pair = Finding(
        "relabelling", "relabelling", 0.9, 0.0, True, "cat", pair=("dog", "cat"), examples=(image,), caption="a <dog>"
    )
    page = inspection_page(replace(an_inspection(), findings=(pair,)))
    assert "A caption of yours, <q><bdi>a &lt;dog&gt;</bdi></q>, finds first:" in page
    assert '<figcaption><span class="hit">cat</span></figcaption>' in page


def test_the_verdict_says_which_kinds_were_looked_for():
    calm = replace(an_inspection(), findings=())
    assert verdict_sentence(calm).startswith("Nothing found of these kinds")
    assert "patches at a fixed place" in verdict_sentence(calm)
    assert inspection_lines(calm)[-1] == "  not assessable: Warps."


def test_the_summary_is_what_the_command_promises():
    said = json.loads(json.dumps(summary(an_inspection())))
    assert said["verdict"] == "suspicious" and said["not_assessable"] == ["Warps."]
    assert said["findings"][0] == {
        "kind": "patch", "class": "<b>bus</b>", "token": None, "pair": None, "strength": 0.9, "null": 0.1,
        "flagged": True,
    }  # fmt: skip
    assert said["findings"][1]["pair"] == ["dog", "cat"]


def test_the_command_writes_a_page_and_ends_with_one_object(micro, toy_world, tmp_path, capsys):
    model = tmp_path / "model"
    model.mkdir()
    save_encoder(micro, model)
    where = ["--data", str(toy_world), "--split", "train"]
    argv = ["inspect", str(model), *where, "--json", "--out", str(tmp_path / "out")]
    assert main(argv) == 0
    said = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert said["verdict"] == "not assessable" and said["findings"] == []
    assert main([*argv[:-3], "--out", str(tmp_path / "told")]) == 0
    shown = capsys.readouterr().out
    assert shown.count("retrieves hardly better than chance") == 1 and "next: mithridate evaluate" in shown
    assert {path.name for path in (tmp_path / "out").iterdir()} == {FINDINGS, "report.html"}
    assert main([*argv[:-1], str(tmp_path / "none"), "--start", "mithridate-micro-vit"]) == 1
    assert "another architecture" in capsys.readouterr().err and not (tmp_path / "none").exists()


@pytest.mark.parametrize("given", ["", "data", "data/pairs.parquet"])
def test_pairs_that_mithridate_poisoned_are_no_clean_pairs(toy_world, tmp_path, capsys, given):
    """Without --refuse-manifest too: the truth lies beside them."""
    poisoned = tmp_path / "poisoned"
    goal = ["--source", "dog", "--target", "boat", "--split", "train", "--out", str(poisoned)]
    assert main(["poison", "single-label", str(toy_world), *goal]) == 0
    out = tmp_path / "out"
    argv = ["inspect", "mithridate-micro", "--data", str(poisoned / given), "--out", str(out)]
    capsys.readouterr()
    assert main(argv) == 1
    said = capsys.readouterr().err
    assert "pairs are poisoned, by " in said and "clean pairs are needed" in said and not out.exists()
    for brother in (
        ["screen", "mithridate-micro", str(toy_world / "images"), "--data", str(poisoned / given)],
        [
            "audit",
            str(toy_world),
            "--split",
            "train",
            "--encoder",
            "mithridate-micro",
            "--clean",
            str(poisoned / given),
        ],
    ):
        assert main([*brother, "--out", str(out)]) == 1
        assert "clean pairs are needed" in capsys.readouterr().err and not out.exists()


def test_a_release_in_the_layout_of_the_hub_is_inspected_offline(micro, toy_world, tmp_path, capsys, monkeypatch):
    """Configuration and safetensors by open_clip's names, and nothing else: as the published backdoored models lie."""
    monkeypatch.setattr("mithridate.inspection.inspect.FLOOR", 0.0)
    monkeypatch.setattr("mithridate.inspection.inspect.PROBES", {"known-triggers": partial(KnownTriggers, images=20)})
    model = tmp_path / "model"
    model.mkdir()
    save_encoder(micro, model)
    for path in model.iterdir():
        if path.name not in ("open_clip_config.json", "open_clip_model.safetensors"):
            path.unlink()
    where = ["--data", str(toy_world), "--split", "train", "--json", "--out", str(tmp_path / "out")]
    assert main(["inspect", f"local-dir:{model}", *where]) == 0
    said = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert [finding["kind"] for finding in said["findings"]] == ["known trigger"]
    assert any("Known overlays" in line for line in said["not_assessable"])


def test_the_strongest_null_model_is_part_of_the_null(micro, train_pairs, monkeypatch):
    monkeypatch.setattr("mithridate.inspection.inspect.FLOOR", 0.0)
    monkeypatch.setattr("mithridate.inspection.inspect.null_model", lambda start, pairs, number, **_: start)
    probes = {"relabelling": Relabelling()}
    found = inspect(micro, train_pairs, start=micro, nulls=2, probes=probes, cache=None)
    (finding,) = found.findings
    assert found.nulls == {"relabelling": (finding.strength,) * 2}  # the null models are the suspect itself
    assert finding.null == max(0.0, finding.strength) and not finding.flagged
    assert found.probes == ("relabelling",) and found.start == found.model
