"""Models of strangers: nothing their files say runs, reaches a network or takes memory that the weights do not fill."""

# pyright: reportArgumentType=false, reportCallIssue=false, reportAttributeAccessIssue=false
# pyright: reportOptionalMemberAccess=false, reportFunctionMemberAccess=false, reportOptionalSubscript=false
# (open_clip and torch give unions of what their functions may give back)

import copy
import io
import json
import os
import resource
import zipfile

import numpy as np
import pytest
import torch

from mithridate.encoder.encoder import load_encoder
from mithridate.errors import EncoderError
from test_models import MODEL, TEXT, VIT, _set, hf_tower, no_network, ours, siglip, write_release

__all__ = ["no_network"]  # a fixture for every test here


# --- what a stranger's folder may say --------------------------------------------------------------------


CODE = """
from pathlib import Path
Path({where!r}).write_text("it ran")
from transformers import PreTrainedTokenizerFast as Custom, XLMRobertaConfig as Config, XLMRobertaModel as Model
"""


@pytest.mark.parametrize(
    "file", ["tokenizer_config.json", "config.json", "special_tokens_map.json", "tokenizer_kwargs"]
)
@pytest.mark.parametrize("kind", [siglip, hf_tower])
def test_code_in_a_folder_never_runs(kind, file, tmp_path):
    folder = kind(tmp_path / "model")
    (folder / "custom.py").write_text(CODE.format(where=str(tmp_path / "ran")))
    maps = {"AutoTokenizer": [None, "custom.Custom"], "AutoConfig": "custom.Config", "AutoModel": "custom.Model"}
    if file == "tokenizer_kwargs":
        _set(folder, tokenizer_kwargs={"trust_remote_code": True})
    else:
        path = folder / file
        content = json.loads(path.read_text()) if path.is_file() else {"model_type": "custom"}
        path.write_text(json.dumps(content | {"auto_map": maps, "tokenizer_class": "Custom"}))
        _set(folder, tokenizer_kwargs={})
    if kind is siglip and file == "config.json":  # it has no Hugging Face text tower: the file is not read
        load_encoder(str(folder))
    else:
        with pytest.raises(EncoderError, match=r"auto_map|trust_remote_code"):
            load_encoder(str(folder))
    assert not (tmp_path / "ran").exists()


def test_a_folder_never_reaches_a_hub_nor_another_folder(tmp_path, monkeypatch):
    for number, name in enumerate(("org/text-tower", "hf-hub:org/text-tower", str(tmp_path / "elsewhere"))):
        folder = hf_tower(tmp_path / f"text-{number}")
        _set(folder, hf_model_name=name, hf_tokenizer_name=name)
        want = ours(load_encoder(str(folder)))  # its own files are what counts
        assert all(x.isfinite().all() for x in want)
        (folder / "config.json").unlink()
        with pytest.raises(EncoderError, match=r"config.json cannot be read: No such file"):
            load_encoder(str(folder))
    for name in (
        "hf-hub:timm/vit_tiny",
        "hf_hub:timm/vit_tiny",
        "local-dir:/etc",
        "/etc/passwd",
        "vit/../tiny",
        "vit-9",
    ):
        folder = tmp_path / name.replace("/", "_")
        write_release(folder, MODEL)
        path = folder / "open_clip_config.json"
        content = json.loads(path.read_text())
        content["model_cfg"]["vision_cfg"]["timm_model_name"] = name
        path.write_text(json.dumps(content))
        with pytest.raises(EncoderError, match=r"timm_model_name is wrong: .*expected the name of a timm model"):
            load_encoder(str(folder))


SETTINGS = {
    "model_cfg.embed_dim": [0, -1, 10**9, 24.5, "24", None, True],
    "model_cfg.cast_dtype": ["torch.float16"],
    "model_cfg.custom_text": ["yes", 1],
    "model_cfg.vision_cfg": [
        None,
        [],
        {"layers": 10**6},
        {"image_size": 10**5},
        {"image_size": [32]},
        {"patch_size": 0},
    ],
    "model_cfg.vision_cfg.head_width": [0, 48.5],
    "model_cfg.vision_cfg.act_kwargs": [{"inplace": True}, {"approximate": "os"}],
    "model_cfg.vision_cfg.norm_kwargs": [{"eps": -1}, {"elementwise_affine": False}],
    "model_cfg.vision_cfg.timm_pool": ["a" * 100, {"a": 1}],
    "model_cfg.vision_cfg.patch_dropout": [2, float("nan"), float("inf")],
    "model_cfg.text_cfg.vocab_size": [10**12, -5, "49408"],
    "model_cfg.text_cfg.context_length": [1, 10**9],
    "model_cfg.text_cfg.tokenizer_kwargs": [
        {"bpe_path": "/etc/passwd"},
        {"reduction_mask": "random"},
        [],
        {"clean": "x"},
    ],
    "model_cfg.text_cfg.tokenizer_mode": ["__import__"],
    "model_cfg.text_cfg.pool_type": ["eval"],
    "model_cfg.text_cfg.heads": [0, 3],
    "model_cfg.init_logit_scale": [1e9, float("nan")],
    "preprocess_cfg.std": [0, [1, 1, 0], [1, 1], [1e-9] * 3, "1"],
    "preprocess_cfg.mean": [float("inf"), [0.5], [1e9] * 3],
    "preprocess_cfg.interpolation": ["nearest", "lanczos", 3],
    "preprocess_cfg.resize_mode": ["crop"],
    "preprocess_cfg.fill_color": [-1, 256, 1.5],
    "preprocess_cfg.mode": ["L"],
    "preprocess_cfg.exec": ["x"],
}


@pytest.mark.parametrize("key", SETTINGS)
def test_a_setting_that_no_model_has_is_refused_in_one_sentence_that_names_it(key, tmp_path):
    folder = write_release(tmp_path / "model", MODEL)
    path = folder / "open_clip_config.json"
    *parents, last = key.split(".")
    for value in SETTINGS[key]:
        content = {"model_cfg": copy.deepcopy(MODEL), "preprocess_cfg": {}}
        section = content
        for name in parents:
            section = section[name]
        section[last] = section[last] | value if last == "vision_cfg" and value else value
        path.write_text(json.dumps(content))
        with pytest.raises(EncoderError, match=r"^cannot load local-dir:") as error:
            load_encoder(str(folder))
        assert last in str(error.value) or "describes no model" in str(error.value), value
        assert "\n" not in str(error.value)
        assert len(str(error.value)) < 600


@pytest.mark.parametrize(
    "raw",
    [b"", b"{", b"\xff\xfe{}", b"[]", b"null", b'{"model_cfg": 3}', b"[" * 200_000, b'{"a": "' + b"x" * 2**21 + b'"}'],
    ids=lambda raw: repr(raw[:10]),
)
def test_a_configuration_that_is_none_is_refused_in_one_sentence(raw, tmp_path):
    folder = write_release(tmp_path / "model", MODEL)
    (folder / "open_clip_config.json").write_bytes(raw)
    with pytest.raises(EncoderError, match=r"^cannot load local-dir:") as error:
        load_encoder(str(folder))
    assert "\n" not in str(error.value)


GIANTS = {
    "wide": {"vision_cfg": VIT | {"width": 16384, "layers": 200, "head_width": 64}},
    "many words": {"text_cfg": TEXT | {"vocab_size": 2**22, "width": 16384, "heads": 64}},
    "timm's largest": {"vision_cfg": {"timm_model_name": "eva02_enormous_patch14_clip_224", "image_size": 224}},
    "many patches": {"vision_cfg": VIT | {"image_size": 512, "patch_size": 4, "width": 8192}},
}


@pytest.mark.parametrize("how", GIANTS)
def test_a_gigantic_model_with_small_weights_takes_no_memory(how, tmp_path):
    folder = write_release(tmp_path / "model", MODEL)
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": MODEL | GIANTS[how]}))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(EncoderError, match=r"the checkpoint does not fit the model"):
        load_encoder(str(folder))
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 300_000  # KiB; they would take gigabytes


def test_a_gigantic_text_tower_of_hugging_face_takes_no_memory(tmp_path):
    folder = hf_tower(tmp_path / "mt5", "mt5")
    path = folder / "config.json"
    content = json.loads(path.read_text())
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for values in (
        {"d_model": 16384, "num_layers": 100},
        {"vocab_size": 2**22},
        {"num_decoder_layers": 200, "d_ff": 2**20},
    ):
        path.write_text(json.dumps(content | values))
        with pytest.raises(EncoderError, match=r"the checkpoint does not fit the model"):
            load_encoder(str(folder))
    for values in (
        {"num_layers": 10**6},
        {"d_ff": 2**40},
        {"feed_forward_proj": "os.system"},
        {"attn_implementation": "a/b"},
    ):
        path.write_text(json.dumps(content | values))
        with pytest.raises(EncoderError, match=next(iter(values))):
            load_encoder(str(folder))
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 300_000


# --- a stranger's checkpoint -----------------------------------------------------------------------------


def _archive(path, edit):
    """`torch.save`'s archive in `path`, its pickled part changed by `edit`."""
    with zipfile.ZipFile(path) as archive:
        parts = {entry.filename: archive.read(entry) for entry in archive.infolist()}
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in parts.items():
            archive.writestr(name, edit(content) if name.endswith("data.pkl") else content)


def _numel(content):
    # 5 values of the record become 2^45: a long integer of pickle's
    assert content.count(b"K\x05t") >= 1
    return content.replace(b"K\x05t", b"\x8a\x06" + (2**45).to_bytes(6, "little") + b"t").replace(
        b"K\x05\x85", b"\x8a\x06" + (2**45).to_bytes(6, "little") + b"\x85"
    )


def _save_deflated(path):
    torch.save({"x": torch.ones(5)}, path)
    with zipfile.ZipFile(path) as archive:
        parts = {entry.filename: archive.read(entry) for entry in archive.infolist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in parts.items():
            archive.writestr(name, content)


def _save_promising(path):
    torch.save({"x": torch.ones(5)}, path)
    _archive(path, _numel)


def _npz():
    raw = io.BytesIO()
    np.savez(raw, a=np.ones(3))
    return raw.getvalue()


def _save_scripted(path):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("model/code/__torch__.py", "x")
        archive.writestr("model/data.pkl", "x")


FOREIGN = {
    "empty": (lambda path: path.write_bytes(b""), "x.pt is empty"),
    "text": (lambda path: path.write_text("not a model\n" * 99), "x.pt cannot be read as a checkpoint"),
    "a web page": (lambda path: path.write_text("<html>404</html>"), "x.pt cannot be read as a checkpoint"),
    "a pointer": (lambda path: path.write_text("version https://git-lfs.github.com/spec/v1\n"), "run: git lfs pull"),
    "noise": (lambda path: path.write_bytes(bytes(range(256)) * 99), "x.pt cannot be read as a checkpoint"),
    "half an archive": (
        lambda path: path.write_bytes(b"PK\x03\x04" + b"\0" * 99),
        "x.pt cannot be read as a checkpoint",
    ),
    "numpy's archive": (
        lambda path: path.write_bytes(_npz()),
        "zip archive, but not one that torch.save",
    ),
    "a program": (_save_scripted, "is a TorchScript program"),
    "deflated": (_save_deflated, "that torch.save did not write"),
    "46 TiB": (_save_promising, "x.pt (cannot be read as a checkpoint|holds)|out of bounds"),
    "a long header": (
        lambda path: path.write_bytes((2**46).to_bytes(8, "little") + b"{" + b" " * 99),
        "x.pt cannot be read as a checkpoint",
    ),
    "a header's 46 TiB": (
        lambda path: path.write_bytes(
            len(raw := b'{"x":{"dtype":"F32","shape":[3518437208883],"data_offsets":[0,14073748835532]}}').to_bytes(
                8, "little"
            )
            + raw
        ),
        "x.pt cannot be read as a checkpoint",
    ),
    "deep": (lambda path: torch.save(_deep(), path), "x.pt (cannot be read|holds no weights)"),
    "an old pickle": (lambda path: path.write_bytes(b"cos\nsystem\n(S'true'\ntR."), "x.pt cannot be read"),
}


def _deep(levels=300):
    value = {}
    for _ in range(levels):
        value = {"x": value}
    return value


@pytest.mark.parametrize("how", FOREIGN)
def test_a_file_that_is_no_checkpoint_is_refused_in_one_sentence(how, tmp_path):
    write, message = FOREIGN[how]
    write(tmp_path / "x.pt")
    with pytest.raises(EncoderError, match=message) as error:
        load_encoder("mithridate-micro-vit", pretrained=str(tmp_path / "x.pt"))
    assert "\n" not in str(error.value) and "weights_only" not in str(error.value).replace("weights_only=False)['", "")


def test_a_pipe_or_a_device_is_no_checkpoint(tmp_path):
    os.mkfifo(tmp_path / "pipe.pt")
    for path in (tmp_path / "pipe.pt", "/dev/zero"):
        with pytest.raises(EncoderError, match=r"no pretrained weights"):
            load_encoder("mithridate-micro-vit", pretrained=str(path))
    folder = write_release(tmp_path / "model", MODEL)
    (folder / "open_clip_model.safetensors").unlink()
    os.mkfifo(folder / "open_clip_model.safetensors")
    with pytest.raises(EncoderError, match=r"the folder has no weights|is not a file"):
        load_encoder(str(folder))
