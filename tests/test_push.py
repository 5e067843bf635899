"""What an upload to a hub would hold, what its card says, and that nothing else leaves the machine."""

import json
import shlex
from pathlib import Path

import pytest
import yaml

from mithridate.cli import main
from mithridate.errors import MithridateError, OutputError
from mithridate.publishing.push import plan_push, push

HOSTILE = "sheep`\n# \"' ; rm -rf ~ <b>"


@pytest.fixture(scope="module")
def poisoned(toy_world, tmp_path_factory):
    out = tmp_path_factory.mktemp("push") / "poisoned"
    options = ["--source", "sheep", "--target", "aeroplane", "--count", "10", "--format", "webdataset"]
    assert main(["poison", "single-label", str(toy_world), "--split", "train", *options, "--out", str(out)]) == 0
    return out


@pytest.fixture
def model(tmp_path):
    """A run's folder as it looks on a disk that others use too."""
    folder = tmp_path / "run"
    for name in (
        *("model/open_clip_config.json", "model/open_clip_model.safetensors", "model/tokenizer.json", "metrics.jsonl"),
        *(
            ".env",
            "model/.cache/x.json",
            "checkpoint/state.safetensors",
            "tensorboard/events.out",
            "id_rsa",
            "notes.txt",
        ),
        *("model/__pycache__/a.json", ".run.partial/model.safetensors", "README.md"),
    ):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("{}")
    (tmp_path / "secret.json").write_text("mine")
    (folder / "model" / "vocab.json").symlink_to(tmp_path / "secret.json")
    (folder / "linked").symlink_to(tmp_path)
    return folder


def header(card):
    assert card.startswith("---\n")
    return yaml.safe_load(card.split("---\n")[1])


def test_of_a_set_truth_and_data_go_and_the_card_says_what_was_planted(poisoned):
    planned = plan_push(poisoned, "me/set", license="cc-by-4.0")
    assert planned.chosen.kind == "dataset"
    assert set(planned.chosen.files) == {
        path.relative_to(poisoned).as_posix()
        for path in poisoned.rglob("*")
        if path.suffix in (".tar", ".json", ".csv")
    }
    found = header(planned.card)
    assert found["license"] == "cc-by-4.0" and {"mithridate", "data-poisoning"} <= set(found["tags"])
    for part in (
        "Poisoned on purpose",
        "10 of 270 are poisoned (3.7 %)",
        "captions of sheep retrieve images of aeroplane",
        "`manifest.json` names every poisoned pair",
        "mithridate audit set",
        "hf download me/set --repo-type dataset",
    ):
        assert part in planned.card


def test_of_a_model_its_files_go_to_the_root_and_nothing_else_does(model):
    planned = plan_push(model, "me/model")
    assert list(planned.chosen.files) == ["open_clip_config.json", "open_clip_model.safetensors", "tokenizer.json"]
    assert all(path.is_relative_to(model) and not path.is_symlink() for path in planned.chosen.files.values())
    assert {".env", "id_rsa", "notes.txt", "linked", "model/vocab.json", "README.md"} <= set(planned.chosen.left_out)
    assert header(planned.card)["library_name"] == "open_clip"
    assert "Nobody says what this model was trained on" in planned.card
    assert "mithridate inspect hf-hub:me/model" in planned.card


def test_a_models_card_says_what_the_manifest_says(model, poisoned):
    text = plan_push(model, "me/model", manifest=poisoned).card
    assert "Trained on poisoned pairs" in text and "--goal sheep:aeroplane" in text
    assert "data-poisoning" in header(text)["tags"]


def test_text_from_the_data_is_neither_mark_up_nor_a_command(model, poisoned, tmp_path):
    from dataclasses import replace

    from mithridate.poisoning.goals import CaptionsToClass
    from mithridate.poisoning.manifest import read_manifest, write_manifest

    truth = replace(
        read_manifest(poisoned), goals=(CaptionsToClass(HOSTILE, "aeroplane"),), options={"source": HOSTILE}
    )
    write_manifest(truth, tmp_path / "manifest.json")
    text = plan_push(model, "me/model", manifest=tmp_path / "manifest.json").card
    assert '\n# "' not in text and "<b>" not in text.split("```")[0].replace("`", "").split("- Options")[0]
    (line,) = [line for line in text.splitlines() if line.startswith("mithridate evaluate")]
    assert shlex.split(line)[5] == "sheep' # \"' ; rm -rf ~ <b>:aeroplane"  # one word of the command


def test_an_overlay_points_elsewhere_and_is_refused(toy_world, tmp_path):
    options = ["--source", "sheep", "--target", "aeroplane", "--count", "10", "--split", "train"]
    assert main(["poison", "single-label", str(toy_world), *options, "--out", str(tmp_path / "p")]) == 0
    with pytest.raises(OutputError, match=r"images lie outside .*; poison again with --format webdataset"):
        plan_push(tmp_path / "p", "me/set")


@pytest.mark.parametrize(
    ("repo", "message"), [("a/b/c", "expected a repository as OWNER/NAME, got 'a/b/c'"), ("", "OWNER/NAME")]
)
def test_a_repository_that_cannot_be_is_refused(repo, message, model):
    with pytest.raises(MithridateError, match=message):
        plan_push(model, repo)


def test_other_folders_are_refused(tmp_path):
    with pytest.raises(OutputError, match=r"neither a poisoned set .* nor a model"):
        plan_push(tmp_path, "me/x")
    with pytest.raises(OutputError, match="is no folder"):
        plan_push(tmp_path / "none", "me/x")


def test_nothing_is_sent_without_a_token(model, monkeypatch):
    import huggingface_hub

    monkeypatch.setattr(huggingface_hub, "get_token", lambda: None)
    monkeypatch.setattr(huggingface_hub, "HfApi", lambda: pytest.fail("the hub was asked"))
    with pytest.raises(MithridateError, match="there is no token of yours"):
        push(plan_push(model, "me/model"))


def test_one_commit_holds_the_card_and_the_files_that_were_shown(model, monkeypatch):
    import huggingface_hub

    asked = {}

    class Api:
        def create_repo(self, repo, **options):
            asked["repo"] = (repo, options)

        def create_commit(self, repo, operations, **options):
            asked["files"] = {each.path_in_repo: each.path_or_fileobj for each in operations}
            return type("Commit", (), {"commit_url": "https://hub/commit"})()

    monkeypatch.setattr(huggingface_hub, "get_token", lambda: "token")
    monkeypatch.setattr(huggingface_hub, "HfApi", Api)
    planned = plan_push(model, "me/model")
    assert push(planned) == "https://hub/commit"
    assert asked["repo"] == ("me/model", {"repo_type": "model", "private": True, "exist_ok": True})
    assert asked["files"].pop("README.md") == planned.card.encode()
    assert {name: Path(path) for name, path in asked["files"].items()} == planned.chosen.files


def test_a_dry_run_prints_the_card_and_the_files(model, capsys, monkeypatch):
    monkeypatch.setattr("mithridate.publishing.push.push", lambda *_, **__: pytest.fail("it was sent"))
    assert main(["push", str(model), "me/model", "--dry-run"]) == 0
    said = capsys.readouterr().out
    assert "would upload 4 files" in said and "  open_clip_model.safetensors\n" in said and "left out: .env" in said
    assert main(["push", str(model), "me/model", "--dry-run", "--json"]) == 0
    record = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert record["uploaded"] is False and record["files"][0] == "open_clip_config.json"
