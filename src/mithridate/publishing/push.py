"""A poisoned set or a model on a hub: what would be uploaded is decided first, and seen by whoever asks."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from mithridate.data.read import read_pairs
from mithridate.errors import MithridateError, OutputError, reason
from mithridate.poisoning.manifest import Manifest, read_manifest
from mithridate.publishing.card import card
from mithridate.publishing.files import CARD, FINDINGS, MANIFEST, RUN, Chosen, choose
from mithridate.training.run import read_run


@dataclass(frozen=True)
class Push:
    """One upload: `card` is README.md, `chosen` every other file. `local`: files that name folders of this machine."""

    repo: str
    card: str
    chosen: Chosen
    local: tuple[str, ...] = ()


def plan_push(folder: Path, repo: str, *, manifest: Path | None = None, license: str | None = None) -> Push:
    """What `push` would upload to `repo` (OWNER/NAME); nothing outside `folder` but what the card says of `manifest`.

    `manifest`: what a model was attacked with; a poisoned set has its own. Raises `OutputError` where the folder is
    neither a set nor a model, or is a set that points at images elsewhere; `DataError` for a manifest that is none.
    """
    from huggingface_hub.utils import HFValidationError, validate_repo_id

    folder = Path(folder)
    try:
        validate_repo_id(repo)
    except HFValidationError as error:
        raise MithridateError(f"expected a repository as OWNER/NAME, got {repo!r}: {reason(error)}") from error
    chosen = choose(folder)
    truth: Manifest | None = None
    if chosen.kind == "dataset":
        if manifest is not None:
            raise MithridateError(f"{folder} has its own manifest; leave out --manifest")
        truth = read_manifest(folder)
        _refuse_outside(folder)
    elif manifest is not None:
        truth = read_manifest(manifest)
    run = read_run(folder) if RUN in chosen.files else None
    text = card(chosen.kind, repo, manifest=truth, run=run, findings=_findings(chosen), license=license)
    home = str(folder.resolve().parent)
    records = [name for name in (MANIFEST, RUN, FINDINGS) if name in chosen.files]
    local = [name for name in records if home in chosen.files[name].read_text(encoding="utf-8", errors="replace")]
    return Push(repo, text, chosen, tuple(local))


def push(planned: Push, *, public: bool = False, message: str = "Upload by mithridate push") -> str:
    """Upload it in one commit, with the user's own token; gives back the address of the commit.

    A repository that is not there is made, private unless `public`. Raises `MithridateError` where there is no token or
    the hub refuses.
    """
    from huggingface_hub import CommitOperationAdd, HfApi, get_token

    if get_token() is None:
        raise MithridateError("there is no token of yours on this machine; run `hf auth login`, or set HF_TOKEN")
    files: dict[str, bytes | Path] = {CARD: planned.card.encode(), **planned.chosen.files}
    api, kind = HfApi(), planned.chosen.kind
    try:
        api.create_repo(planned.repo, repo_type=kind, private=not public, exist_ok=True)
        operations = [CommitOperationAdd(path_in_repo=name, path_or_fileobj=content) for name, content in files.items()]
        return str(api.create_commit(planned.repo, operations, repo_type=kind, commit_message=message).commit_url)
    except (OSError, ValueError) as error:  # the library's own errors are of these two
        raise MithridateError(f"the hub did not take it: {reason(error)}") from error


def _refuse_outside(folder: Path) -> None:
    """Raise `OutputError` where pairs name images outside the folder, as overlays do."""
    pairs = read_pairs(folder / "data")  # raises where an overlay is a stranger's
    home = folder.absolute()
    outside = [place for place in pairs.images.to_pylist() if not Path(place).absolute().is_relative_to(home)]
    if outside:
        raise OutputError(
            f"{len(outside)} of {len(pairs.images)} images lie outside {folder}, as {outside[0]}; poison again with "
            "--format webdataset, which copies them"
        )


def _findings(chosen: Chosen) -> dict | None:
    """What an inspection of this model said, where its folder holds it."""
    if FINDINGS not in chosen.files:
        return None
    from mithridate.inspection.findings_file import read_findings
    from mithridate.report.verdict import inspection_lines

    return {"sentences": inspection_lines(read_findings(chosen.files[FINDINGS].parent))}
