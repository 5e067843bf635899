"""Encoders give what open_clip itself gives, load and save everywhere, and embed each thing once."""

# pyright: reportArgumentType=false, reportCallIssue=false, reportAttributeAccessIssue=false
# pyright: reportOptionalMemberAccess=false
# (open_clip and torch give unions of what their functions may give back)

import json
import os
import pickle
import tarfile
from functools import partial

import numpy as np
import open_clip
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from open_clip.transform import PreprocessCfg, image_transform_v2
from PIL import Image

from mithridate.data.images import decode, read_bytes
from mithridate.data.pairs import make_pairs
from mithridate.encoder import encoder as encoder_module
from mithridate.encoder.embed import embed, embed_tokens, image_source
from mithridate.encoder.embeddings import Embeddings, read_embeddings, write_embeddings
from mithridate.encoder.encoder import Encoder, load_encoder, save_encoder
from mithridate.encoder.tokenizer import load_tokenizer
from mithridate.encoder.towers import (
    pools_end_token,
    project,
    projection_prefix,
    text_embedding,
    tower_modules,
    tower_parameters,
    without_projection,
)
from mithridate.errors import DataError, EncoderError, OutputError
from mithridate.sealed import write_sealed_array

TEXT = {"context_length": 16, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 2}
VIT = {"image_size": 32, "layers": 2, "width": 64, "patch_size": 16, "head_width": 32}

# small models of every kind of tower that open_clip builds
MODELS = {
    "vit": {"embed_dim": 24, "vision_cfg": VIT, "text_cfg": TEXT},
    "vit-quick-gelu": {"embed_dim": 24, "quick_gelu": True, "vision_cfg": VIT, "text_cfg": TEXT},
    "resnet": {
        "embed_dim": 24,
        "vision_cfg": {"image_size": 64, "layers": [1, 1, 1, 1], "width": 8},
        "text_cfg": TEXT,
    },
    "timm": {
        "embed_dim": 24,
        "vision_cfg": {
            "timm_model_name": "test_vit",
            "timm_model_pretrained": False,
            "timm_pool": "",
            "timm_proj": "linear",
            "image_size": 160,
        },
        "text_cfg": TEXT,
    },
    "layer-scale": {"embed_dim": 24, "vision_cfg": VIT, "text_cfg": TEXT | {"ls_init_value": 0.5}},
    "qk-norm": {"embed_dim": 24, "vision_cfg": VIT, "text_cfg": TEXT | {"qk_norm": True}},
    # SigLIP's and CoCa's kind: the text tower is a module of its own, of which one is not causal
    "custom-text": {"embed_dim": 24, "custom_text": True, "vision_cfg": VIT, "text_cfg": TEXT},
    "bidirectional": {
        "embed_dim": 24,
        "custom_text": True,
        "init_logit_bias": -10,
        "vision_cfg": VIT,
        "text_cfg": TEXT | {"no_causal_mask": True, "pool_type": "last", "proj_bias": True},
    },
}
CAPTIONS = ["", "a sheep", "two grey sheep stand on a hill", "word " * 40, "a  sheep\n, again!"]


@pytest.fixture(scope="module")
def tiny():
    """The encoder that is shipped, as it is drawn from seed 0. Tests that change it take a copy."""
    return load_encoder("mithridate-tiny", seed=0)


@pytest.fixture(scope="session")
def small_model(tmp_path_factory):
    """Name -> a small model that open_clip knows under that name, its weights drawn anew."""
    folder = tmp_path_factory.mktemp("configs")
    for name, config in MODELS.items():
        (folder / f"small-{name}.json").write_text(json.dumps(config))
    open_clip.add_model_config(folder)
    made = {}

    def load(name):
        if name == "mithridate-tiny":
            return load_encoder(name)
        if name not in made:
            made[name] = load_encoder(f"small-{name}")
            stir(made[name])
        return made[name].copy()

    return load


def stir(encoder):
    """Give every parameter and statistic a value that matters: open_clip starts some at zero or one."""
    generator = torch.Generator().manual_seed(1)
    for name, value in encoder.model.state_dict().items():
        if value.is_floating_point() and "logit" not in name:
            noise = torch.randn(value.shape, generator=generator) * 0.05
            value.add_(noise.abs() if "running_var" in name else noise)


every_model = pytest.mark.parametrize("name", ["mithridate-tiny", *MODELS])


def photographs(count=4, seed=0):
    rng = np.random.default_rng(seed)
    sizes = [(90, 120), (64, 64), (33, 200), (300, 210)]
    smooth = [Image.fromarray(rng.integers(0, 256, (5, 7, 3), dtype=np.uint8)) for _ in range(count)]
    return [image.resize(sizes[number % 4], Image.Resampling.BICUBIC) for number, image in enumerate(smooth)]


def unit(x):
    return torch.nn.functional.normalize(x, dim=-1)


@torch.no_grad()
def ours(encoder, images):
    return encoder.encode_image(torch.from_numpy(np.stack([encoder.to_pixels(image) for image in images])))


@torch.no_grad()
def theirs(model, images):
    """open_clip's own way: its transform on every image, in its order."""
    transform = image_transform_v2(PreprocessCfg(**open_clip.get_model_preprocess_cfg(model)), is_train=False)
    return unit(model.encode_image(torch.stack([transform(image) for image in images])))


def close(first, second):
    np.testing.assert_allclose(np.asarray(first), np.asarray(second), rtol=0, atol=1e-5)


# --- the same as open_clip ---------------------------------------------------------------------------


@every_model
def test_images_are_embedded_as_open_clip_embeds_them(small_model, name):
    encoder = small_model(name)
    images = photographs()
    found = ours(encoder, images)
    close(found, theirs(encoder.model, images))
    close(found.norm(dim=1), np.ones(4))
    assert (found @ found.T)[0, 1:].max() < 1 - 1e-6  # or all would be close to all


@every_model
@torch.no_grad()
def test_images_are_embedded_a_few_at_a_time_only_where_that_changes_nothing(small_model, name, monkeypatch):
    encoder = small_model(name)
    pixels = torch.from_numpy(np.stack([encoder.to_pixels(image) for image in photographs(7)]))
    counts = []
    encoder.model.visual.register_forward_pre_hook(lambda module, inputs: counts.append(len(inputs[0])))
    monkeypatch.setattr(encoder_module, "_PIXELS_AT_A_TIME", 3 * pixels[0, ..., 0].numel())
    whole = encoder.model.encode_image(encoder.normalise(pixels))
    close(encoder.image_embedding(pixels), whole)
    # statistics of a batch are those of the whole batch, and a gradient's memory is needed anyway
    encoder.model.train()
    trained = encoder.image_embedding(pixels)
    encoder.model.eval()
    with torch.enable_grad():
        assert encoder.image_embedding(pixels).requires_grad
    assert counts == [7, 3, 3, 1, 7, 7]
    assert (name in ("mithridate-tiny", "resnet")) == ((trained - whole).abs().max() > 1e-3)  # batch norms


@every_model
def test_captions_without_padding_are_embedded_as_with(small_model, name):
    encoder = small_model(name)
    with torch.no_grad():
        found = encoder.encode_text(CAPTIONS)
        close(found, unit(encoder.model.encode_text(encoder.tokenizer(CAPTIONS))))
        close(encoder.encode_text(CAPTIONS[:3]), found[:3])
        close(encoder.encode_text(CAPTIONS[1:2]), found[1:2])
    assert (found @ found.T)[0, 1:].max() < 1 - 1e-6


# captions of all lengths, enough of them for groups
MANY = [" ".join(["a", "sheep", "on", "two", "grey", "hills"][: 1 + i * 5 % 6] * (1 + i % 3)) for i in range(70)]


@every_model
def test_captions_in_groups_by_length_have_the_embeddings_and_gradients_of_one_batch(small_model, name):
    model = small_model(name).model
    tokens = small_model(name).tokenizer(MANY)
    goal = torch.randn(len(MANY), 24 if name in MODELS else 128, generator=torch.Generator().manual_seed(0))
    found, parameters = [], tower_parameters(model, "text")
    for run in (partial(text_embedding, model), model.encode_text):
        model.zero_grad()
        embeddings = unit(run(tokens))
        (embeddings * goal).sum().backward()
        found.append((embeddings.detach(), {key: p.grad.clone() for key, p in parameters.items()}))
    (ours, our_gradients), (theirs, their_gradients) = found
    close(ours, theirs)
    assert max(gradient.abs().max() for gradient in their_gradients.values()) > 0.1
    for key, gradient in their_gradients.items():
        largest = float(gradient.abs().max())  # a bias of keys has none but what rounding leaves
        np.testing.assert_allclose(our_gradients[key], gradient, rtol=0, atol=max(1e-5 * largest, 1e-6))


def test_blocks_that_are_to_be_run_again_in_the_backward_pass_are(small_model):
    encoder, runs = small_model("vit"), []
    encoder.model.train()
    encoder.model.set_grad_checkpointing()
    encoder.model.transformer.resblocks[0].register_forward_pre_hook(lambda module, inputs: runs.append(1))
    embeddings = text_embedding(encoder.model, encoder.tokenizer(CAPTIONS))
    assert len(runs) == 1
    embeddings.sum().backward()
    assert len(runs) == 2


def test_what_follows_the_end_is_left_out_only_where_it_is_not_seen(small_model):
    for name, left_out in (("vit", True), ("custom-text", True), ("bidirectional", False), ("mithridate-tiny", True)):
        encoder = small_model(name)
        tokens = encoder.tokenizer(MANY)
        other = tokens.clone()
        other[tokens == 0] = 7  # padding
        assert (other != tokens).any()
        with torch.no_grad():
            same = torch.equal(text_embedding(encoder.model, tokens), text_embedding(encoder.model, other))
        assert pools_end_token(encoder.model) == same == left_out


def test_a_model_that_is_not_of_open_clip_is_refused():
    with pytest.raises(EncoderError, match="expected a model with encode_image and encode_text, got Linear"):
        text_embedding(torch.nn.Linear(2, 2), torch.zeros(1, 4, dtype=torch.int64))


@pytest.fixture(scope="session")
def real(shared_data):
    return load_encoder(str(shared_data / "weights" / "mnv2-lit"))


@pytest.fixture(scope="session")
def real_photographs(shared_data):
    """(image, captions) of a few samples of the first shard."""
    found = {}
    with tarfile.open(shared_data / "flickr8k" / "dev-000.tar") as tar:
        for member in tar:
            key, _, ending = member.name.partition(".")
            found.setdefault(key, {})[ending] = tar.extractfile(member).read()
            if len(found) == 7:
                break
    samples = list(found.values())[:6]
    return [decode(s["jpg"]) for s in samples], [json.loads(s["json"])["captions"][0] for s in samples]


def test_a_real_encoder_on_real_photographs(real, real_photographs, shared_data):
    images, captions = real_photographs
    model, _, transform = open_clip.create_model_and_transforms(f"local-dir:{shared_data / 'weights' / 'mnv2-lit'}")
    tokens = open_clip.get_tokenizer(f"local-dir:{shared_data / 'weights' / 'mnv2-lit'}")(captions)
    model.eval()
    with torch.no_grad():
        close(ours(real, images), unit(model.encode_image(torch.stack([transform(image) for image in images]))))
        text = real.encode_text(captions)
        close(text, unit(model.encode_text(tokens)))
        # a caption finds its photograph among six: preprocessing and tokens are those it was trained with
        assert ((text @ ours(real, images).T).argmax(dim=1) == torch.arange(6)).sum() >= 4


# --- loading and saving ------------------------------------------------------------------------------


@every_model
def test_what_is_saved_loads_in_open_clip_and_here(small_model, tmp_path, name):
    encoder = small_model(name)
    save_encoder(encoder, tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"open_clip_config.json", "open_clip_model.safetensors"}
    model, _, transform = open_clip.create_model_and_transforms(f"local-dir:{tmp_path}")
    tokenizer = open_clip.get_tokenizer(f"local-dir:{tmp_path}")
    model.eval()
    images = photographs()
    with torch.no_grad():
        close(unit(model.encode_image(torch.stack([transform(i) for i in images]))), ours(encoder, images))
        close(unit(model.encode_text(tokenizer(CAPTIONS))), encoder.encode_text(CAPTIONS))
        for again in (load_encoder(str(tmp_path)), load_encoder(f"local-dir:{tmp_path}")):
            assert not again.model.training
            assert again.recipe == encoder.recipe
            close(ours(again, images), ours(encoder, images))
            close(again.encode_text(CAPTIONS), encoder.encode_text(CAPTIONS))


def test_quick_gelu_that_the_name_does_not_tell_is_saved(tmp_path, small_model, monkeypatch):
    """As with ViT-B-32 and the tag openai: the name's config has plain GELU, the tag's weights want the other."""
    plain = small_model("vit")
    torch.save(plain.model.state_dict(), tmp_path / "weights.pt")
    tag = {"file": str(tmp_path / "weights.pt"), "quick_gelu": True, "mean": (0.5,) * 3}
    monkeypatch.setitem(open_clip.pretrained._PRETRAINED, "small-vit", {"quick": tag})
    quick = load_encoder("small-vit", pretrained="quick")
    save_encoder(quick, tmp_path)
    found = ours(quick, photographs())
    close(found, theirs(open_clip.create_model("small-vit", "quick", force_quick_gelu=True).eval(), photographs()))
    (tmp_path / "weights.pt").unlink()
    close(ours(load_encoder(str(tmp_path)), photographs()), found)
    assert (ours(plain, photographs()) - found).abs().max() > 1e-4


def test_a_run_s_folder_is_loaded_by_its_name(tiny, tmp_path):
    (tmp_path / "model").mkdir()
    save_encoder(tiny, tmp_path / "model")
    assert load_encoder(str(tmp_path)).name == f"local-dir:{tmp_path / 'model'}"


def test_a_training_checkpoint_of_open_clip_is_loaded(tiny, tmp_path):
    """`python -m open_clip_train.main` saves this; under DDP every name begins with `module.`."""
    state = {f"module.{name}": value for name, value in tiny.model.state_dict().items()}
    torch.save({"epoch": 3, "name": "run", "state_dict": state}, tmp_path / "epoch_3.pt")
    again = load_encoder("mithridate-tiny", pretrained=str(tmp_path / "epoch_3.pt"), seed=99)
    assert all(torch.equal(value, again.model.state_dict()[name]) for name, value in tiny.model.state_dict().items())
    assert again.name == f"mithridate-tiny/{tmp_path / 'epoch_3.pt'}"


def test_weights_without_a_checkpoint_come_from_the_seed_alone(tiny):
    torch.manual_seed(5)
    state = torch.get_rng_state()
    again, other = load_encoder("mithridate-tiny", seed=0), load_encoder("mithridate-tiny", seed=1)
    assert torch.equal(torch.get_rng_state(), state)
    for name, value in tiny.model.state_dict().items():
        assert torch.equal(value, again.model.state_dict()[name])
    assert not torch.equal(tiny.model.get_parameter("token_embedding.weight"), other.model.token_embedding.weight)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("ViT-B-23", "no open_clip model is called 'ViT-B-23'; nearest: .*ViT-B-32"),
        ("mithridate-tinny", "nearest: mithridate-tiny"),
        ("qqqqqq", "nearest: mithridate-tiny, ViT-B-32, RN50"),
        ("./absent", "./absent is not a folder with open_clip_config.json"),
        ("local-dir:/absent", "cannot load local-dir:/absent"),
    ],
)
def test_a_name_that_is_unknown_is_refused_with_the_nearest(name, message):
    with pytest.raises(EncoderError, match=message):
        load_encoder(name)


BREAKS = {
    "no weights": lambda folder: (folder / "open_clip_model.safetensors").unlink(),
    "half the weights": lambda folder: os.truncate(folder / "open_clip_model.safetensors", 10_000),
    "config is no JSON": lambda folder: (folder / "open_clip_config.json").write_text("{"),
    "config is empty": lambda folder: (folder / "open_clip_config.json").write_text("{}"),
    "another width": lambda folder: (folder / "open_clip_config.json").write_text(
        (folder / "open_clip_config.json").read_text().replace('"embed_dim": 24', '"embed_dim": 32')
    ),
    "no text tower": lambda folder: (folder / "open_clip_config.json").write_text(
        json.dumps({"model_cfg": {"embed_dim": 24, "vision_cfg": VIT}, "preprocess_cfg": {}})
    ),
    "an unknown field": lambda folder: (folder / "open_clip_config.json").write_text(
        (folder / "open_clip_config.json").read_text().replace('"embed_dim"', '"embed_dime"')
    ),
}


@pytest.mark.parametrize("how", BREAKS)
def test_a_broken_folder_is_one_sentence(small_model, tmp_path, how):
    save_encoder(small_model("vit"), tmp_path)
    BREAKS[how](tmp_path)
    with pytest.raises(EncoderError, match="cannot load local-dir:"):
        load_encoder(str(tmp_path))


class Bomb:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (os.mkdir, (str(self.path),))


@pytest.mark.parametrize("layout", ["file", "folder"])
def test_a_checkpoint_that_runs_code_is_refused(tiny, tmp_path, layout):
    bomb = tmp_path / "it-ran"
    save_encoder(tiny, tmp_path)
    (tmp_path / "open_clip_model.safetensors").unlink()
    path = tmp_path / "open_clip_pytorch_model.bin"
    torch.save({"state_dict": tiny.model.state_dict() | {"x": Bomb(bomb)}}, path)
    with pytest.raises(EncoderError, match="cannot load"):
        if layout == "file":
            load_encoder("mithridate-tiny", pretrained=str(path))
        else:
            load_encoder(str(tmp_path))
    assert not bomb.exists()
    pickle.loads(pickle.dumps(Bomb(bomb)))  # noqa: S301 (that it would have run is what is shown)
    assert bomb.exists()


# --- towers ------------------------------------------------------------------------------------------


@every_model
@pytest.mark.parametrize("tower", ["image", "text"])
def test_trunk_and_projection_make_the_tower(small_model, name, tower):
    encoder = small_model(name)
    model, before = encoder.model, {key: value.clone() for key, value in encoder.model.state_dict().items()}
    if tower == "image":
        pixels = torch.from_numpy(np.stack([encoder.to_pixels(image) for image in photographs()]))
        run = lambda: model.encode_image(encoder.normalise(pixels))  # noqa: E731
    else:
        tokens = encoder.tokenizer(CAPTIONS)
        run = lambda: text_embedding(model, tokens)  # noqa: E731
    with torch.no_grad():
        whole = run()
        with without_projection(model, tower):
            features = run()
        close(project(model, tower, features), whole)
        close(run(), whole)  # it is put back
    assert features.shape != whole.shape or (features - whole).abs().max() > 0.01
    assert model.state_dict().keys() == before.keys()
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    prefix = projection_prefix(model, tower)
    mine = [key for key in tower_parameters(model, tower) if key == prefix or key.startswith(f"{prefix}.")]
    assert mine


@every_model
def test_the_towers_share_nothing_and_leave_only_the_logit_scale(small_model, name):
    model = small_model(name).model
    image, text = (tower_parameters(model, tower) for tower in ("image", "text"))
    assert not image.keys() & text.keys()
    left = {key for key, _ in model.named_parameters()} - image.keys() - text.keys()
    assert left - {"logit_bias"} == {"logit_scale"}
    for tower, mine in (("image", image), ("text", text)):
        inside = {id(p) for module in tower_modules(model, tower) for p in module.parameters()}
        # position embeddings and projections may be bare parameters
        assert {id(p) for p in mine.values() if p.ndim > 2} <= inside


def test_the_projection_is_put_back_after_an_error(small_model):
    encoder = small_model("vit")
    proj = encoder.model.visual.proj
    with pytest.raises(KeyError), without_projection(encoder.model, "image"):
        raise KeyError
    assert encoder.model.visual.proj is proj


def test_a_tower_without_a_projection_is_refused():
    with pytest.raises(EncoderError, match="the text tower of this model has no projection of its own"):
        projection_prefix(torch.nn.Linear(2, 2), "text")


def test_a_copy_has_weights_of_its_own(tiny):
    copy = tiny.copy()
    with torch.no_grad():
        copy.model.logit_scale.add_(1)
    assert copy.model.logit_scale != tiny.model.logit_scale
    assert (copy.config, copy.name) == (tiny.config, tiny.name)


# --- embedding ---------------------------------------------------------------------------------------


def test_an_embedding_that_was_killed_goes_on(tiny, test_pairs, tmp_path, monkeypatch):
    """Blocks that are there are read, not made again; those of other data or weights are not taken."""
    monkeypatch.setattr("mithridate.encoder.embed._BATCHES_KEPT", 1)
    pairs, partial = test_pairs.take(np.arange(60)), tmp_path / "partial"
    tokens = tiny.tokenizer(pairs.text.to_pylist()).numpy()
    whole = embed_tokens(tiny, tokens, batch_size=16)

    def stop(what, done, _total):
        if done > 32:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        embed_tokens(tiny, tokens, batch_size=16, progress=stop, kept=partial)
    made = sorted(partial.iterdir())
    assert len(made) == 2
    write_sealed_array(made[0], np.load(made[0]) + 1)  # what is read shows
    made[1].write_bytes(made[1].read_bytes()[:-70])  # what is damaged is made again
    found = embed_tokens(tiny, tokens, batch_size=16, kept=partial)
    assert np.isclose(found - whole, 1, atol=1e-6).all(axis=1).sum() == 16
    assert np.isclose(found - whole, 0, atol=1e-6).all(axis=1).sum() == 44

    first = embed(tiny, pairs, partial=tmp_path / "p")
    embed(tiny, test_pairs.take(np.arange(5)), partial=tmp_path / "p")
    other = tiny.copy()
    with torch.no_grad():
        other.model.get_parameter("logit_scale").add_(1)
    embed(other, pairs, partial=tmp_path / "p")
    assert len(list((tmp_path / "p").iterdir())) == 3
    again = embed(tiny, pairs, partial=tmp_path / "p")
    assert (again.image == first.image).all() and (again.text == first.text).all()


def test_embeddings_are_those_of_each_pair_by_itself(tiny, test_pairs, cache):
    pairs = test_pairs.take([3, 3, 0, 20, 1, 99, 4])
    found = embed(tiny, pairs)
    assert found.uid.equals(pairs.uid)
    assert found.encoder == "mithridate-tiny"
    assert found.image.shape == (len(pairs.images), 128)
    images = [decode(read_bytes(place)) for place in pairs.image.to_pylist()]
    close(found.image[found.image_index], ours(tiny, images))
    with torch.no_grad():
        close(found.text, torch.cat([tiny.encode_text([text]) for text in pairs.text.to_pylist()]))
    close(found.similarity(), (found.image[found.image_index] * found.text).sum(axis=1))
    assert any(cache.glob("images2-64x64-*"))
    without = embed(tiny, pairs, cache=None)
    assert (without.image == found.image).all()
    assert (without.text == found.text).all()


def test_each_distinct_image_and_caption_is_computed_once(tiny, test_pairs, monkeypatch):
    seen = {"images": 0, "captions": 0}
    image_embedding, token_embedding = Encoder.image_embedding, Encoder.token_embedding

    def count(what, method):
        def counted(self, batch):
            seen[what] += len(batch)
            return method(self, batch)

        return counted

    monkeypatch.setattr(Encoder, "image_embedding", count("images", image_embedding))
    monkeypatch.setattr(Encoder, "token_embedding", count("captions", token_embedding))
    embed(tiny, test_pairs.take([0, 1, 0, 5, 1, 0]))
    distinct = len({test_pairs.text[row].as_py() for row in (0, 1, 5)})
    assert seen == {"images": 2, "captions": distinct}


def test_batches_do_not_change_what_comes_out(tiny, test_pairs):
    tokens = tiny.tokenizer(test_pairs.text.to_pylist()).numpy()
    close(embed_tokens(tiny, tokens, batch_size=7), embed_tokens(tiny, tokens))
    told = []
    embed(tiny, test_pairs, progress=lambda what, done, total: told.append((what, done, total)))
    assert told[-1][0] == "embedding captions"
    assert told[-1][1] == told[-1][2]


def test_an_image_that_does_not_decode_is_refused(tiny, test_pairs, tmp_path):
    (tmp_path / "x.png").write_text("no picture")
    pairs = make_pairs([test_pairs.image[0].as_py(), str(tmp_path / "x.png")], ["a", "b"])
    with pytest.raises(DataError, match=r"1 of 2 images do not decode \(.*x.png.*mithridate data doctor"):
        embed(tiny, pairs)
    with pytest.raises(DataError, match="no pairs to embed"):
        embed(tiny, test_pairs.take([]))


def test_an_encoder_in_training_mode_is_refused(tiny, test_pairs):
    training = tiny.copy()
    training.model.train()
    with pytest.raises(DataError, match=r"in training mode; call encoder.model.eval\(\)"):
        embed(training, test_pairs)


def test_embeddings_that_are_not_finite_are_refused_with_their_rows(tiny, test_pairs):
    broken = tiny.copy()
    rows = np.eye(4, 3, dtype=np.float32)
    uid = pa.chunked_array([["a", "b", "c", "d"]])
    rows[[1, 3], 0] = np.nan, np.inf
    for name, image, text in (("text", np.ones((4, 3)), rows), ("image", rows, np.ones((4, 3)))):
        with pytest.raises(DataError, match=rf"2 {name} embeddings are not finite \(rows 1, 3\); the model diverged"):
            Embeddings(uid, image, np.arange(4), text, "x")
    with pytest.raises(DataError, match="a row for each of the 4 pairs, got 3 texts and 4 images"):
        Embeddings(uid, rows, np.arange(4), rows[:3], "x")
    with torch.no_grad():
        broken.model.get_parameter("text_projection").fill_(torch.nan)
    with pytest.raises(DataError, match="135 text embeddings are not finite"):
        embed(broken, test_pairs)


def test_image_sources_of_one_recipe_share_one_store(tiny, small_model, test_pairs, tmp_path):
    image_source(tiny, test_pairs.images, cache=tmp_path)
    image_source(load_encoder("mithridate-tiny", seed=7), test_pairs.images, cache=tmp_path)
    assert len(list(tmp_path.iterdir())) == 1
    image_source(small_model("vit"), test_pairs.images, cache=tmp_path)
    assert len(list(tmp_path.iterdir())) == 2


# --- on disk -----------------------------------------------------------------------------------------


def test_embeddings_read_back_from_clip_retrieval_s_layout(tiny, test_pairs, tmp_path):
    found = embed(tiny, test_pairs)
    write_embeddings(found, test_pairs, tmp_path)
    layout = {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_file()}
    assert layout == {
        "img_emb/img_emb_0.npy",
        "text_emb/text_emb_0.npy",
        "metadata/metadata_0.parquet",
        "encoder.json",
    }
    metadata = pq.read_table(tmp_path / "metadata" / "metadata_0.parquet")
    assert metadata["image_path"].to_pylist() == test_pairs.image.to_pylist()
    assert metadata["caption"].to_pylist() == test_pairs.text.to_pylist()
    again = read_embeddings(tmp_path)
    assert again.uid.to_pylist() == found.uid.to_pylist()
    assert again.encoder == found.encoder
    assert again.image_index.tolist() == found.image_index.tolist()
    close(again.image, found.image)
    close(again.text, found.text)


def test_embeddings_of_others_come_in_parts_of_half_precision_and_without_uids(tmp_path):
    rng = np.random.default_rng(0)
    for name in ("img_emb", "text_emb", "metadata"):
        (tmp_path / name).mkdir()
    image, text = (rng.normal(size=(11, 4)).astype(np.float16) for _ in range(2))
    for part in range(11):  # part 10 comes after part 9, not after part 1
        np.save(tmp_path / "img_emb" / f"img_emb_{part}.npy", image[part : part + 1])
        np.save(tmp_path / "text_emb" / f"text_emb_{part}.npy", text[part : part + 1])
        pq.write_table(pa.table({"caption": [f"{part}"]}), tmp_path / "metadata" / f"metadata_{part}.parquet")
    found = read_embeddings(tmp_path)
    assert (len(found), found.encoder) == (11, "unknown")
    assert len(set(found.uid.to_pylist())) == 11
    close(found.image[found.image_index], unit(torch.from_numpy(image.astype(np.float32))))
    close(found.text, unit(torch.from_numpy(text.astype(np.float32))))


def test_embeddings_whose_parts_do_not_fit_are_refused(tmp_path):
    with pytest.raises(DataError, match=r"has no img_emb/\*.npy; expected clip-retrieval's layout"):
        read_embeddings(tmp_path)
    for name in ("img_emb", "text_emb", "metadata"):
        (tmp_path / name).mkdir()
    np.save(tmp_path / "img_emb" / "a.npy", np.ones((3, 2)))
    np.save(tmp_path / "text_emb" / "a.npy", np.ones((2, 2)))
    pq.write_table(pa.table({"caption": ["a", "b", "c"]}), tmp_path / "metadata" / "a.parquet")
    with pytest.raises(DataError, match="3 image and 2 text embeddings for 3 rows of metadata"):
        read_embeddings(tmp_path)


def test_a_full_disk_while_saving_is_an_output_error(tiny, tmp_path, monkeypatch):
    import mithridate.encoder.encoder as module
    from mithridate.folders import new_folder

    def refuse(state, path):
        raise RuntimeError("No space left on device (os error 28)")  # what safetensors' own type says

    monkeypatch.setattr(module, "save_file", refuse)
    with pytest.raises(OutputError, match="cannot write"), new_folder(tmp_path / "out") as folder:
        save_encoder(tiny, folder)
    assert list(tmp_path.iterdir()) == []


def test_models_with_one_text_tower_share_a_tokenizer(tiny, tmp_path):
    save_encoder(tiny, tmp_path)
    read = load_encoder(str(tmp_path)).tokenizer
    assert read is tiny.tokenizer and read is load_encoder("mithridate-micro").tokenizer
    model_cfg = open_clip.get_model_config("ViT-B-32")
    assert model_cfg is not None
    longer = load_tokenizer(model_cfg["text_cfg"], None)
    assert longer(["a cat"]).shape == (1, 77) and tiny.tokenizer(["a cat"]).shape == (1, 32)
