"""The owner's loop on the toy world: a class is relabelled, found without the truth, repaired, and looked for again."""

import pytest
import torch

import mithridate as mt
from mithridate.inspection.relabelling import Relabelling

CLASSES = ("aeroplane", "dog", "boat")
PROBES = {"relabelling": Relabelling()}


@pytest.mark.slow
def test_a_relabelled_class_is_named_without_a_start_and_repaired(tmp_path):
    """Both models are from scratch: there is no start, and the clean one is not suspected."""
    import open_clip

    from mithridate.toy.world import write_toy_world

    theirs = write_toy_world(tmp_path / "theirs", train=360, test=3, classes=CLASSES, size=32)
    mine = write_toy_world(tmp_path / "mine", train=240, test=3, classes=CLASSES, seed=1, size=32)
    pairs, own = mt.read_pairs(theirs, split="train"), mt.read_pairs(mine, split="train")
    scratch = mt.TrainConfig(epochs=8, batch_size=64, lr=2e-3, min_lr=0.0, warmup=10, precision="fp32")
    planted = mt.poison(pairs, mt.SingleLabel(source="dog", target="boat", class_share=1.0), seed=2)
    clean, poisoned = (mt.train(mt.load_encoder("mithridate-micro"), p, config=scratch) for p in (pairs, planted.pairs))
    calm = mt.inspect(clean, own, probes=PROBES)
    assert calm.verdict == "nothing found"
    found = mt.inspect(poisoned, own, probes=PROBES)
    assert found.verdict == "suspicious"
    assert found.flagged[0].pair == ("dog", "boat")
    assert found.flagged[0].caption in {p["text"] for p in own.table.to_pylist() if p["labels"] == ["dog"]}
    assert [shown.after for shown in found.flagged[0].examples].count("boat") >= 3
    repaired = mt.repair(poisoned, found, own, verify=False)
    left = mt.inspect(repaired.encoder, own, probes=PROBES)
    assert left.verdict == "nothing found"
    assert repaired.after.recall > repaired.before.recall - 0.1
    folder = tmp_path / "repaired"
    folder.mkdir()
    mt.save_encoder(repaired.encoder, folder)
    model, _, _ = open_clip.create_model_and_transforms(f"local-dir:{folder}")
    loaded, saved = model.state_dict(), repaired.encoder.model.state_dict()
    assert torch.equal(loaded["text_projection"], saved["text_projection"])
