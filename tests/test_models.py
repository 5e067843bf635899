"""Models as people have them: what a tag, a folder or a file says reaches the model, without a network."""

# pyright: reportArgumentType=false, reportCallIssue=false, reportAttributeAccessIssue=false
# pyright: reportOptionalMemberAccess=false, reportFunctionMemberAccess=false, reportOptionalSubscript=false
# (open_clip and torch give unions of what their functions may give back)

import copy
import json
import logging
import shutil
import sys
from dataclasses import replace

import numpy as np
import open_clip
import pyarrow as pa
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from mithridate.encoder.embed import embed_tokens, tokenise
from mithridate.encoder.encoder import load_encoder, save_encoder, weights_fingerprint
from mithridate.encoder.tokenizer import load_tokenizer
from mithridate.encoder.towers import image_embedding, project, text_embedding, without_projection
from mithridate.errors import EncoderError
from mithridate.training.config import TrainConfig
from mithridate.training.loop import train

CAPTIONS = ["", "a photo of two grey sheep", "word " * 40]


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    """Every connection is refused: what passes here needs none."""

    def refuse(*_args, **_kwargs):
        raise AssertionError("a network was asked for")

    monkeypatch.setattr("socket.socket.connect", refuse)
    monkeypatch.setattr("socket.getaddrinfo", refuse)


def photographs(count=3):
    rng = np.random.default_rng(0)
    sizes = [(90, 120), (64, 64), (133, 70)]
    smooth = [Image.fromarray(rng.integers(0, 256, (5, 7, 3), dtype=np.uint8)) for _ in range(count)]
    return [image.resize(size, Image.Resampling.BICUBIC) for image, size in zip(smooth, sizes)]


def unit(x):
    return torch.nn.functional.normalize(x, dim=-1)


@torch.no_grad()
def ours(encoder):
    pixels = torch.from_numpy(np.stack([encoder.to_pixels(image) for image in photographs()]))
    return encoder.encode_image(pixels), encoder.encode_text(CAPTIONS)


@torch.no_grad()
def theirs(name, pretrained=None, tokenizer=None, **options):
    """open_clip's own way, from a name to embeddings."""
    model, _, transform = open_clip.create_model_and_transforms(name, pretrained, **options)
    model.eval()
    tokens = (tokenizer or open_clip.get_tokenizer(name))(CAPTIONS)
    images = torch.stack([transform(image) for image in photographs()])
    return unit(model.encode_image(images)), unit(model.encode_text(tokens))


def close(first, second):
    for one, other in zip(first, second, strict=True):
        np.testing.assert_allclose(np.asarray(one), np.asarray(other), rtol=0, atol=1e-5)


def stir(model, seed=1):
    """Give every parameter and statistic a value that matters: open_clip starts some at zero or one."""
    generator = torch.Generator().manual_seed(seed)
    for name, value in model.state_dict().items():
        if value.is_floating_point() and "logit" not in name:
            noise = torch.randn(value.shape, generator=generator) * 0.05
            value.add_(noise.abs() if "running_var" in name else noise)
    return model


@pytest.fixture
def weights(tmp_path):
    """A checkpoint of `mithridate-micro-vit` as a file, and its fingerprint."""
    encoder = load_encoder("mithridate-micro-vit", seed=3)
    return encoder.model.state_dict(), weights_fingerprint(encoder.model)


# --- checkpoints ---------------------------------------------------------------------------------------


class Loss(torch.nn.Module):
    """A class that a checkpoint may hold, and that no reader knows."""


WRAPPED = {
    "compiled": lambda s: {f"_orig_mod.{k}": v for k, v in s.items()},
    "DDP of DDP": lambda s: {"state_dict": {f"module.module.{k}": v for k, v in s.items()}},
    "DDP of compiled": lambda s: {"model": {f"module._orig_mod.{k}": v for k, v in s.items()}, "epoch": 2},
    "a compiled tower": lambda s: {k.replace("visual.", "visual._orig_mod."): v for k, v in s.items()},
    "Lightning, another attribute": lambda s: {"state_dict": {f"net.clip.{k}": v for k, v in s.items()}},
    "with numpy's scalars": lambda s: {"model_state_dict": s, "loss": np.float32(2.5), "step": np.int64(7)},
    "half precision": lambda s: {k: v.half() if v.is_floating_point() else v for k, v in s.items()},
    "two wrappers": lambda s: {"model": {"state_dict": s}},
}


@pytest.mark.parametrize("how", WRAPPED)
def test_a_checkpoint_is_taken_out_of_what_training_programs_wrap_around_it(weights, tmp_path, how):
    state, fingerprint = weights
    torch.save(WRAPPED[how](state), tmp_path / "epoch_2.pt")
    got = load_encoder("mithridate-micro-vit", pretrained=str(tmp_path / "epoch_2.pt"))
    if how == "half precision":
        close([got.model.state_dict()["token_embedding.weight"]], [state["token_embedding.weight"].half()])
    else:
        assert weights_fingerprint(got.model) == fingerprint


def _without(state, *names):
    return {k: v for k, v in state.items() if k not in names}


REFUSED = {
    "a name is missing": (lambda s: _without(s, "ln_final.bias"), r"1 missing \(ln_final.bias\)"),
    "a name too many": (lambda s: s | {"head.weight": torch.ones(2)}, r"1 unexpected \(head.weight\)"),
    "another shape": (
        lambda s: s | {"text_projection": torch.ones(128, 64)},
        r"1 of another shape \(text_projection \(128, 64\) instead of \(128, 128\)\)",
    ),
    "whole numbers": (lambda s: s | {"ln_final.bias": torch.ones(128, dtype=torch.int8)}, "1 of another type"),
    "a longer text tower": (
        lambda s: s | {"positional_embedding": torch.ones(77, 128)},
        r"positional_embedding \(77, 128\) instead of \(32, 128\)",
    ),
    "a tensor spread from one value": (
        lambda s: s | {"text_projection": torch.ones(1).expand(10**7, 10**7)},
        "holds fewer values than that",
    ),
    "a sparse tensor": (lambda s: s | {"ln_final.bias": torch.ones(128).to_sparse()}, "not a plain array"),
    "no weights": (lambda s: {"epoch": 3, "optimizer": {"lr": 0.1}}, "holds no weights; it holds epoch, optimizer"),
    "a list": (lambda s: list(s.values()), "holds a list, expected a dictionary of weights"),
    "a module": (lambda s: {"state_dict": s, "loss": Loss()}, "it holds a .*Loss, and unpickling that may run code"),
    "a path": (lambda s: {"state_dict": s, "at": __import__("pathlib").PurePosixPath("/x")}, "it holds a pathlib"),
}


@pytest.mark.filterwarnings("ignore::UserWarning")  # torch's, of sparse tensors
@pytest.mark.parametrize("how", REFUSED)
def test_a_checkpoint_that_does_not_fit_is_refused_with_what_differs(weights, tmp_path, how):
    make, message = REFUSED[how]
    torch.save(make(weights[0]), tmp_path / "x.pt")
    with pytest.raises(EncoderError, match=message) as error:
        load_encoder("mithridate-micro-vit", pretrained=str(tmp_path / "x.pt"))
    assert "\n" not in str(error.value)
    assert str(error.value).startswith("cannot load mithridate-micro-vit/")


# --- what a tag says -----------------------------------------------------------------------------------


@pytest.fixture
def tagged(monkeypatch):
    """Make `name` a model of open_clip with tags, each a dict as open_clip lists them."""

    def add(name, config, **tags):
        monkeypatch.setitem(open_clip.factory._MODEL_CONFIGS, name, config)
        monkeypatch.setitem(open_clip.pretrained._PRETRAINED, name, tags)

    return add


TEXT = {"context_length": 16, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 1}
VIT = {"image_size": 32, "layers": 1, "width": 64, "patch_size": 16, "head_width": 32}
MODEL = {"embed_dim": 24, "vision_cfg": VIT, "text_cfg": TEXT}
BROWN = {"mean": (0.1, 0.2, 0.3), "std": (0.9, 0.8, 0.7)}
TAGS = {
    "an activation": {"quick_gelu": True},
    "colours": BROWN,
    "a squash": {"resize_mode": "squash", "interpolation": "bilinear"},
    "a border": {"resize_mode": "longest", "fill_color": 200},
}


@pytest.mark.parametrize("how", TAGS)
def test_what_a_tag_says_reaches_the_model_by_tag_by_file_and_by_folder(tagged, tmp_path, how):
    model = stir(open_clip.CLIP(**copy.deepcopy(MODEL)))
    file = tmp_path / "weights.pt"
    torch.save(model.state_dict(), file)
    tagged("small", MODEL, one={"file": str(file), **TAGS[how]})
    want = theirs("small", "one", force_quick_gelu="quick_gelu" in TAGS[how])
    by_tag = load_encoder("small", pretrained="one")
    close(ours(by_tag), want)
    save_encoder(by_tag, tmp_path)
    file.rename(tmp_path / "elsewhere.ckpt")
    by_file = load_encoder("small", pretrained=str(tmp_path / "elsewhere.ckpt"))
    for again in (by_file, load_encoder(str(tmp_path))):
        close(ours(again), want)
        assert again.config == by_tag.config
    close(theirs(f"local-dir:{tmp_path}"), want)
    plain = theirs("small", str(tmp_path / "elsewhere.ckpt"))
    assert (plain[0] - want[0]).abs().max() > 1e-4


def test_a_file_of_a_model_whose_weights_differ_is_warned_of_and_takes_a_tag(tagged, tmp_path, caplog):
    torch.save(stir(open_clip.CLIP(**copy.deepcopy(MODEL))).state_dict(), tmp_path / "a=b.pt")
    file = str(tmp_path / "a=b.pt")
    tags = {"quick": {"file": file, "quick_gelu": True}, "brown": {"file": file, **BROWN}}
    tagged("small", MODEL, **tags)
    with caplog.at_level(logging.WARNING, logger="mithridate"):
        plain = load_encoder("small", pretrained=file)
    assert "quick_gelu: true (quick) or false (brown)" in caplog.text
    assert "--pretrained TAG=FILE" in caplog.text
    caplog.clear()
    for tag in tags:
        close(ours(load_encoder("small", pretrained=f"{tag}={file}")), ours(load_encoder("small", pretrained=tag)))
    assert not caplog.records
    assert (ours(plain)[0] - ours(load_encoder("small", pretrained=f"quick={file}"))[0]).abs().max() > 1e-4
    with pytest.raises(EncoderError, match=r"no pretrained weights 'red=.*its tags are quick, brown"):
        load_encoder("small", pretrained=f"red={file}")


# --- folders -------------------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path):
    made = tmp_path / "model"
    made.mkdir()
    save_encoder(load_encoder("mithridate-micro-vit", seed=1), made)
    return made


def test_a_checkpoint_beside_a_folder_takes_the_place_of_its_own(folder, weights, tmp_path):
    state, fingerprint = weights
    save_file(state, tmp_path / "other.safetensors")
    torch.save(state, folder / "epoch_4.pt")
    for file in (str(tmp_path / "other.safetensors"), "epoch_4.pt"):
        got = load_encoder(str(folder), pretrained=file)
        assert weights_fingerprint(got.model) == fingerprint
        assert got.name == f"local-dir:{folder}/{file}"
    (folder / "open_clip_model.safetensors").unlink()
    assert weights_fingerprint(load_encoder(str(folder)).model) == fingerprint
    torch.save(state, folder / "epoch_5.pt")
    with pytest.raises(EncoderError, match=r"holds 2 checkpoints \(epoch_4.pt, epoch_5.pt\); name one as --pretrained"):
        load_encoder(str(folder))


def test_an_option_that_would_not_be_used_is_refused(folder, tmp_path):
    for name, pretrained, message in (
        (str(folder), "laion2b", "--pretrained laion2b is no file"),
        ("hf-hub:org/name", "openai", "brings its own weights; leave --pretrained openai out"),
        ("mithridate-micro-vit", str(folder), "is a folder; give it as the model"),
    ):
        with pytest.raises(EncoderError, match=message):
            load_encoder(name, pretrained=pretrained)


def test_a_folder_that_exists_is_never_an_unknown_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine").mkdir()
    with pytest.raises(EncoderError, match=r"the folder holds nothing; expected open_clip_config.json"):
        load_encoder("mine")
    (tmp_path / "mine" / "pytorch_model.bin").write_bytes(b"x")
    with pytest.raises(EncoderError, match=r"the folder holds pytorch_model.bin; expected"):
        load_encoder("mine")
    with pytest.raises(EncoderError, match=r"is a file; for a checkpoint, name its model"):
        load_encoder("mine/pytorch_model.bin")
    (tmp_path / "mithridate-micro-vit").mkdir()  # a folder without a model does not hide the model of that name
    assert load_encoder("mithridate-micro-vit").name == "mithridate-micro-vit"


# --- every kind of model, saved and loaded without a network -------------------------------------------------

WORDS = ["a", "photo", "of", "two", "grey", "sheep", "word", "red", "green", "on", "hill"]


def write_tokenizer(folder, words=WORDS, *, pad=True, filler=0):
    """A fast tokenizer of whole words in `folder`; gives back the size of its vocabulary."""
    transformers = pytest.importorskip("transformers")
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

    names = ["<s>", "<pad>", "<unk>", *(f"filler{i}" for i in range(filler)), *words[:4], "</s>", *words[4:]]
    end = names.index("</s>")  # neither the largest id nor 2, which transformers takes for "the largest"
    made = Tokenizer(models.WordLevel({name: i for i, name in enumerate(names)}, unk_token="<unk>"))
    made.normalizer, made.pre_tokenizer = normalizers.Lowercase(), pre_tokenizers.Whitespace()
    made.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", end)]
    )
    special = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"} | ({"pad_token": "<pad>"} if pad else {})
    transformers.PreTrainedTokenizerFast(tokenizer_object=made, **special).save_pretrained(folder)
    return len(names)


def write_release(folder, config, preprocess=None, kind=open_clip.CLIP):
    """A model of `config`, every weight of it drawn, as open_clip releases one."""
    folder.mkdir(exist_ok=True)
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": config, "preprocess_cfg": preprocess or {}}))
    built = copy.deepcopy(config)
    built.pop("custom_text", None)
    if "hf_model_name" in built["text_cfg"]:
        built["text_cfg"]["hf_model_pretrained"] = False
    state = stir(kind(**built)).state_dict()
    save_file({name: x.contiguous() for name, x in state.items()}, folder / "open_clip_model.safetensors")
    return folder


def siglip(folder, **tokenizer):
    folder.mkdir()
    text = TEXT | {"vocab_size": write_tokenizer(folder, **tokenizer), "hf_tokenizer_name": "org/siglip"}
    text |= {
        "no_causal_mask": True,
        "proj_bias": True,
        "pool_type": "last",
        "tokenizer_kwargs": {"clean": "canonicalize"},
    }
    config = {"embed_dim": 24, "init_logit_bias": -10, "custom_text": True, "vision_cfg": VIT, "text_cfg": text}
    return write_release(
        folder, config, {"mean": 0.5, "std": [0.5] * 3, "resize_mode": "squash"}, open_clip.CustomTextCLIP
    )


def hf_tower(folder, kind="xlm-roberta", width=None, **tokenizer):
    transformers = pytest.importorskip("transformers")
    folder.mkdir()
    size = write_tokenizer(folder, **tokenizer)
    common = {"vocab_size": size, "pad_token_id": 1, "bos_token_id": 0, "eos_token_id": 2}
    if kind == "mt5":
        made = transformers.MT5Config(d_model=32, d_kv=16, d_ff=48, num_layers=1, num_heads=2, **common)
    elif kind == "m2m_100":
        sizes = {"encoder_layers": 1, "encoder_ffn_dim": 48, "encoder_attention_heads": 2, "decoder_layers": 3}
        made = transformers.M2M100Config(d_model=32, max_position_embeddings=100, decoder_ffn_dim=64, **sizes, **common)
    else:
        sizes = {"hidden_size": width or 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 48}
        made = transformers.CONFIG_MAPPING[kind](max_position_embeddings=100, **sizes, **common)
    made.save_pretrained(folder)
    text = {"hf_model_name": str(folder), "hf_tokenizer_name": str(folder), "context_length": 20}
    text |= {"hf_proj_type": None if width else "mlp"}
    text |= {"hf_pooler_type": "cls_pooler" if kind == "bert" else "mean_pooler"}
    return write_release(folder, {"embed_dim": 24, "vision_cfg": VIT, "text_cfg": text}, kind=open_clip.CustomTextCLIP)


def coca(folder):
    text = TEXT | {"embed_cls": True, "output_tokens": True}
    vision = VIT | {"attentional_pool": True, "attn_pooler_heads": 2, "output_tokens": True}
    config = {"embed_dim": 32, "custom_text": True, "vision_cfg": vision, "text_cfg": text, "multimodal_cfg": TEXT}
    return write_release(folder, config, kind=open_clip.CoCa)


KINDS = {
    "CLIP": lambda folder: write_release(folder, MODEL, {"fill_color": 99, "resize_mode": "longest"}),
    "ResNet": lambda folder: write_release(
        folder, MODEL | {"vision_cfg": {"layers": [1, 1, 1, 1], "width": 8, "image_size": 64}, "quick_gelu": True}
    ),
    "CustomTextCLIP": lambda folder: write_release(
        folder, MODEL | {"custom_text": True}, BROWN, open_clip.CustomTextCLIP
    ),
    "SigLIP": siglip,
    "XLM-RoBERTa": hf_tower,
    "BERT": lambda folder: hf_tower(folder, "bert"),
    "mT5": lambda folder: hf_tower(folder, "mt5"),
    "M2M-100": lambda folder: hf_tower(folder, "m2m_100"),
    "CoCa": coca,
}


@pytest.mark.parametrize("kind", KINDS)
def test_every_savable_model_loads_here_and_in_open_clip_with_the_same_embeddings(kind, tmp_path):
    made = KINDS[kind](tmp_path / "release")
    first = load_encoder(str(made))
    want = theirs(f"local-dir:{made}")
    close(ours(first), want)
    for saved in (tmp_path / "saved", tmp_path / "saved-again"):  # also what was saved from what was saved
        saved.mkdir()
        save_encoder(first, saved)
        close(theirs(f"local-dir:{saved}"), want)
        again = load_encoder(str(saved))
        close(ours(again), want)
        assert (again.recipe, again.config) == (first.recipe, first.config)
        assert weights_fingerprint(again.model) == weights_fingerprint(first.model)
        first = again
    # nothing of it lies in the folder that it came from
    made.rename(tmp_path / "gone")
    close(ours(load_encoder(str(tmp_path / "saved-again"))), want)


def test_a_text_tower_s_folder_may_be_written_elsewhere_than_it_will_lie(tmp_path):
    first = load_encoder(str(hf_tower(tmp_path / "release")))
    (tmp_path / "part").mkdir()
    save_encoder(first, tmp_path / "part", location=tmp_path / "model")
    (tmp_path / "part").rename(tmp_path / "model")
    close(theirs(f"local-dir:{tmp_path / 'model'}"), ours(first))
    (tmp_path / "model").rename(tmp_path / "moved")
    close(ours(load_encoder(str(tmp_path / "moved"))), ours(first))


@pytest.mark.parametrize("tower", ["image", "text"])
@pytest.mark.parametrize("kind", ["SigLIP", "XLM-RoBERTa", "mT5", "CoCa", "no projection"])
@torch.no_grad()
def test_trunk_and_projection_make_the_tower_of_every_kind(kind, tower, tmp_path):
    # a text tower as wide as the embeddings may have an identity for a projection
    write = KINDS.get(kind, lambda folder: hf_tower(folder, width=24))
    encoder = load_encoder(str(write(tmp_path / "model")))
    model = encoder.model
    if tower == "text":
        given, run = encoder.tokenizer(CAPTIONS), text_embedding
    else:
        pixels = np.stack([encoder.to_pixels(image) for image in photographs()])
        given, run = encoder.normalise(torch.from_numpy(pixels)), image_embedding
    whole = run(model, given)
    with without_projection(model, tower):
        features = run(model, given)
    assert features.shape != whole.shape or kind == "no projection" or (features - whole).abs().max() > 0.01
    close([project(model, tower, features)], [whole])
    close([run(model, given)], [whole])  # it is put back


@pytest.mark.parametrize("kind", ["CoCa", "XLM-RoBERTa"])
def test_models_without_a_shortcut_train_and_load_again(kind, tmp_path, train_pairs):
    start = load_encoder(str(KINDS[kind](tmp_path / "start")))
    before = weights_fingerprint(start.model)
    config = TrainConfig(epochs=1, batch_size=18, precision="fp32", freeze=("text-trunk",))
    trained = train(start, train_pairs, config=config, out=tmp_path / "run")
    assert weights_fingerprint(trained.model) != before
    again = load_encoder(str(tmp_path / "run"))
    close(ours(again), ours(trained))
    close(theirs(f"local-dir:{tmp_path / 'run' / 'model'}"), ours(trained))


def test_a_missing_extra_is_named(tmp_path, monkeypatch):
    folder = siglip(tmp_path / "model")
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(EncoderError, match=r'needs transformers; run: pip install "mithridate\[hf\]"'):
        load_encoder(str(folder))


# --- Hugging Face's CLIPModel ----------------------------------------------------------------------------


HF_CLIPS = {
    "as OpenAI's": ({"hidden_act": "quick_gelu"}, {"hidden_act": "quick_gelu", "eos_token_id": 2}),
    "another activation": ({"hidden_act": "gelu"}, {"hidden_act": "gelu", "eos_token_id": 7, "layer_norm_eps": 1e-3}),
}


def write_hf_clip(folder, vocabulary, vision, text):
    """Hugging Face's CLIPModel in `folder`, every weight of it drawn."""
    transformers = pytest.importorskip("transformers")
    sizes = {"num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 80, "projection_dim": 24}
    text = (
        {"vocab_size": vocabulary, "bos_token_id": 0, "hidden_size": 32, "max_position_embeddings": 16} | sizes | text
    )
    vision = {"hidden_size": 64, "image_size": 32, "patch_size": 16} | sizes | vision
    config = transformers.CLIPConfig(text_config=text, vision_config=vision, projection_dim=24)
    model = stir(transformers.CLIPModel(config)).eval()
    model.save_pretrained(folder)
    colours = {"image_mean": [0.1, 0.2, 0.3], "image_std": [0.5] * 3, "resample": 2}
    processor = {"size": {"shortest_edge": 32}, "crop_size": {"height": 32, "width": 32}} | colours
    (folder / "preprocessor_config.json").write_text(json.dumps(processor))
    return model


@torch.no_grad()
def by_transformers(model, encoder):
    pixels = torch.from_numpy(np.stack([encoder.to_pixels(image) for image in photographs()]))
    images = model.get_image_features(pixel_values=encoder.normalise(pixels)).pooler_output
    return unit(images), unit(model.get_text_features(input_ids=encoder.tokenizer(CAPTIONS)).pooler_output)


@pytest.mark.parametrize("how", HF_CLIPS)
def test_hugging_face_s_clip_in_a_folder_is_converted(how, tmp_path):
    vision, text = HF_CLIPS[how]
    folder, saved = tmp_path / "clip", tmp_path / "saved"
    model = write_hf_clip(folder, write_tokenizer(folder), vision, text)
    encoder = load_encoder(str(folder))
    preprocess = encoder.config["preprocess_cfg"]
    assert (preprocess["interpolation"], preprocess["mean"]) == ("bilinear", (0.1, 0.2, 0.3))
    close(ours(encoder), by_transformers(model, encoder))
    saved.mkdir()
    save_encoder(encoder, saved)
    close(theirs(f"local-dir:{saved}"), ours(encoder))
    close(ours(load_encoder(str(saved))), ours(encoder))


def test_a_file_of_hugging_face_s_clip_is_converted_for_a_model_that_is_named(tmp_path, tagged):
    model = write_hf_clip(tmp_path, 49408, *HF_CLIPS["as OpenAI's"])
    sizes = {"layers": 2, "mlp_ratio": 80 / 64}
    config = {"embed_dim": 24, "vision_cfg": VIT | sizes, "text_cfg": TEXT | {"layers": 2, "mlp_ratio": 80 / 32}}
    tagged("small", config | {"quick_gelu": True})
    encoder = load_encoder("small", pretrained=str(tmp_path / "model.safetensors"))
    close(ours(encoder), by_transformers(model, encoder))
    # without tokenizer files, a vocabulary of CLIP's size is CLIP's
    close([ours(load_encoder(str(tmp_path)))[1]], [ours(encoder)[1]])


@pytest.mark.parametrize(
    ("file", "key", "value", "message"),
    [
        ("config.json", "model_type", "siglip", "describes a 'siglip' model; of Hugging Face's models, only CLIPModel"),
        ("config.json", "projection_dim", 2**40, "projection_dim is '1099511627776', expected a whole number"),
        ("config.json", "vision_config", {"hidden_act": "relu"}, "hidden_act is"),
        ("config.json", "vision_config", {"hidden_act": ["gelu"]}, "hidden_act is"),
        ("config.json", "text_config", [1], "not objects of settings"),
        ("config.json", "text_config", {"eos_token_id": [2]}, "eos_id is wrong"),
        ("config.json", "text_config", {"layer_norm_eps": "1e-5"}, "eps is wrong"),
        ("preprocessor_config.json", "resample", [2], "its size, crop_size or resample is not"),
        ("preprocessor_config.json", "size", {"longest_edge": {}}, "its size, crop_size or resample is not"),
        ("preprocessor_config.json", "do_rescale", False, "do_rescale is not what open_clip can do"),
        ("preprocessor_config.json", "image_std", [0, 1, 1], "std.0 is wrong"),
    ],
)
def test_what_open_clip_cannot_do_of_hugging_face_s_clip_is_refused(tmp_path, file, key, value, message):
    write_hf_clip(tmp_path, 49408, *HF_CLIPS["as OpenAI's"])
    content = json.loads((tmp_path / file).read_text())
    (tmp_path / file).write_text(json.dumps(content | {key: value}))
    with pytest.raises(EncoderError, match=message):
        load_encoder(str(tmp_path))


# --- tokens ----------------------------------------------------------------------------------------------


def test_ids_beyond_sixteen_bits_are_kept(tmp_path):
    encoder = load_encoder(str(hf_tower(tmp_path / "wide", filler=66_000)))
    narrow = load_encoder(str(hf_tower(tmp_path / "narrow")))
    for each, kind in ((encoder, np.int32), (narrow, np.uint16)):
        want = each.tokenizer(CAPTIONS).numpy()
        tokens, index = tokenise(each, pa.array(CAPTIONS), cache=tmp_path / "cache")
        assert tokens.dtype == kind
        assert (tokens[index] == want).all()
        close([embed_tokens(each, tokens)[index]], [ours(each)[1]])
    assert int(encoder.tokenizer(CAPTIONS).max()) > 2**16


def test_tokens_are_cached_by_what_the_tokenizer_is(tmp_path):
    texts = pa.array(CAPTIONS)
    one, two = (load_encoder(str(siglip(tmp_path / name, words=w))) for name, w in (("1", WORDS), ("2", WORDS[::-1])))
    assert one.config["model_cfg"] == two.config["model_cfg"]
    for each in (one, two, one):
        tokens, index = tokenise(each, texts, cache=tmp_path / "cache")
        assert (tokens[index] == each.tokenizer(CAPTIONS).numpy()).all()
    kept = sorted((tmp_path / "cache").iterdir())
    assert len(kept) == 2
    # the same tokenizer in another folder, and another length of the same
    save_encoder(one, tmp_path / "1")
    again = load_encoder(str(tmp_path / "1"))
    assert again.tokenizer.fingerprint == one.tokenizer.fingerprint != two.tokenizer.fingerprint
    tokenise(again, texts, cache=tmp_path / "cache")
    assert sorted((tmp_path / "cache").iterdir()) == kept
    clip, longer = load_encoder("mithridate-micro-vit").tokenizer, load_tokenizer({"context_length": 77}, None)
    assert clip.fingerprint != longer.fingerprint
    assert load_tokenizer({"context_length": 32}, None).fingerprint == clip.fingerprint


def test_captions_that_only_differ_in_where_one_ends_are_cached_apart(tmp_path):
    encoder = load_encoder("mithridate-micro-vit")
    for texts in (["a\0b"], ["a", "b"], ["ab"], ["a", "b\0"]):
        tokens, index = tokenise(encoder, pa.array(texts), cache=tmp_path)
        assert (tokens[index] == encoder.tokenizer(texts).numpy()).all()


def _set(folder, **values):
    """Change settings of the text tower in `folder`."""
    path = folder / "open_clip_config.json"
    content = json.loads(path.read_text())
    content["model_cfg"]["text_cfg"] |= values
    path.write_text(json.dumps(content))


def test_a_tokenizer_that_does_not_fit_its_text_tower_is_refused_when_it_is_loaded(tmp_path):
    with pytest.raises(EncoderError, match=r"cannot pad or cut captions to one length: Asking to pad"):
        load_encoder(str(siglip(tmp_path / "no-pad", pad=False)))
    other = siglip(tmp_path / "other")
    write_tokenizer(other, filler=50)
    with pytest.raises(EncoderError, match=r"gives ids up to \d+, but the text tower has embeddings of 15 tokens"):
        load_encoder(str(other))
    no_files = siglip(tmp_path / "none")
    (no_files / "tokenizer.json").unlink()
    with pytest.raises(EncoderError, match=r"holds no tokenizer"):
        load_encoder(str(no_files))
    few = write_release(tmp_path / "few", MODEL | {"text_cfg": TEXT | {"vocab_size": 1000}})
    with pytest.raises(EncoderError, match=r"gives ids up to 49407, but the text tower has embeddings of 1000 tokens"):
        load_encoder(str(few))
    long = hf_tower(tmp_path / "long")  # positions for 100 tokens
    _set(long, context_length=400)
    with pytest.raises(EncoderError, match=r"it is built, but does not embed"):
        load_encoder(str(long))


def test_a_caption_whose_token_the_text_tower_does_not_know_is_named(tmp_path):
    """As with the <extra_id_0> of T5's vocabulary: no plain caption has it."""
    encoder = load_encoder(str(siglip(tmp_path / "model")))
    write_tokenizer(tmp_path / "more", [*WORDS, "zebra"])
    wider = replace(encoder, tokenizer=load_tokenizer({"context_length": 16}, tmp_path / "more"))
    tokenise(wider, pa.array(["a photo", "two sheep"]), cache=None)
    with pytest.raises(
        EncoderError, match=r"the caption 'a zebra' has the token 15, but the text tower of .* of 15 tokens"
    ):
        tokenise(wider, pa.array(["a photo", "a zebra"]), cache=None)


# --- the hub ---------------------------------------------------------------------------------------------


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """Put a folder into a cache of the Hugging Face hub under a repository's name; the hub itself is out of reach."""
    constants = pytest.importorskip("huggingface_hub.constants")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)

    def add(repository, folder):
        kept = tmp_path / "hub" / f"models--{repository.replace('/', '--')}"
        (kept / "refs").mkdir(parents=True)
        (kept / "refs" / "main").write_text("a")
        (kept / "snapshots").mkdir()
        shutil.copytree(folder, kept / "snapshots" / "a")

    return add


def test_models_of_the_hub_take_their_parts_from_the_repositories_that_they_name(hub, tmp_path):
    made = siglip(tmp_path / "siglip")
    hub("org/siglip", made)
    close(ours(load_encoder("hf-hub:org/siglip")), ours(load_encoder(str(made))))
    tower = hf_tower(tmp_path / "tower")
    want = ours(load_encoder(str(tower)))
    _set(tower, hf_model_name="org/text", hf_tokenizer_name="org/words")
    (tmp_path / "words").mkdir()
    for path in tower.glob("tokenizer*"):
        path.rename(tmp_path / "words" / path.name)
    (tmp_path / "text").mkdir()
    (tower / "config.json").rename(tmp_path / "text" / "config.json")
    for name in ("tower", "words", "text"):
        hub(f"org/{name}", tmp_path / name)
    encoder = load_encoder("hf-hub:org/tower")
    close(ours(encoder), want)
    (tmp_path / "saved").mkdir()
    save_encoder(encoder, tmp_path / "saved")
    close(ours(load_encoder(str(tmp_path / "saved"))), want)
    with pytest.raises(EncoderError, match=r"cannot fetch org/absent from the Hugging Face hub"):
        load_encoder("hf-hub:org/absent")
    with pytest.raises(EncoderError, match=r"is no repository"):
        load_encoder("hf-hub:../../etc")


def test_a_name_of_open_clip_takes_its_tokenizer_from_the_hub(hub, tmp_path, tagged):
    made = siglip(tmp_path / "siglip")
    hub("org/siglip", made)
    config = json.loads((made / "open_clip_config.json").read_text())
    tag = {"file": str(made / "open_clip_model.safetensors"), **config["preprocess_cfg"]}
    tagged("small-siglip", config["model_cfg"], webli=tag)
    close(ours(load_encoder("small-siglip", pretrained="webli")), ours(load_encoder(str(made))))
    tagged("small-other", config["model_cfg"], webli={"hf_hub": "org/absent/", "mean": None})
    with pytest.raises(EncoderError, match=r"cannot load small-other/webli: cannot fetch its weights"):
        load_encoder("small-other", pretrained="webli")


# --- what is published -----------------------------------------------------------------------------------


PUBLISHED = {
    "OpenAI's": ("ViT-B-32", "openai"),
    "SigLIP's": ("ViT-B-16-SigLIP", "webli"),
    "MobileCLIP's": ("MobileCLIP2-S0", "dfndr2b"),
}
SMALLER = {
    "vision_cfg": {"layers": 1, "width": 64, "head_width": 32, "timm_model_name": "test_vit", "timm_pool": "avg"},
    "text_cfg": {"layers": 1, "width": 64, "heads": 2},
}


def smaller(config):
    """A published configuration with towers of one small block; what is no size stays."""
    made = copy.deepcopy(config)
    for tower, sizes in SMALLER.items():
        made[tower] |= {key: value for key, value in sizes.items() if key in made[tower]}
    if "timm_model_name" in made["vision_cfg"]:
        made["vision_cfg"] |= {"image_size": 160, "timm_proj": "linear"}
    return made


def same_by_tag_by_folder_and_by_file(name, tag, tmp_path, hub, tagged):
    """Random weights of the model `name` give open_clip's own embeddings however they are named."""
    listed = open_clip.get_pretrained_cfg(*PUBLISHED_AS.get(name, (name, tag)))
    config, tokenizer = open_clip.get_model_config(name), None
    if "hf_tokenizer_name" in config["text_cfg"]:
        words = tmp_path / "words"
        write_tokenizer(words)
        hub(config["text_cfg"]["hf_tokenizer_name"], words)
        options = config["text_cfg"].get("tokenizer_kwargs", {})
        tokenizer = open_clip.tokenizer.HFTokenizer(str(words), config["text_cfg"]["context_length"], **options)
    torch.manual_seed(0)
    file = tmp_path / "weights.pt"
    torch.save(open_clip.create_model(name).state_dict(), file)
    tagged(name, config, **{tag: {**listed, "file": str(file)}})
    want = theirs(name, tag, tokenizer, force_quick_gelu=listed.get("quick_gelu", False))
    by_tag = load_encoder(name, pretrained=tag)
    close(ours(by_tag), want)
    (tmp_path / "folder").mkdir()
    save_encoder(by_tag, tmp_path / "folder")
    del by_tag
    for given in (str(file), f"{tag}={file}"):
        close(ours(load_encoder(name, pretrained=given)), want)
    close(ours(load_encoder(str(tmp_path / "folder"))), want)
    close(theirs(f"local-dir:{tmp_path / 'folder'}"), want)


PUBLISHED_AS = {f"small {name}": (name, tag) for name, tag in PUBLISHED.values()}


@pytest.mark.parametrize("whose", PUBLISHED)
def test_published_configurations_made_small_give_open_clip_s_embeddings(whose, tmp_path, hub, tagged):
    name, tag = PUBLISHED[whose]
    tagged(f"small {name}", smaller(open_clip.get_model_config(name)))
    same_by_tag_by_folder_and_by_file(f"small {name}", tag, tmp_path, hub, tagged)


@pytest.mark.slow
@pytest.mark.parametrize("whose", PUBLISHED)
def test_published_configurations_give_open_clip_s_embeddings(whose, tmp_path, hub, tagged):
    same_by_tag_by_folder_and_by_file(*PUBLISHED[whose], tmp_path, hub, tagged)
