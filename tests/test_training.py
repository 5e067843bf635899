import contextlib
import json
import logging
import os
import signal
import subprocess
import sys
import time
from itertools import pairwise

import numpy as np
import open_clip
import pytest
import torch
from torch.nn.functional import normalize

import mithridate as mt
from mithridate.randomness import stream
from mithridate.training import distributed
from mithridate.training.augment_text import BUILT_IN, augment_texts
from mithridate.training.batches import TrainingSet, batches, crop, crop_windows, epoch_order, grouped_order
from mithridate.training.clip_loss import clip_loss
from mithridate.training.config import TrainConfig
from mithridate.training.loss import EncodedBatch
from mithridate.training.towers import cosine_lr

QUICK = TrainConfig(epochs=2, batch_size=32, lr=1e-3, min_lr=0.0, precision="fp32")


def weights(encoder: mt.Encoder) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in encoder.model.state_dict().items()}


def encoded(n: int = 6, seed: int = 0, **extra) -> EncodedBatch:
    generator = torch.Generator().manual_seed(seed)
    image, text = (normalize(torch.randn(n, 5, generator=generator), dim=-1).requires_grad_() for _ in range(2))
    return EncodedBatch(image, text, torch.tensor(10.0, requires_grad=True), torch.arange(n), 0, 0, **extra)


# --- objectives ---------------------------------------------------------------------------------------


def test_clip_loss_is_the_mean_of_both_cross_entropies():
    batch = encoded()
    logits = (10 * batch.image @ batch.text.T).detach().double().numpy()
    slow = 0.0
    for i in range(6):
        among_texts = sum(np.exp(logits[i, j]) for j in range(6))
        among_images = sum(np.exp(logits[j, i]) for j in range(6))
        slow -= (np.log(np.exp(logits[i, i]) / among_texts) + np.log(np.exp(logits[i, i]) / among_images)) / 12
    assert clip_loss(batch.image, batch.text, batch.scale).item() == pytest.approx(slow, rel=1e-6)


def test_clip_loss_of_two_orthogonal_pairs_is_known_by_hand():
    eye = torch.eye(2)
    assert clip_loss(eye, eye, torch.tensor(3.0)).item() == pytest.approx(np.log(1 + np.exp(-3)), rel=1e-6)


def test_clip_loss_is_open_clips():
    batch = encoded()
    theirs = open_clip.ClipLoss()(batch.image, batch.text, batch.scale)
    assert torch.allclose(clip_loss(batch.image, batch.text, batch.scale), theirs)


# --- schedule, order, batches -------------------------------------------------------------------------


def test_the_learning_rate_starts_at_its_peak_and_ends_near_the_floor():
    rates = [cosine_lr(step, 10, peak=1.0, floor=0.1, warmup=0) for step in range(11)]
    assert rates[0] == 1.0 and rates[5] == pytest.approx(0.55) and rates[10] == pytest.approx(0.1)
    assert all(a > b for a, b in pairwise(rates))


def test_warm_up_is_linear_and_begins_with_the_first_step():
    assert [cosine_lr(step, 100, peak=1.0, floor=0.0, warmup=4) for step in range(5)] == [0.25, 0.5, 0.75, 1.0, 1.0]


def test_an_epochs_order_is_a_permutation_of_seed_and_epoch():
    first = epoch_order(50, seed=1, epoch=2)
    assert sorted(first) == list(range(50))
    assert (first == epoch_order(50, seed=1, epoch=2)).all()
    assert (first != epoch_order(50, seed=1, epoch=3)).any()
    assert (first != epoch_order(50, seed=2, epoch=2)).any()


def test_an_epochs_order_shares_its_draws_with_no_augmentation(monkeypatch):
    """Lists of numbers are padded with noughts as seeds: [5, 3] for an order and [5, 3, 0] for row 0 drew alike."""
    keys = []

    def recorded(seed, purpose, *index):
        keys.append((seed, purpose, *index))
        return stream(seed, purpose, *index)

    monkeypatch.setattr("mithridate.training.batches.stream", recorded)
    monkeypatch.setattr("mithridate.training.augment_text.stream", recorded)
    order = epoch_order(50, seed=5, epoch=3)
    grouped_order(order, np.zeros(50, bool), batch_size=5, seed=5, epoch=3)
    augment_texts(["a b c d"] * 2, [0, 1], seed=5, epoch=3, view=0, synonyms=BUILT_IN)
    assert len(keys) == 4
    assert len({stream(*key).integers(2**63) for key in keys}) == len(keys)


def features(n: int = 20) -> TrainingSet:
    index = np.arange(n)
    column = index[:, None].astype(np.float32)
    return TrainingSet(index, index, index, np.zeros((n, 1), np.uint16), None, column, column)


def test_processes_share_a_batch_without_gap_or_overlap():
    whole = [rows.tolist() for _, (_, _, rows) in batches(features(), batch_size=8, seed=3, start=0, stop=6)]
    parts = [
        [
            rows.tolist()
            for _, (_, _, rows) in batches(features(), batch_size=8, seed=3, start=0, stop=6, part=part, parts=2)
        ]
        for part in range(2)
    ]
    assert whole == [a + b for a, b in zip(*parts)]


def test_batches_from_the_middle_are_those_of_the_whole():
    whole = [(s, rows.tolist()) for s, (_, _, rows) in batches(features(), batch_size=4, seed=0, start=0, stop=10)]
    late = [(s, rows.tolist()) for s, (_, _, rows) in batches(features(), batch_size=4, seed=0, start=7, stop=10)]
    assert late == whole[7:]


def test_an_error_while_gathering_reaches_the_trainer():
    broken = TrainingSet(
        np.arange(8), np.arange(8) + 99, np.arange(8), np.zeros((8, 1), np.uint16), None, np.zeros((8, 1))
    )
    with pytest.raises(IndexError):
        next(batches(broken, batch_size=4, seed=0, start=0, stop=2))


def test_crops_are_drawn_by_their_generator_and_lie_inside_the_picture():
    first, again, other = (crop_windows(100, generator=torch.Generator().manual_seed(s)) for s in (0, 0, 1))
    assert torch.equal(first, again) and not torch.equal(first, other)
    size, centre = first[:, [0, 1], [0, 1]], first[:, :, 2]
    assert (size.prod(dim=1) > 0.74).all() and (size <= 1).all()
    assert (size + centre.abs() <= 1 + 1e-6).all()


def test_the_whole_window_is_the_picture_itself_and_half_of_it_is_that_half():
    pixels = torch.zeros(1, 16, 16, 3, dtype=torch.uint8)
    pixels[:, :, 8:] = 200
    whole = torch.tensor([[[1.0, 0, 0], [0, 1, 0]]])
    right = torch.tensor([[[0.25, 0, 0.6], [0, 1, 0]]])
    assert torch.equal(crop(pixels, whole), pixels)
    assert (crop(pixels, right) == 200).all()


# --- what is frozen stays -----------------------------------------------------------------------------


def trained(tiny, train_pairs, **options):
    """Three steps."""
    return mt.train(tiny, few(train_pairs), config=TrainConfig(**{**vars(QUICK), "epochs": 1, **options}))


def few(pairs):
    return pairs.take(np.arange(96))


VISUAL, LOGIT = "visual.", "logit_scale"


@pytest.mark.parametrize(
    ("freeze", "still"),
    [
        (("image",), lambda name: name.startswith(VISUAL)),
        (("text",), lambda name: not name.startswith(VISUAL) and name != LOGIT),
        (("image-trunk",), lambda name: name.startswith("visual.trunk.")),
        (("text-trunk",), lambda name: not name.startswith(VISUAL) and name not in (LOGIT, "text_projection")),
    ],
    ids=lambda value: value[0] if isinstance(value, tuple) else "",
)
def test_a_frozen_part_keeps_every_parameter_and_statistic_and_the_rest_learns(freeze, still, tiny, train_pairs):
    before, after = weights(tiny), weights(trained(tiny, train_pairs, freeze=freeze))
    for name, value in before.items():
        if still(name):
            assert torch.equal(value, after[name]), name
    moved = {name for name, value in before.items() if not torch.equal(value, after[name])}
    learning = {name for name, _ in tiny.model.named_parameters() if not still(name)}
    # the position embeddings of places that no caption reaches have no gradient, but weight decay moves them
    assert moved >= learning


def test_training_leaves_the_encoder_it_was_given_alone(tiny, train_pairs):
    before = weights(tiny)
    trained(tiny, train_pairs)
    assert all(torch.equal(value, before[name]) for name, value in weights(tiny).items())


def test_a_frozen_logit_scale_stays(tiny, train_pairs):
    after = trained(tiny, train_pairs, freeze_logit_scale=True)
    assert torch.equal(weights(after)["logit_scale"], weights(tiny)["logit_scale"])


@pytest.mark.parametrize("frozen", [True, False])
def test_a_scale_beyond_clips_bound_is_not_pulled_back_to_it(frozen, tiny, train_pairs):
    large = tiny.copy()  # as SigLIP SO400M's
    before = large.model.logit_scale.data.fill_(4.7215).item()
    after = weights(trained(large, train_pairs, freeze_logit_scale=frozen, lr=1e-6))["logit_scale"].item()
    assert after == before if frozen else before - 1e-4 < after <= before


def with_bias(encoder):
    out = encoder.copy()
    out.model.logit_bias = torch.nn.Parameter(torch.tensor(-10.0))
    return out


@pytest.mark.parametrize("frozen", [False, True])
def test_the_sigmoid_loss_trains_scale_and_bias_but_where_they_are_frozen(frozen, tiny, train_pairs):
    config = TrainConfig(**{**vars(QUICK), "epochs": 1, "freeze_logit_scale": frozen})
    before = with_bias(tiny)
    after = weights(mt.train(before, few(train_pairs), objective=mt.Siglip(), config=config))
    for name in ("logit_scale", "logit_bias"):
        assert torch.equal(weights(before)[name], after[name]) == frozen


def test_a_softmax_on_a_model_of_a_sigmoid_loss_is_warned_of_and_leaves_the_bias(tiny, train_pairs, caplog):
    with caplog.at_level(logging.WARNING):
        after = trained(with_bias(tiny), train_pairs)
    assert "logit bias" in caplog.text and "siglip" in caplog.text
    assert weights(after)["logit_bias"].item() == -10


def test_the_sigmoid_loss_needs_a_bias(tiny, train_pairs):
    with pytest.raises(mt.MithridateError, match="test-tiny has no logit bias"):
        mt.train(tiny, few(train_pairs), objective=mt.Siglip(), config=QUICK)


def test_features_computed_once_train_like_features_computed_every_step(tiny, train_pairs, monkeypatch):
    once = weights(trained(tiny, train_pairs, freeze=("image-trunk", "text-trunk")))
    monkeypatch.setattr("mithridate.training.training_set.frozen_features", lambda *_, **__: None)
    every = weights(trained(tiny, train_pairs, freeze=("image-trunk", "text-trunk")))
    for name, value in once.items():
        assert torch.allclose(value.float(), every[name].float(), atol=2e-5), name


def test_a_second_run_takes_frozen_features_from_disk(tiny, train_pairs, monkeypatch):
    first = weights(trained(tiny, train_pairs, freeze=("image",)))
    monkeypatch.setattr("mithridate.training.features._add", pytest.fail)
    again = weights(trained(tiny, train_pairs, freeze=("image",)))
    assert all(torch.equal(value, again[name]) for name, value in first.items())


def test_training_lowers_the_loss(tiny, train_pairs, tmp_path):
    config = TrainConfig(**{**vars(QUICK), "epochs": 4})
    mt.train(tiny, train_pairs, config=config, out=tmp_path / "run")
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == list(range(len(train_pairs) // 32 * 4))
    losses = [row["loss"] for row in rows]
    assert np.mean(losses[-5:]) < np.mean(losses[:5]) - 0.1


@pytest.mark.parametrize("options", [{"augment": "crop"}, {"precision": "bf16"}], ids=str)
def test_options_change_the_weights_and_keep_them_finite(options, tiny, train_pairs):
    plain, other = weights(trained(tiny, train_pairs)), weights(trained(tiny, train_pairs, **options))
    assert any(not torch.equal(value, other[name]) for name, value in plain.items())
    assert all(torch.isfinite(value.float()).all() for value in other.values())


def test_without_a_cache_the_weights_are_the_same(tiny, train_pairs):
    with_cache = weights(trained(tiny, train_pairs))
    config = TrainConfig(**{**vars(QUICK), "epochs": 1})
    without = weights(mt.train(tiny, few(train_pairs), config=config, cache_limit=0))
    assert all(torch.equal(value, without[name]) for name, value in with_cache.items())


# --- going on after a kill ----------------------------------------------------------------------------


@pytest.mark.slow
def test_a_killed_run_goes_on_in_the_middle_of_an_epoch_to_the_same_weights(toy_world, tmp_path):
    def command(out):
        options = [
            "--split",
            "train",
            "--batch-size",
            "16",
            "--epochs",
            "3",
            "--checkpoint-every",
            "5",
            "--preset",
            "scratch",
            "--json",
        ]
        start = [sys.executable, "-m", "mithridate", "train", str(toy_world), "--split", "train", "--json"]
        return [*start, "--out", str(out), *options]

    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    subprocess.run(command(tmp_path / "whole"), check=True, env=environment, capture_output=True)
    process = subprocess.Popen(command(tmp_path / "killed"), env=environment, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while not (tmp_path / "killed" / "state.pt").exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    state = torch.load(tmp_path / "killed" / "state.pt", weights_only=True)
    per_epoch = len((tmp_path / "whole" / "metrics.jsonl").read_text().splitlines()) // 3
    assert 0 < state["step"] < 3 * per_epoch and state["step"] % per_epoch
    assert not (tmp_path / "killed" / "model").exists()

    subprocess.run(command(tmp_path / "killed"), check=True, env=environment, capture_output=True)
    whole, killed = (weights(mt.load_encoder(str(tmp_path / name))) for name in ("whole", "killed"))
    assert all(torch.equal(value, killed[name]) for name, value in whole.items())
    steps = [
        [
            (row["step"], row["loss"])
            for row in map(json.loads, (tmp_path / name / "metrics.jsonl").read_text().splitlines())
        ]
        for name in ("whole", "killed")
    ]
    assert steps[0] == steps[1]


class Stop(Exception):
    pass


def stopped_run(encoder, pairs, out, config=QUICK, at=4):
    """A run in `out` that ended before its end, with a state after three steps."""

    def stop(step, total, batch_size):
        if step == at:
            raise Stop

    config = TrainConfig(**{**vars(config), "checkpoint_every": 3})
    with pytest.raises(Stop):
        mt.train(encoder, pairs, config=config, out=out, on_step=stop)


def test_another_run_is_not_taken_up(tiny, train_pairs, tmp_path):
    stopped_run(tiny, train_pairs, tmp_path / "run")
    with pytest.raises(mt.OutputError, match=r"unfinished run whose config\.lr is 0\.001, not 0\.5"):
        mt.train(tiny, train_pairs, config=TrainConfig(**{**vars(QUICK), "lr": 0.5}), out=tmp_path / "run")
    other = train_pairs.take(np.arange(64))
    with pytest.raises(mt.OutputError, match="whose data is"):
        mt.train(tiny, other, config=QUICK, out=tmp_path / "run")


def test_a_finished_run_is_not_replaced_unless_told(tiny, train_pairs, tmp_path):
    pairs = few(train_pairs)
    for _ in range(2):
        mt.train(tiny, pairs, config=QUICK, out=tmp_path / "run", overwrite=True)
    with pytest.raises(mt.OutputError, match=r"finished run.*--overwrite"):
        mt.train(tiny, pairs, config=QUICK, out=tmp_path / "run")


def test_a_full_disk_is_one_sentence_and_leaves_the_last_state(tiny, train_pairs, tmp_path, monkeypatch):
    stopped_run(tiny, train_pairs, tmp_path / "run")

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", full)
    config = TrainConfig(**{**vars(QUICK), "checkpoint_every": 2})
    with pytest.raises(mt.OutputError, match=r"No space left on device; free some space.*go on"):
        mt.train(tiny, train_pairs, config=config, out=tmp_path / "run")
    assert torch.load(tmp_path / "run" / "state.pt", weights_only=True)["step"] == 3
    assert not list((tmp_path / "run").glob(".*"))


def test_the_model_after_each_epoch_is_kept_when_asked_for(tiny, train_pairs, tmp_path):
    config = TrainConfig(**{**vars(QUICK), "save_epochs": True})
    final = mt.train(tiny, few(train_pairs), config=config, out=tmp_path / "run")
    first, last = (mt.load_encoder(str(tmp_path / "run" / "epochs" / name)) for name in ("001", "002"))
    assert all(torch.equal(value, weights(last)[name]) for name, value in weights(final).items())
    assert any(not torch.equal(value, weights(first)[name]) for name, value in weights(final).items())


# --- wrong input --------------------------------------------------------------------------------------


def with_bad_image(pairs: mt.Pairs, tmp_path, count: int) -> mt.Pairs:
    import pyarrow as pa

    bad = tmp_path / "bad.jpg"
    bad.write_bytes(b"\xff\xd8 not much of a picture")
    image = pairs.image.to_pylist()
    image[:count] = [str(bad)] * count
    return pairs.with_columns(image=pa.array(image))


def test_an_image_that_does_not_decode_is_left_out_counted_and_named(tiny, train_pairs, tmp_path, caplog):
    config = TrainConfig(**{**vars(QUICK), "max_bad": 0.05, "epochs": 1})
    with caplog.at_level(logging.WARNING):
        mt.train(tiny, with_bad_image(train_pairs, tmp_path, 5), config=config)
    assert "1 of 54 images do not decode" in caplog.text and "bad.jpg" in caplog.text


def test_too_many_bad_images_stop_the_run_before_it_begins(tiny, train_pairs, tmp_path):
    with pytest.raises(mt.DataError, match=r"1 of 54 images do not decode.*bad\.jpg.*--max-bad 0\.01"):
        mt.train(tiny, with_bad_image(train_pairs, tmp_path, 5), config=QUICK)


def test_a_batch_larger_than_the_data_is_refused(tiny, train_pairs):
    with pytest.raises(mt.DataError, match="a batch needs 32 pairs and there are 3"):
        mt.train(tiny, train_pairs.take([0, 1, 2]), config=QUICK)


def test_freezing_everything_is_refused(tiny, train_pairs):
    config = TrainConfig(**{**vars(QUICK), "freeze": ("image", "text"), "freeze_logit_scale": True})
    with pytest.raises(mt.MithridateError, match="nothing is left to train"):
        mt.train(tiny, train_pairs, config=config)


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"epochs": 0}, "epochs must be at least 1, got 0"),
        ({"seed": -1}, "seed must be at least 0, got -1"),
        ({"max_bad": 1.5}, "max_bad is a share of the images, from 0 to 1, got 1.5"),
        ({"lr": -1.0}, "lr must be 0 or more and finite, got -1"),
        ({"lr": float("inf")}, "lr must be 0 or more and finite, got inf"),
        ({"weight_decay": float("nan")}, "weight_decay must be 0 or more and finite, got nan"),
        ({"betas": (0.9, 1.0)}, r"betas must lie in \[0, 1\)"),
        ({"min_lr": 1.0}, "min_lr must not exceed lr"),
        ({"freeze": ("image", "image-trunk")}, "give one"),
    ],
)
def test_a_recipe_that_cannot_be_is_refused(options, match):
    with pytest.raises(mt.MithridateError, match=match):
        TrainConfig(**options)


def test_a_diverging_loss_stops_the_run(tiny, train_pairs):
    broken = tiny.copy()
    with torch.no_grad():
        broken.model.text_projection.fill_(float("nan"))
    with pytest.raises(mt.MithridateError, match="not finite at step 0"):
        mt.train(broken, train_pairs, config=QUICK)


def test_a_ruined_model_does_not_count_as_done(tiny, train_pairs, tmp_path, monkeypatch):
    """The last step may ruin weights whose loss was finite before it."""

    def ruin(step, total, batch_size):
        if step == total:
            encoder.model.text_projection.data[0, 0] = float("inf")

    copied = type(tiny).copy
    encoder = tiny

    def remember(self):
        nonlocal encoder
        encoder = copied(self)
        return encoder

    monkeypatch.setattr(type(tiny), "copy", remember)
    with pytest.raises(mt.MithridateError, match="text_projection is not finite after the last step"):
        mt.train(tiny, few(train_pairs), config=QUICK, out=tmp_path / "run", on_step=ruin)
    assert not (tmp_path / "run" / "model").exists()


def test_a_folder_that_another_process_trains_in_is_refused_at_once(tiny, train_pairs, tmp_path):
    hold = f"""
from mithridate.folders import claim
with claim({str(tmp_path / "run")!r}):
    print("held", flush=True)
    input()"""
    with subprocess.Popen([sys.executable, "-c", hold], stdin=-1, stdout=-1, text=True) as other:
        assert other.stdout is not None and other.stdout.readline() == "held\n"
        with pytest.raises(mt.OutputError, match=f"is being written by process {other.pid}"):
            mt.train(tiny, few(train_pairs), config=QUICK, out=tmp_path / "run")
        other.communicate("\n")


def test_a_run_of_other_processes_is_not_taken_up(tiny, train_pairs, tmp_path):
    stopped_run(tiny, train_pairs, tmp_path / "run")
    path = tmp_path / "run" / "run.json"
    record = json.loads(path.read_text())
    assert record["processes"] == 1 and record["precision"] == "fp32"
    assert record["machine"]["threads"] == torch.get_num_threads()
    del record["checksum"]
    path.write_text(json.dumps({**record, "processes": 2}))
    with pytest.raises(mt.OutputError, match="unfinished run whose processes is 2, not 1"):
        mt.train(tiny, train_pairs, config=QUICK, out=tmp_path / "run")


# --- several processes --------------------------------------------------------------------------------

TWO_PROCESSES = """
import sys, torch
import mithridate as mt
from mithridate.training.config import TrainConfig
torch.set_num_threads(1)
freeze = tuple(sys.argv[3:])
config = TrainConfig(epochs=1, batch_size=32, lr=1e-3, min_lr=0.0, precision="fp32", freeze=freeze)
mt.train(mt.load_encoder("mithridate-tiny"), mt.read_pairs(sys.argv[1], split="train"), config=config, out=sys.argv[2])
"""


@pytest.mark.slow
@pytest.mark.parametrize("freeze", [("image",), ()], ids=["frozen", "whole"])
def test_two_processes_train_like_one(freeze, toy_world, tmp_path):
    script = tmp_path / "train.py"
    script.write_text(TWO_PROCESSES)
    one, two = str(tmp_path / "one"), str(tmp_path / "two")
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    subprocess.run([sys.executable, str(script), str(toy_world), one, *freeze], check=True)
    subprocess.run([*launch, str(script), str(toy_world), two, *freeze], check=True)
    losses = [
        [json.loads(line)["loss"] for line in (tmp_path / name / "metrics.jsonl").read_text().splitlines()]
        for name in ("one", "two")
    ]
    assert losses[1][:2] == pytest.approx(losses[0][:2], rel=1e-5)
    # batch norms cancel most of a gradient, so that Adam blows rounding up; statistics of halves differ from the start
    assert losses[1] == pytest.approx(losses[0], rel=1e-4 if freeze else 2e-3)
    if freeze:
        # not weight by weight: a key's bias has no effect, so its gradient is rounding, which Adam blows up
        texts = ["a sheep", "two red planes in the snow"]
        first, second = (mt.load_encoder(name).encode_text(texts) for name in (one, two))
        assert torch.allclose(first, second, atol=1e-3)


def test_batch_norm_over_processes_is_batch_norm(monkeypatch):
    """One process of one; that two agree with one is what the test above shows."""
    monkeypatch.setattr(distributed, "all_reduce", lambda x: x)
    monkeypatch.setattr("torch.distributed.get_world_size", lambda: 1)
    generator = torch.Generator().manual_seed(0)
    found = []
    for mode in (contextlib.nullcontext(), distributed.WholeBatchNorm()):
        norm = torch.nn.BatchNorm2d(6)
        x = (3 * torch.randn(8, 6, 4, 4, generator=generator.manual_seed(0)) + 1).requires_grad_()
        with mode:
            out = norm(x)
            out.sin().sum().backward()
            norm.eval()
            found.append([out, x.grad, norm.weight.grad, norm.bias.grad, norm.running_mean, norm.running_var, norm(x)])
    for one, other in zip(*found):
        assert torch.allclose(one, other, atol=1e-5)


def test_parameters_can_be_frozen_by_name(tiny, train_pairs):
    before, after = (
        weights(tiny),
        weights(trained(tiny, train_pairs, freeze=("token_embedding.*", "visual.trunk.layer1.*"))),
    )
    parameters = {name for name, _ in tiny.model.named_parameters()}  # statistics of batch norm go on
    still = {name for name in parameters if name.startswith(("token_embedding", "visual.trunk.layer1."))}
    assert still and all(torch.equal(before[name], after[name]) for name in still)
    assert not torch.equal(before["text_projection"], after["text_projection"])


def test_a_frozen_name_that_no_parameter_has_is_refused(tiny, train_pairs):
    with pytest.raises(mt.MithridateError, match=r"freeze='imgae' is none of image, .* begin with .*visual"):
        trained(tiny, train_pairs, freeze=("imgae",))
