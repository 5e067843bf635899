"""`mithridate push FOLDER REPO`: a poisoned set or a model on the Hugging Face hub, with a card."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, arg

from mithridate.cli.common import emit, parse, suggest
from mithridate.text import say


@dataclass(frozen=True)
class PushCommand:
    """Upload a poisoned set or a model, with a card that says what was planted and how to detect it.

    Only files that a reader needs are uploaded; --dry-run shows the card and their names and sends nothing. The token
    is yours: `hf auth login`, or HF_TOKEN.
    """

    folder: Annotated[Positional[Path], arg(metavar="FOLDER")]
    """What mithridate poison (--format webdataset or table), train or repair wrote."""
    repo: Annotated[Positional[str], arg(metavar="OWNER/NAME")]
    """The repository; it is made where it is not there."""
    manifest: Path | None = None
    """Of a model: what it was attacked with; the card then says so."""
    license: str | None = None
    """Name of a licence for the card (apache-2.0)."""
    public: bool = False
    """Make a new repository public; otherwise it is private."""
    dry_run: bool = False
    """Print the card and the files, and upload nothing."""
    json: bool = False
    """One JSON object on the last line."""

    def run(self) -> None:
        from mithridate.publishing.push import plan_push, push

        planned = plan_push(self.folder, self.repo, manifest=self.manifest, license=self.license)
        chosen = planned.chosen
        for name in planned.local:
            say(f"mithridate: warning: {name} names folders of this machine", stderr=True)
        result = {"repo": self.repo, "kind": chosen.kind, "files": list(chosen.files), "bytes": chosen.bytes}
        if self.dry_run:
            if not self.json:
                say(*planned.card.splitlines(), "")
                say(f"would upload {len(chosen.files) + 1} files, {chosen.bytes} bytes, as {chosen.kind} {self.repo}:")
                say("  README.md", *(f"  {name}" for name in chosen.files))
                say(*(f"left out: {name}" for name in chosen.left_out))
                given = [] if self.manifest is None else ["--manifest", self.manifest]
                given += [] if self.license is None else ["--license", self.license]
                suggest("push", self.folder, self.repo, *given, *(["--public"] if self.public else ()))
                return
            emit({**result, "card": planned.card, "left_out": list(chosen.left_out), "uploaded": False}, as_json=True)
            return
        address = push(planned, public=self.public)
        emit({**result, "files": len(chosen.files), "uploaded": True, "commit": address}, as_json=self.json)


def run(argv: Sequence[str]) -> None:
    parse(PushCommand, argv, prog="push").run()
