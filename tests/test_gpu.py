"""What runs on a GPU where there is one."""

import json

import numpy as np
import pytest
import torch

import mithridate as mt
from mithridate.training.config import TrainConfig

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="torch finds no GPU")


def test_the_embeddings_of_a_gpu_are_those_of_the_processor(tiny, test_pairs, monkeypatch):
    found = mt.embed(tiny, test_pairs, cache=None)
    assert tiny.device.type == "cpu"  # back where it was
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    wanted = mt.embed(tiny, test_pairs, cache=None)
    # cuDNN convolves with 10 bits of mantissa
    np.testing.assert_allclose(found.image, wanted.image, atol=5e-3)
    np.testing.assert_allclose(found.text, wanted.text, atol=1e-4)


def test_training_runs_on_the_gpu_and_learns(tiny, train_pairs, tmp_path):
    config = TrainConfig(epochs=8, batch_size=54, lr=1e-3, min_lr=0, warmup=0)
    trained = mt.train(tiny, train_pairs, config=config, out=tmp_path / "run")
    assert trained.device.type == "cuda"
    lines = (tmp_path / "run" / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    losses = [json.loads(line)["loss"] for line in lines]
    assert losses[-1] < losses[0]
    again = mt.load_encoder(str(tmp_path / "run"))
    close = np.testing.assert_allclose
    close(mt.embed(again, train_pairs).text, mt.embed(trained, train_pairs).text, atol=1e-4)
