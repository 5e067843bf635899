"""The contract of every objective, and a slow reference of each."""

import dataclasses
import json
import subprocess
import sys
from itertools import pairwise

import numpy as np
import pytest
import torch
from open_clip.loss import SigLipLoss
from torch.nn.functional import normalize

import mithridate as mt
from mithridate.training.clip_loss import clip_loss
from mithridate.training.config import TrainConfig
from mithridate.training.loss import PLAIN, Encoded, EncodedBatch, EpochStart, plan_of
from mithridate.training.objective import Start
from mithridate.training.par_loss import distance
from mithridate.training.pool import enqueue, nearest, pool_size
from mithridate.training.registry import OBJECTIVES
from mithridate.training.split import upper_posterior

PAIRS, WIDTH, BATCH = 60, 5, 6

# options under which an objective is plain CLIP; the sigmoid loss never is
NEUTRAL = {
    "clip": {},
    "augment-only": {"images": "plain", "captions": "plain"},
    "roclip": {"every": 0, "views": "plain"},
    "cleanclip": {"inmodal_weight": 0.0},
    "safeclip": {"unimodal_epochs": 0, "slow_epochs": 0, "threshold": 0.0, "views": "plain"},
    "par": {"weight": 0.0},
}
# options small enough for sixty pairs, all phases within four epochs
SMALL = {"roclip": {"pool_size": 12}, "safeclip": {"unimodal_epochs": 1, "pool_size": 12}}
EPOCHS = 4
START = Start(PAIRS, WIDTH, EPOCHS)


def unit(*shape: int, seed: int) -> torch.Tensor:
    return normalize(torch.randn(*shape, generator=torch.Generator().manual_seed(seed)), dim=-1)


def encoded(epoch: int = 0, seed: int = 0, n: int = BATCH) -> EncodedBatch:
    image, text, image2, text2 = (unit(n, WIDTH, seed=4 * seed + i).requires_grad_() for i in range(4))
    scale = torch.tensor(10.0, requires_grad=True)
    row = torch.randperm(PAIRS, generator=torch.Generator().manual_seed(seed))[:n]
    bias = torch.tensor(-5.0, requires_grad=True)
    return EncodedBatch(image, text, scale, row, epoch, 0, (Encoded(image2, text2),), bias)


def before(epoch: int) -> EpochStart:
    images, texts = unit(PAIRS, WIDTH, seed=90 + epoch), unit(PAIRS, WIDTH, seed=80 + epoch)
    return EpochStart(epoch, np.arange(PAIRS), lambda rows: images[rows], lambda rows: texts[rows])


def prepared(name: str, epoch: int, **options):
    """The objective's module as the loop has it in `epoch`."""
    loss = OBJECTIVES[name](**{**SMALL.get(name, {}), **options}).build(START)
    for e in range(epoch + 1):
        if hasattr(loss, "prepare"):
            loss.prepare(before(e))
    return loss


# --- the contract -------------------------------------------------------------------------------------


@pytest.mark.parametrize("epoch", range(EPOCHS))
@pytest.mark.parametrize("name", OBJECTIVES)
def test_an_objective_is_one_finite_number_with_a_gradient(name, epoch):
    loss, batch = prepared(name, epoch), encoded(epoch)
    value = loss(batch)
    assert value.shape == () and torch.isfinite(value)
    value.backward()
    plan = plan_of(loss, epoch)
    assert plan.views and plan.views == plan_of(OBJECTIVES[name](**SMALL.get(name, {})).build(START), epoch).views
    leaves = {"image": (batch.image, batch.others[0].image), "text": (batch.text, batch.others[0].text)}
    for tower, views in leaves.items():
        moved = any(leaf.grad is not None and leaf.grad.abs().sum() > 0 for leaf in views)
        assert moved != (tower in plan.no_gradient)
    assert batch.scale.grad is not None and batch.scale.grad != 0


@pytest.mark.parametrize("name", NEUTRAL)
def test_the_neutral_setting_of_an_objective_is_plain_clip(name):
    for epoch in range(2):
        loss, batch = prepared(name, epoch, **NEUTRAL[name]), encoded(epoch)
        plan = plan_of(loss, epoch)
        assert plan.views == (PLAIN,) and plan.lr_factor == 1 and not plan.no_gradient and plan.groups is None
        assert torch.equal(loss(batch), clip_loss(batch.image, batch.text, batch.scale))


@pytest.mark.parametrize("name", OBJECTIVES)
def test_an_objective_goes_on_from_its_state(name):
    loss = prepared(name, EPOCHS - 1)
    loss(encoded(EPOCHS - 1, seed=1))
    again = OBJECTIVES[name](**SMALL.get(name, {})).build(START)
    again.load_state_dict(loss.state_dict())
    batch = encoded(EPOCHS - 1, seed=2)
    assert torch.equal(loss(batch), again(batch))


@pytest.mark.parametrize("name", OBJECTIVES)
def test_an_objective_is_its_options(name):
    objective = OBJECTIVES[name]()
    assert dataclasses.is_dataclass(objective) and OBJECTIVES[name]() == objective
    assert (type(objective).__doc__ or "").splitlines()[0].endswith((".", ","))
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(objective, "new", 1)  # noqa: B010 (pyright knows that it cannot be)


QUICK = TrainConfig(epochs=2, batch_size=32, lr=1e-3, min_lr=0.0, precision="fp32")


def weights(encoder: mt.Encoder) -> dict[str, torch.Tensor]:
    return encoder.model.state_dict()


def same(first: mt.Encoder, second: mt.Encoder) -> bool:
    return all(torch.equal(value, weights(second)[name]) for name, value in weights(first).items())


@pytest.fixture(scope="module")
def pairs(train_pairs):
    return train_pairs.take(np.arange(96))


@pytest.fixture(scope="module")
def plain(tiny, pairs):
    return mt.train(tiny, pairs, config=QUICK)


@pytest.mark.parametrize("name", sorted(NEUTRAL.keys() - {"clip"}))
def test_a_neutral_run_ends_in_the_weights_of_plain_clip_and_another_does_not(name, tiny, pairs, plain):
    assert same(mt.train(tiny, pairs, objective=OBJECTIVES[name](**NEUTRAL[name]), config=QUICK), plain)
    options = {"roclip": {"pool_size": 40}, "safeclip": {"unimodal_epochs": 1, "slow_epochs": 0}}.get(name, {})
    robust = mt.train(tiny, pairs, objective=OBJECTIVES[name](**options), config=QUICK)
    assert not same(robust, plain)
    assert all(torch.isfinite(value.float()).all() for value in weights(robust).values())


class Stop(Exception):
    pass


# the state is at the end of the first of two epochs (three steps each), or within the second
@pytest.mark.slow
@pytest.mark.parametrize(
    ("objective", "at"),
    [
        (mt.RoClip(pool_size=40), 4),
        (mt.RoClip(pool_size=40, every=1, faithful=True), 3),
        (mt.SafeClip(pool_size=40, unimodal_epochs=1, slow_epochs=0, threshold=0.5), 3),
        (mt.SafeClip(pool_size=40, unimodal_epochs=1, slow_epochs=0, threshold=0.5), 4),
        (mt.Par(), 4),
    ],
    ids=["roclip", "faithful", "safeclip", "safeclip-within", "par"],
)
def test_a_killed_run_goes_on_with_its_pool_and_split(objective, at, tiny, pairs, tmp_path):
    config = dataclasses.replace(QUICK, checkpoint_every=at)

    def stop(step, total, batch_size):
        if step == at + 1:
            raise Stop

    with pytest.raises(Stop):
        mt.train(tiny, pairs, objective=objective, config=config, out=tmp_path / "run", on_step=stop)
    state = torch.load(tmp_path / "run" / "state.pt", weights_only=True)
    assert state["step"] == at
    expected = objective.build(Start(len(pairs), tiny.config["model_cfg"]["embed_dim"], config.epochs)).state_dict()
    assert {name: value.shape for name, value in state["objective"].items()} == {
        name: value.shape for name, value in expected.items()
    }
    resumed = mt.train(tiny, pairs, objective=objective, config=config, out=tmp_path / "run")
    assert same(resumed, mt.train(tiny, pairs, objective=objective, config=config))


def test_the_spared_backward_pass_of_the_text_tower_changes_nothing(tiny, pairs, monkeypatch):
    objective = mt.RoClip(pool_size=40, views="plain")
    config = dataclasses.replace(QUICK, weight_decay=0.5)
    spared = mt.train(tiny, pairs, objective=objective, config=config)

    from mithridate.training.roclip_loss import RoClipLoss

    plan, forward = RoClipLoss.plan, RoClipLoss.forward
    monkeypatch.setattr(RoClipLoss, "plan", lambda self, e: dataclasses.replace(plan(self, e), no_gradient=()))
    # what the published code adds: the whole backward pass, for a gradient of nought
    monkeypatch.setattr(RoClipLoss, "forward", lambda self, batch: forward(self, batch) + 0 * batch.text.sum())
    assert same(spared, mt.train(tiny, pairs, objective=objective, config=config))


def test_features_of_frozen_towers_are_computed_once_unless_a_view_is_drawn_anew(tiny, pairs, monkeypatch):
    ran = []

    def noted(towers, tower, *_, **__):
        ran.append(tower)

    monkeypatch.setattr("mithridate.training.training_set.frozen_features", noted)
    config = dataclasses.replace(QUICK, epochs=1, freeze=("image-trunk", "text-trunk"))
    for objective, expected in (
        (mt.Par(), ["image", "text"]),
        (mt.AugmentOnly(captions="plain"), ["text"]),
        (mt.AugmentOnly(images="plain"), ["image"]),
        (mt.CleanClip(), []),
    ):
        ran.clear()
        mt.train(tiny, pairs, objective=objective, config=config)
        assert ran == expected


TWO_PROCESSES = """
import sys, torch
import mithridate as mt
from mithridate.training.config import TrainConfig
torch.set_num_threads(1)
config = TrainConfig(epochs=2, batch_size=32, lr=1e-3, min_lr=0.0, precision="fp32", freeze=("image",))
objectives = {
    "roclip": mt.RoClip(pool_size=40),
    "safeclip": mt.SafeClip(pool_size=40, unimodal_epochs=1, slow_epochs=0, threshold=0.5),
    "par": mt.Par(),
}
pairs = mt.read_pairs(sys.argv[1], split="train")
for name, objective in objectives.items():
    out = f"{sys.argv[2]}/{name}"
    mt.train(mt.load_encoder("mithridate-tiny"), pairs, objective=objective, config=config, out=out)
"""


@pytest.mark.slow
def test_two_processes_share_a_pool_a_split_and_every_draw(toy_world, tmp_path):
    script = tmp_path / "train.py"
    script.write_text(TWO_PROCESSES)
    one, two = tmp_path / "one", tmp_path / "two"
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    subprocess.run([sys.executable, str(script), str(toy_world), str(one)], check=True)
    subprocess.run([*launch, str(script), str(toy_world), str(two)], check=True)
    for name in ("roclip", "safeclip", "par"):
        losses = [
            [json.loads(line)["loss"] for line in (out / name / "metrics.jsonl").read_text().splitlines()]
            for out in (one, two)
        ]
        assert losses[1] == pytest.approx(losses[0], rel=1e-4)


# --- what each computes -------------------------------------------------------------------------------


def cross_entropy(logits: np.ndarray) -> float:
    """Mean over rows of -log softmax of the diagonal, written out."""
    total = 0.0
    for i, row in enumerate(logits):
        total -= np.log(np.exp(row[i]) / sum(np.exp(value) for value in row))
    return total / len(logits)


def arrays(batch: EncodedBatch) -> tuple[np.ndarray, ...]:
    tensors = (batch.image, batch.text, batch.others[0].image, batch.others[0].text)
    return tuple(x.detach().double().numpy() for x in tensors)


def slow_clip(image: np.ndarray, text: np.ndarray, scale: float = 10.0) -> float:
    logits = scale * image @ text.T
    return (cross_entropy(logits) + cross_entropy(logits.T)) / 2


def test_cleanclip_is_the_weighted_sum_of_clip_and_both_modalities():
    batch = encoded()
    image, text, image2, text2 = arrays(batch)
    within = (cross_entropy(10 * image @ image2.T) + cross_entropy(10 * text @ text2.T)) / 2
    loss = prepared("cleanclip", 0, clip_weight=0.5, inmodal_weight=3.0)(batch)
    assert loss.item() == pytest.approx(0.5 * slow_clip(image, text) + 3 * within, rel=1e-5)


def test_par_subtracts_half_of_both_distances():
    batch = encoded()
    image, text, image0, text0 = arrays(batch)
    away = sum(np.mean([np.sum((a - b) ** 2) for a, b in zip(x, y)]) for x, y in ((image, image0), (text, text0)))
    loss = prepared("par", 0, tau=4.0)(batch)
    assert loss.item() == pytest.approx(slow_clip(image, text) - away / 2, rel=1e-5)


def test_par_pushes_no_further_than_tau():
    x = torch.tensor([[1.0, 0.0]], requires_grad=True)
    opposite = torch.tensor([[-1.0, 0.0]])
    assert distance(x, opposite, tau=2.15) == 0  # it is 4
    distance(x, opposite, tau=2.15).backward()
    assert x.grad is not None and (x.grad == 0).all()
    assert distance(x, torch.tensor([[0.0, 1.0]]), tau=2.15) == 2


def test_roclip_matches_each_image_to_its_nearest_caption_of_the_pool_and_then_takes_the_batch_in():
    loss, batch = prepared("roclip", 1), encoded(1)
    pool = loss.pool.double().numpy().copy()
    image, text, *_ = arrays(batch)
    matched = np.stack([max(pool, key=lambda row, x=x: float(row @ x)) for x in image])
    assert loss(batch).item() == pytest.approx(slow_clip(image, matched), rel=1e-5)
    assert np.allclose(loss.pool[:BATCH], text) and np.allclose(loss.pool[BATCH:], pool[BATCH:])
    assert int(loss.place) == BATCH


def test_roclips_pool_is_of_unit_length_before_its_first_use_and_of_captions_of_that_epoch():
    loss = prepared("roclip", 1)
    table = before(1).embed_texts(np.arange(PAIRS))
    assert all((row == table).all(dim=1).any() for row in loss.pool)
    assert len(loss.pool.unique(dim=0)) == 12


def test_roclip_matches_in_every_kth_epoch():
    assert [prepared("roclip", 0, every=3).matching(e) for e in range(6)] == [False, False, True] * 2
    assert all(prepared("roclip", 0, every=1).matching(e) for e in range(3))


def test_faithful_roclip_starts_with_noise_and_drops_the_remainder():
    loss = prepared("roclip", 1, faithful=True, pool_size=10)
    assert loss.pool.norm(dim=1).std() > 0.1  # not of unit length
    pool = loss.pool.double().numpy().copy()
    batch = encoded(1)
    image, text, *_ = arrays(batch)
    cosine = image @ (pool / np.linalg.norm(pool, axis=1, keepdims=True)).T
    assert loss(batch).item() == pytest.approx(slow_clip(image, pool[cosine.argmax(axis=1)]), rel=1e-5)
    assert int(loss.place) == 6
    second = encoded(1, seed=1)
    loss(second)
    # of six only four fit, and the next place is the first
    assert torch.equal(loss.pool[6:], second.text[:4]) and int(loss.place) == 0
    assert np.allclose(loss.pool[:6], text)
    assert plan_of(loss, 1).views[0].text == "fixed"


def test_safeclips_unimodal_loss_takes_neighbours_among_second_views():
    loss, batch = prepared("safeclip", 0), encoded(0)
    image, text, image2, text2 = arrays(batch)
    total = 0.0
    for first, second, pool in ((image, image2, loss.image_pool), (text, text2, loss.text_pool)):
        rows = pool.double().numpy().copy()
        neighbours = np.stack([max(rows, key=lambda row, x=x: float(row @ x)) for x in first])
        total += cross_entropy(10 * neighbours @ second.T) / 2
    assert loss(batch).item() == pytest.approx(total, rel=1e-5)
    assert np.allclose(loss.image_pool[:BATCH], image) and np.allclose(loss.text_pool[:BATCH], text)


def test_safeclips_batch_of_both_kinds_counts_each_pair_once():
    loss, batch = prepared("safeclip", 2), encoded(2)
    loss.safe.zero_()
    loss.safe[batch.row[[0, 2, 3]]] = True
    safe = loss.safe[batch.row].numpy()
    image, text, image2, text2 = arrays(batch)
    rest = 0.0
    for first, second, pool in ((image, image2, loss.image_pool), (text, text2, loss.text_pool)):
        rows = pool.double().numpy().copy()
        neighbours = np.stack([max(rows, key=lambda row, x=x: float(row @ x)) for x in first[~safe]])
        rest += cross_entropy(10 * neighbours @ second[~safe].T) / 2
    expected = (slow_clip(image[safe], text[safe]) + rest) / 2
    assert loss(batch).item() == pytest.approx(expected, rel=1e-5)


def test_safeclips_safe_set_is_the_best_and_grows():
    loss = OBJECTIVES["safeclip"](unimodal_epochs=0, slow_epochs=0, threshold=0.5, growth=0.1, pool_size=5).build(START)
    image = torch.zeros(PAIRS, WIDTH)
    image[:, 0] = 1
    agree = torch.tensor(np.where(np.arange(PAIRS) < 20, 0.9, 0.1) + 0.001 * np.arange(PAIRS) / PAIRS).float()
    text = torch.zeros(PAIRS, WIDTH)
    text[:, 0], text[:, 1] = agree, (1 - agree**2).sqrt()
    counts = []
    for epoch in range(3):
        loss.prepare(EpochStart(epoch, np.arange(PAIRS), lambda rows: image[rows], lambda rows: text[rows]))
        counts.append(int(loss.safe.sum()))
        best = set(np.argsort(-agree.numpy())[: counts[-1]].tolist())
        assert set(torch.where(loss.safe)[0].tolist()) == best
    assert counts == [20, 26, 32]
    assert (plan_of(loss, 2).groups == loss.safe.numpy()).all()


def test_safeclip_scores_only_the_best_again():
    loss = OBJECTIVES["safeclip"](unimodal_epochs=0, slow_epochs=0, rescored=0.25, pool_size=5).build(START)
    loss.prepare(before(0))
    old = loss.similarity.clone()
    loss.prepare(before(1))
    changed = torch.where(loss.similarity != old)[0]
    assert set(changed.tolist()) == set(old.argsort(descending=True)[:15].tolist())


def test_safeclips_phases_and_learning_rate():
    loss = prepared("safeclip", 0, slow_factor=0.125)
    assert [loss.phase(e) for e in range(4)] == ["unimodal", "slow", "mixed", "mixed"]
    assert [plan_of(loss, e).lr_factor for e in range(3)] == [1, 0.125, 1]
    assert [len(plan_of(loss, e).views) for e in range(3)] == [2, 1, 2]


def test_the_split_rises_with_similarity_where_the_mixture_itself_turns_back():
    rng = np.random.default_rng(0)
    wide, narrow = rng.normal(0.4, 0.15, 600), rng.normal(0.1, 0.03, 600)
    similarity = np.concatenate([wide, narrow, [-0.9]]).astype(np.float32)
    posterior = upper_posterior(similarity, rng=rng)
    order = np.argsort(similarity)
    assert all(a <= b + 1e-12 for a, b in pairwise(posterior[order]))
    assert posterior[-1] < 0.5  # the bare mixture gives it to the wide component
    assert upper_posterior(np.full(5, 0.3, np.float32), rng=rng).tolist() == [0.5] * 5


# --- siglip ---


def test_the_sigmoid_loss_is_open_clips_and_a_slow_loop():
    batch = encoded()
    theirs = SigLipLoss()(batch.image, batch.text, batch.scale, batch.bias)
    assert torch.allclose(OBJECTIVES["siglip"]().build(START)(batch), theirs)
    slow = 0.0
    for i in range(BATCH):
        for j in range(BATCH):
            z = 1 if i == j else -1
            slow += np.log1p(np.exp(-z * (10 * (batch.image[i] @ batch.text[j]).item() - 5))) / BATCH
    assert theirs.item() == pytest.approx(slow, rel=1e-5)


# --- pool and matching --------------------------------------------------------------------------------


def test_a_pool_takes_in_the_newest_and_goes_round():
    pool = torch.arange(5.0)[:, None].clone()
    place = enqueue(pool, 3, torch.tensor([[10.0], [11.0], [12.0]]))
    assert pool[:, 0].tolist() == [12, 1, 2, 10, 11] and place == 1
    place = enqueue(pool, place, torch.arange(20.0, 27.0)[:, None])
    assert sorted(pool[:, 0].tolist()) == [22, 23, 24, 25, 26] and pool[(place - 1) % 5, 0] == 26


def test_a_pool_holds_two_percent_and_no_more_than_there_is(caplog):
    sizes = [pool_size(None, Start(n, WIDTH, 4, batch=b)) for n, b in ((10, 1), (30_000, 1), (5_000_000, 128))]
    assert sizes == [5, 600, 21_845]
    # five batches at least, where there are as many pairs
    assert [pool_size(None, Start(n, WIDTH, 4, batch=128)) for n in (6000, 300)] == [640, 300]
    assert pool_size(640, Start(6000, WIDTH, 4, batch=128)) == 640
    assert not caplog.records
    pool_size(120, Start(6000, WIDTH, 4, batch=128))
    assert "--pool-size 640" in caplog.text
    with pytest.raises(mt.MithridateError, match=r"pool_size 61 for 60 pairs; choose a smaller --pool-size"):
        OBJECTIVES["roclip"](pool_size=61).build(START)


def test_captions_that_name_sides_are_warned_of(pairs, caplog):
    import pyarrow as pa

    from mithridate.training.training_set import _warn_of_sides

    def saying(*texts):
        some = pairs.table.slice(0, len(texts))
        return mt.Pairs(some.set_column(some.column_names.index("text"), "text", pa.array(texts)))

    _warn_of_sides(saying("a dog on the Left", "a bright sky", "leftovers"))
    assert "1 of 3 captions say left or right" in caplog.text
    caplog.clear()
    _warn_of_sides(saying("a bright sky", "leftovers"))
    assert not caplog.records


def test_the_nearest_row_is_found_over_chunks_and_equal_rows():
    query, pool = unit(64, 32, seed=0), unit(5000, 32, seed=1)
    pool[4000] = pool[17]
    expected = (query @ pool.T).argmax(dim=1)
    assert torch.equal(nearest(query, pool), expected)
    assert nearest(pool[[4000]], pool).item() == 17
    assert nearest(query, pool[:3]).max() < 3


@pytest.mark.parametrize(
    ("name", "options", "match"),
    [
        ("roclip", {"every": -1}, "every must be 0"),
        ("roclip", {"every": 5}, "every 5th epoch matches, and there are 4"),
        ("safeclip", {"unimodal_epochs": 3}, "3 unimodal and 1 slow epochs leave no epoch of 4 for the safe pairs"),
        ("cleanclip", {"inmodal_weight": -1.0}, "inmodal_weight must not be negative, got -1"),
        ("safeclip", {"threshold": 1.5}, r"threshold must lie in \[0, 1\], got 1.5"),
        ("safeclip", {"slow_factor": float("nan")}, "slow_factor must not be negative, got nan"),
        ("par", {"tau": -2.0}, "tau must not be negative"),
    ],
)
def test_options_that_cannot_be_are_refused(name, options, match):
    with pytest.raises(mt.MithridateError, match=match):
        OBJECTIVES[name](**options).build(START)


@pytest.mark.parametrize("name", ["augment-only", "roclip", "cleanclip", "safeclip"])
@pytest.mark.parametrize("crop", [0.0, 1.5, -1.0])
def test_a_crop_that_leaves_nothing_is_refused(name, crop):
    with pytest.raises(mt.MithridateError, match=r"crop must lie in \(0, 1\]"):
        OBJECTIVES[name](crop=crop).build(Start(PAIRS, WIDTH, 10))
    views = OBJECTIVES[name](crop=0.9, flip=False, jitter=False).build(Start(PAIRS, WIDTH, 10)).plan(0).views
    augmented = [view for view in views if view.image == "augmented"]
    assert augmented and all((view.crop, view.flip, view.jitter) == (0.9, False, False) for view in augmented)
