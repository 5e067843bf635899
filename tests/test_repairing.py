"""Repairs of a model: what each does to the weights by hand, how a strength is chosen, what is refused."""

from dataclasses import dataclass, is_dataclass, replace

import pytest
import torch

from mithridate.cli import main
from mithridate.encoder.encoder import load_encoder, save_encoder, weights_fingerprint
from mithridate.errors import EncoderError, InspectionError
from mithridate.inspection.findings_file import write_findings
from mithridate.inspection.inspect import Utility
from mithridate.inspection.material import own_data
from mithridate.inspection.view import image_features
from mithridate.repairing.case import Case, Repair
from mithridate.repairing.registry import REPAIRS
from mithridate.repairing.repair import Repaired, Trial, _loss, repair
from mithridate.repairing.unlearn import Unlearn, fit, with_phrase
from mithridate.repairing.weights import Interpolate, TaskVector
from mithridate.report.verdict import repair_page, repair_sentence, repair_summary
from test_inspect import a_patch, an_inspection


@pytest.fixture(scope="module")
def micro():
    return load_encoder("mithridate-micro", seed=0)


@pytest.fixture(scope="module")
def case(micro, train_pairs):
    data = own_data(train_pairs, micro, cache=None)
    patch = replace(an_inspection().findings[0], target=data.classes[0], trigger=a_patch(32))
    token = replace(patch, probe="token-scan", kind="token", trigger=None, token="zx")
    pair = replace(token, probe="relabelling", kind="relabelling", token=None, pair=data.classes[:2])
    return Case(micro, (patch, token, pair), data, train_pairs, start=load_encoder("mithridate-micro", seed=1))


@pytest.mark.parametrize("name", REPAIRS)
def test_every_repair_is_a_frozen_dataclass_of_its_own_name(name):
    made = REPAIRS[name]()
    assert is_dataclass(made) and isinstance(made, Repair) and made.name == name


def test_interpolation_by_hand(case):
    (half,) = Interpolate(shares=(0.5,)).candidates(case)
    name = (
        "visual.head.proj.weight" if "visual.head.proj.weight" in case.encoder.model.state_dict() else "text_projection"
    )
    mine, start = case.encoder.model.state_dict()[name], case.start.model.state_dict()[name]
    assert torch.allclose(half.encoder.model.state_dict()[name], (mine + start) / 2, atol=1e-6)


def test_a_task_vector_of_scale_0_changes_nothing_and_others_go_the_other_way(case):
    before = weights_fingerprint(case.encoder.model)
    none, one = TaskVector(scales=(0.0, 1.0), steps=2, batch_size=8).candidates(case)
    assert weights_fingerprint(none.encoder.model) == before == weights_fingerprint(case.encoder.model)
    assert weights_fingerprint(one.encoder.model) != before


def test_unlearning_moves_both_towers_and_never_the_statistics(case):
    before = {name: x.clone() for name, x in case.encoder.model.state_dict().items()}
    done = list(Unlearn(rounds=1, steps=2, text_steps=2, batch_size=8, search_steps=2).candidates(case))
    assert [each.strength for each in done] == ["1 of 1 rounds"]
    after = done[0].encoder.model.state_dict()
    moved = {name for name, x in after.items() if not torch.equal(x, before[name])}
    assert any(name.startswith("visual") for name in moved) and any(name.startswith("transformer") for name in moved)
    assert not any("running" in name or "logit_scale" in name for name in moved)
    assert all(torch.equal(x, before[name]) for name, x in case.encoder.model.state_dict().items())


def test_fitting_trains_one_tower_towards_its_loss_and_spares_the_other(case):
    student, images = case.encoder.copy(), case.data.images[:16]
    wanted = torch.nn.functional.one_hot(torch.arange(16), 128).float()
    losses = []

    def loss():
        value = (1 - (image_features(student, images) * wanted).sum(dim=1)).mean()
        losses.append(value.item())
        return value

    fit(student, "image", loss, steps=15, lr=1e-2)
    assert losses[-1] < losses[0] - 0.2
    assert torch.equal(student.model.text_projection, case.encoder.model.text_projection)


def test_phrases_stand_anywhere_and_often_at_the_end():
    drawn = torch.Generator().manual_seed(0)
    made = [with_phrase("a b c", "zx", drawn) for _ in range(40)]
    assert {text.replace(" zx", "").replace("zx ", "") for text in made} == {"a b c"}
    assert 20 < sum(text.endswith("zx") for text in made) < 40


def test_a_loss_is_the_largest_fall_and_a_gain_is_none():
    before = Utility(0.8, 0.01, 0.6, 0.1)
    assert _loss(before, Utility(0.79, 0.01, 0.55, 0.1)) == pytest.approx(0.05)
    assert _loss(before, Utility(0.9, 0.01, 0.7, 0.1)) == 0
    assert _loss(Utility(0.8, 0.01, None, None), Utility(0.7, 0.01, None, None)) == pytest.approx(0.1)


def test_what_does_not_fit_is_refused(micro, train_pairs):
    mine = an_inspection(weights_fingerprint(micro.model))
    with pytest.raises(InspectionError, match="the findings are of another model"):
        repair(micro, an_inspection("other"), train_pairs)
    with pytest.raises(InspectionError, match="no repair is called 'wish'; expected one of unlearn, interpolate"):
        repair(micro, mine, train_pairs, methods=["wish"])
    with pytest.raises(InspectionError, match="nothing was flagged in suspect"):
        repair(micro, replace(mine, findings=()), train_pairs)
    with pytest.raises(InspectionError, match="give --start"):
        repair(micro, mine, train_pairs, methods=["interpolate"])
    with pytest.raises(EncoderError, match="of another architecture"):
        repair(micro, mine, train_pairs, start=load_encoder("mithridate-micro-vit"))
    with pytest.raises(InspectionError, match="max_loss is a share"):
        repair(micro, mine, train_pairs, max_loss=2.0)
    with pytest.raises(InspectionError, match="have no class '<b>bus</b>'"):
        repair(micro, mine, train_pairs, cache=None)


def test_the_strongest_within_the_loss_is_taken_and_none_where_all_lose_more(case, micro, train_pairs, monkeypatch):
    target = case.data.classes[0]
    found = replace(an_inspection().findings[0], target=target, trigger=a_patch(32))
    mine = replace(an_inspection(weights_fingerprint(micro.model)), findings=(found,))
    options = {"start": case.start, "methods": ["interpolate"], "verify": False, "cache": None}
    all_allowed = repair(micro, mine, train_pairs, max_loss=1.0, **options)
    assert [trial.chosen for trial in all_allowed.trials] == [False, False, True]
    assert all_allowed.left is None and all_allowed.success_before is not None
    monkeypatch.setattr("mithridate.repairing.repair._loss", lambda before, after: 0.5)
    nothing = repair(micro, mine, train_pairs, max_loss=0.4, **options)
    assert nothing.methods == () and weights_fingerprint(nothing.encoder.model) == mine.model


@dataclass(frozen=True, kw_only=True)
class QuickUnlearn(Unlearn):
    rounds: int = 1
    steps: int = 1
    search_steps: int = 1


def test_what_the_second_inspection_flags_is_unlearned_too_as_often_as_allowed(case, micro, train_pairs, monkeypatch):
    target = case.data.classes[0]
    found = replace(an_inspection().findings[0], target=target, trigger=a_patch(32))
    first = replace(an_inspection(weights_fingerprint(micro.model)), findings=(found,))
    again = replace(first, findings=(replace(found, target=case.data.classes[1]),))
    calm = replace(first, findings=())
    monkeypatch.setitem(REPAIRS, "unlearn", QuickUnlearn)
    options = {"methods": ["unlearn"], "max_loss": 1.0, "cache": None}

    def carried_out(says, **more):
        said = iter(says)
        monkeypatch.setattr("mithridate.repairing.repair.inspect", lambda *_, **__: next(said))
        done = repair(micro, first, train_pairs, **options, **more)
        assert next(said, None) is None  # every inspection was asked for
        return [trial.strength for trial in done.trials], done.left

    once, twice = "1 of 1 rounds", "again, 1 of 1 rounds"
    assert carried_out([calm]) == ([once], calm)
    assert carried_out([again, calm]) == ([once, twice], calm)
    assert carried_out([again, again], passes=2) == ([once, twice], again)
    assert carried_out([again], passes=1) == ([once], again)
    # where no strength stays within the loss nothing is tried again
    monkeypatch.setattr("mithridate.repairing.repair._loss", lambda before, after: 2.0)
    assert carried_out([again]) == ([once, f"half of {once}", f"a quarter of {once}"], again)
    with pytest.raises(InspectionError, match="passes must be at least 1, got 0"):
        repair(micro, first, train_pairs, passes=0)


def test_where_every_strength_costs_too_much_a_part_of_the_weakest_is_taken(case, micro, train_pairs, monkeypatch):
    found = replace(an_inspection().findings[0], target=case.data.classes[0], trigger=a_patch(32))
    mine = replace(an_inspection(weights_fingerprint(micro.model)), findings=(found,))
    losses = iter([0.5, 0.4, 0.3, 0.2, 0.1])  # of three shares of START, then of half and a quarter of the first
    monkeypatch.setattr("mithridate.repairing.repair._loss", lambda before, after: next(losses))
    options = {"start": case.start, "methods": ["interpolate"], "verify": False, "cache": None}
    done = repair(micro, mine, train_pairs, max_loss=0.2, **options)
    assert done.methods == ("interpolate (half of 0.3 of the start)",) and next(losses) == 0.1
    suspect, start, taken = (e.model.state_dict()["text_projection"] for e in (micro, case.start, done.encoder))
    assert torch.allclose(taken, suspect + 0.15 * (start - suspect), atol=1e-6)


def a_repair(encoder, **changes):
    u = Utility(0.8, 0.01, 0.6, 0.1)
    trial = Trial("unlearn", "3 of 3 rounds", 0.05, u, 0.01, True)
    made = Repaired(
        encoder, (trial,), u, replace(u, recall=0.79), 0.97, 0.06, 0.04, replace(an_inspection(), findings=()), 12.0
    )
    return replace(made, **changes)


def test_a_repair_says_what_it_took_what_it_cost_and_what_is_left(micro):
    assert repair_sentence(a_repair(micro)) == (
        "Repaired: what took 97 % of images takes 6 % now (4 % by the start). Inspected again, nothing is found: "
        "what was recovered is gone; a planted trigger unlike it may not be."
    )
    assert repair_sentence(a_repair(micro, left=an_inspection())).endswith("it is still suspicious.")
    assert repair_sentence(a_repair(micro, trials=())).startswith("Not repaired")
    assert repair_summary(a_repair(micro))["recall"] == {"before": 0.8, "after": 0.79}
    page = repair_page(a_repair(micro), an_inspection())
    assert "<script" not in page and "3 of 3 rounds" in page and "IR@10 0.800 before, 0.790 after" in page


def test_the_command_refuses_findings_of_another_model(micro, toy_world, tmp_path, capsys):
    model = tmp_path / "model"
    model.mkdir()
    save_encoder(micro, model)
    write_findings(an_inspection("other"), tmp_path)
    argv = ["repair", str(model), "--findings", str(tmp_path), "--data", str(toy_world), "--out", str(tmp_path / "out")]
    assert main(argv) == 1
    assert "the findings are of another model" in capsys.readouterr().err and not (tmp_path / "out").exists()
