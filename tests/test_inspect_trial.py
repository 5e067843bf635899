"""The owner's loop on the toy world: a patch is planted, found without the truth, taken out, looked for again."""

import numpy as np
import pytest
import torch

import mithridate as mt
from mithridate.inspection.finding import as_images
from mithridate.inspection.mask_inversion import MaskInversion
from mithridate.inspection.relabelling import Relabelling
from mithridate.poisoning.triggers import parse_trigger
from mithridate.randomness import stream

CLASSES = ("aeroplane", "dog", "boat")
TRIGGER = "patch:size=6/32,pattern=noise,place=top-left"
PROBES = {"mask-inversion": MaskInversion(), "relabelling": Relabelling()}


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """A start, a clean and a poisoned fine-tune of it, the owner's pairs of another world, and test pairs."""
    from mithridate.toy.world import write_toy_world

    folder = tmp_path_factory.mktemp("trial")
    theirs = write_toy_world(folder / "theirs", train=360, test=150, classes=CLASSES, size=32)
    mine = write_toy_world(folder / "mine", train=240, test=3, classes=CLASSES, seed=1, size=32)
    pairs = mt.read_pairs(theirs, split="train")
    scratch = mt.TrainConfig(epochs=8, batch_size=64, lr=2e-3, min_lr=0.0, warmup=10, precision="fp32")
    tune = mt.TrainConfig(epochs=2, batch_size=64, lr=5e-4, min_lr=0.0, precision="fp32", seed=1)
    start = mt.train(mt.load_encoder("mithridate-micro"), pairs, config=scratch)
    attack = mt.Backdoor(target="boat", trigger=TRIGGER, rate=0.25)
    planted = mt.poison(pairs, attack, seed=2, images=folder / "poisoned")
    poisoned = mt.train(start, planted.pairs, config=tune)
    clean = mt.train(start, pairs, config=tune)
    return start, clean, poisoned, mt.read_pairs(mine, split="train"), mt.read_pairs(theirs, split="test")


def success(encoder, pairs):
    """The share of test images of other classes that the true trigger takes to the target."""
    from mithridate.encoder.embed import image_source
    from mithridate.inspection.material import view_of

    first = np.unique(pairs.image_index, return_index=True)[1]
    others = np.flatnonzero([pairs.labels[int(row)].as_py() != ["boat"] for row in first])
    pixels = image_source(encoder, pairs.images, cache=None).gather(others)
    trigger = parse_trigger(TRIGGER)
    stamped = np.stack([trigger.stamp(each, stream(0, "trial", i)) for i, each in enumerate(pixels)])
    view = view_of(encoder, CLASSES)
    return (view.predicted(as_images(torch.from_numpy(stamped))) == CLASSES.index("boat")).float().mean().item()


@pytest.mark.slow
def test_a_planted_patch_is_named_taken_out_and_gone(models, tmp_path):
    start, clean, poisoned, mine, test = models
    found = mt.inspect(poisoned, mine, start=start, probes=PROBES)
    assert found.verdict == "suspicious"
    assert (found.flagged[0].kind, found.flagged[0].target) == ("patch", "boat")
    calm = mt.inspect(clean, mine, start=start, probes=PROBES)
    assert calm.verdict == "nothing found"
    repaired = mt.repair(poisoned, found, mine, start=start, verify=False)
    before, after = success(poisoned, test), success(repaired.encoder, test)
    natural = success(clean, test)
    assert before > natural + 0.25
    assert after < natural + 0.5 * (before - natural)
    assert repaired.after.recall > repaired.before.recall - 0.1
    import open_clip

    mt.save_encoder(repaired.encoder, tmp_path)
    model, _, _ = open_clip.create_model_and_transforms(f"local-dir:{tmp_path}")
    assert torch.equal(model.text_projection, repaired.encoder.model.text_projection)
