"""Screening of images: each score on pictures whose answer is known, thresholds by class, page and command."""

import json
from dataclasses import is_dataclass

import numpy as np
import pytest
import torch
from PIL import Image

from mithridate.cli import main
from mithridate.encoder.encoder import load_encoder, save_encoder
from mithridate.errors import InspectionError
from mithridate.inspection.scores.bdetclip import BDetClip
from mithridate.inspection.scores.masking import Masking
from mithridate.inspection.scores.occlusion import Occlusion
from mithridate.inspection.scores.registry import SCORES
from mithridate.inspection.scores.scale_up import ScaleUp
from mithridate.inspection.scores.score import Score, Screen
from mithridate.inspection.scores.strip import Strip
from mithridate.inspection.screen import _held, screen
from mithridate.inspection.view import View

SIDE = 20


class Corner(View):
    """A model by hand: red in the upper left corner stands for class 1 whatever else there is."""

    def features(self, images):
        red = images[:, 0, :4, :4].mean(dim=(1, 2)) - images[:, 1, :4, :4].mean(dim=(1, 2))
        green = images[:, 1].mean(dim=(1, 2)) - images[:, 0].mean(dim=(1, 2))
        plain = torch.stack([torch.full_like(red, 0.2), 4 * red, 0.2 + green], dim=1)
        return torch.nn.functional.normalize(plain, dim=1)

    def logits(self, images):
        return 10 * self.features(images) @ self.classes.T

    def predicted(self, images):
        return self.logits(images).argmax(dim=1)


class Flat(View):
    """A model whose embedding of an image is its first 128 values."""

    def features(self, images):
        return images.flatten(1)[:, :128]


@pytest.fixture(scope="module")
def micro():
    return load_encoder("mithridate-micro", seed=0)


@pytest.fixture(scope="module")
def material(micro):
    drawn = torch.Generator().manual_seed(0)
    clean = 0.4 + 0.05 * torch.rand(30, 3, SIDE, SIDE, generator=drawn)
    return Screen(Corner(micro, torch.eye(3)), ("tree", "boat", "field"), clean, ["a boat near a tree", "a field"])


@pytest.fixture(scope="module")
def images(material):
    """Ten clean pictures, then the same with a red corner."""
    plain = material.clean[:10]
    stamped = plain.clone()
    stamped[:, 0, :4, :4], stamped[:, 1:, :4, :4] = 1.0, 0.0
    return torch.cat([plain, stamped])


@pytest.mark.parametrize("name", [name for name in SCORES if name != "bdetclip"])  # whose texts have 128 axes
def test_a_score_gives_each_image_a_number_of_its_own(name, material, images):
    score = SCORES[name]()
    assert is_dataclass(score) and isinstance(score, Score) and score.name == name and score.measures
    every = score.suspicion(material, images)
    assert every.shape == (20,) and torch.isfinite(every).all()
    assert torch.allclose(every[3:5], score.suspicion(material, images[3:5]), atol=1e-5)


@pytest.mark.parametrize("score", [Strip(), Occlusion(), Masking(), ScaleUp()], ids=lambda score: score.name)
def test_a_patch_that_decides_alone_is_more_suspicious(score, material, images):
    suspicion = score.suspicion(material, images)
    assert suspicion[10:].min() > suspicion[:10].max()


def test_benign_texts_draw_less_what_lies_against_all_classes(micro):
    drawn = torch.randn(2, 128, generator=torch.Generator().manual_seed(1))
    view = Flat(micro, torch.nn.functional.normalize(drawn, dim=1))
    material = Screen(view, ("boat", "tree"), torch.zeros(1, 3, 8, 8), ["a boat"])
    towards = torch.zeros(2, 3, 8, 8)
    towards.flatten(1)[0, :128], towards.flatten(1)[1, :128] = view.classes.sum(dim=0), -view.classes.sum(dim=0)
    near, far = BDetClip().suspicion(material, towards)
    assert far > near and isinstance(BDetClip(), Score)


def test_thresholds_are_those_of_the_class_that_an_image_is_taken_for():
    clean = torch.cat([torch.arange(100.0), 1000 + torch.arange(100.0), torch.tensor([5000.0])])
    of_class = torch.tensor([0] * 100 + [1] * 100 + [2])
    suspicion, predicted = torch.tensor([98.0, 98.0, 98.0]), torch.tensor([0, 1, 2])
    _, threshold, p = _held(suspicion, clean, predicted, of_class, 0.05)
    assert threshold[0] == pytest.approx(94.05) and threshold[1] == pytest.approx(1094.05)
    assert threshold[2] == pytest.approx(clean.quantile(0.95).item())  # a class of one clean image has no own
    assert p[0].item() == pytest.approx(3 / 101) and p[1].item() == 1.0


def test_of_clean_images_the_chosen_share_exceeds(micro, train_pairs):
    found = screen(micro, train_pairs.images, train_pairs, false_alarms=0.2, cache=None)
    assert found.unreadable == 0 and len(found.locations) == len(train_pairs.images)
    for name, hits in found.flagged.items():
        assert hits.mean() <= 0.25, name
        assert ((found.p[name] > 0) & (found.p[name] <= 1)).all()


def test_false_alarms_are_a_share(micro, train_pairs):
    with pytest.raises(InspectionError, match="false_alarms must be a share between 0 and 1"):
        screen(micro, ["x.png"], train_pairs, false_alarms=1.5, cache=None)
    with pytest.raises(InspectionError, match="none of 1 images decodes"):
        screen(micro, ["x.png"], train_pairs, cache=None)


def test_the_command_screens_a_folder_of_images(micro, toy_world, tmp_path, capsys):
    model, images = tmp_path / "model", tmp_path / "images"
    model.mkdir()
    images.mkdir()
    save_encoder(micro, model)
    for i in range(3):
        pixels = np.random.default_rng(i).integers(0, 255, (32, 32, 3), np.uint8)
        Image.fromarray(pixels).save(images / f"{i}.png")
    (images / "3.png").write_bytes(b"no image")
    argv = ["screen", str(model), str(images), "--data", str(toy_world), "--out", str(tmp_path / "out"), "--json"]
    assert main([*argv, "--score", "strip"]) == 0
    said = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (said["images"], said["unreadable"], list(said["flagged"])) == (3, 1, ["strip"])
    assert len((tmp_path / "out" / "scores.csv").read_text().splitlines()) == 4
    page = (tmp_path / "out" / "report.html").read_text()
    assert "<script" not in page and "http" not in page.replace("http-equiv", "")
    # a set of pairs is screened as a folder of images is
    pairs = ["screen", str(model), str(toy_world), "--data", str(toy_world), "--json"]
    assert main([*pairs, "--score", "strip", "--out", str(tmp_path / "pairs")]) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["images"] == 54 + 27
    assert main([*argv[:-2], str(tmp_path / "other"), "--score", "strap"]) == 1
    assert "no score is called 'strap'" in capsys.readouterr().err
