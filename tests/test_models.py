"""Models as people have them: what a tag, a folder or a file says reaches the model, and nothing a stranger's file says
runs, reaches a network or takes memory that its weights do not fill."""

# pyright: reportArgumentType=false, reportCallIssue=false, reportAttributeAccessIssue=false
# pyright: reportOptionalMemberAccess=false
# (open_clip and torch give unions of what their functions may give back)

import copy
import json
import logging

import numpy as np
import open_clip
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from mithridate.encoder.encoder import load_encoder, save_encoder, weights_fingerprint
from mithridate.errors import EncoderError

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
def theirs(name, pretrained=None, **options):
    """open_clip's own way, from a name to embeddings."""
    model, _, transform = open_clip.create_model_and_transforms(name, pretrained, **options)
    model.eval()
    tokens = open_clip.get_tokenizer(name)(CAPTIONS)
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


def hf_tower(folder, kind="xlm-roberta", **tokenizer):
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
        sizes = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 48}
        made = transformers.CONFIG_MAPPING[kind](max_position_embeddings=100, **sizes, **common)
    made.save_pretrained(folder)
    text = {"hf_model_name": str(folder), "hf_tokenizer_name": str(folder), "context_length": 20, "hf_proj_type": "mlp"}
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
    for number in range(2):  # also what was saved from what was saved
        saved = tmp_path / f"saved-{number}"
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
    close(ours(load_encoder(str(saved))), want)


def test_a_text_tower_s_folder_may_be_written_elsewhere_than_it_will_lie(tmp_path):
    first = load_encoder(str(hf_tower(tmp_path / "release")))
    (tmp_path / "part").mkdir()
    save_encoder(first, tmp_path / "part", location=tmp_path / "model")
    (tmp_path / "part").rename(tmp_path / "model")
    close(theirs(f"local-dir:{tmp_path / 'model'}"), ours(first))
    (tmp_path / "model").rename(tmp_path / "moved")
    close(ours(load_encoder(str(tmp_path / "moved"))), ours(first))


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
        ("config.json", "text_config", [1], "not objects of settings"),
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
