"""What a reader left out of a source: counted by reason, with an example."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

# reason -> what is counted, and what to do about it
REASONS = {
    "dotted-key": (
        "images whose ending is not all that follows the first dot (a.b.jpg is sample a, ending b.jpg)",
        "write the shard again with keys that have no dots",
    ),
    "unread-ending": (
        "images of an ending that this layout does not take",
        "convert them to JPEG, PNG or WebP",
    ),
    "second-image": ("further images of samples that have one already", "name the one to take as --image-field"),
    "no-caption": ("images without a caption file beside them", "write NAME.txt beside each, or leave them out"),
    "no-image": ("samples without an image", "fetch their images, or leave them out"),
    "no-ending": ("members without an ending or without a name before it", "give each member a name KEY.ENDING"),
    "link": ("links instead of files", "write the shard again with the files themselves (tar --hard-dereference -h)"),
    "special-member": ("members that are neither files nor folders", "write the shard again without them"),
    "sparse-member": ("sparse members", "write the shard again without --sparse"),
    "behind-end-mark": (
        "bytes behind the tar's first end mark (tars that were joined with cat)",
        "join them with tar --concatenate, or give each as a shard of its own",
    ),
    "failed-download": ("samples whose download failed, by img2dataset's own record", "nothing, or fetch them again"),
    "no-such-field": ("samples that lack the field that was named", "name a field that all samples have"),
    "unread-file": ("tables or metadata files that were not read", "name the file to read, or remove it"),
    "other-file": ("files that are no images", "nothing, or remove them"),
    "swallowed-row": (
        "rows inside the quotes of another row's cell: a quote is opened and not closed",
        "close the quote, or double every quote inside a cell and put quotes around the cell",
    ),
    "no-record": ("json members that hold no object", "write the shard again"),
}


@dataclass(frozen=True)
class LeftOut:
    """How often a reason occurred, and one example."""

    count: int
    example: str


@dataclass(frozen=True)
class ReadReport:
    """What was left out of the source of some pairs, by reason (`REASONS`); and where embedded texts were doubtful."""

    left_out: Mapping[str, LeftOut] = field(default_factory=dict)

    def __add__(self, other: ReadReport) -> ReadReport:
        return join_reports([self, other])

    def __bool__(self) -> bool:
        return bool(self.left_out)


def join_reports(reports: Iterable[ReadReport]) -> ReadReport:
    """The sums of several reports, examples of the first."""
    tally = Tally()
    for report in reports:
        for reason, entry in report.left_out.items():
            tally.add(reason, entry.example, entry.count)
    return tally.report()


class Tally:
    """Counts while a source is read."""

    def __init__(self) -> None:
        self._counts: dict[str, int] = {}
        self._examples: dict[str, str] = {}

    def add(self, reason: str, example: str, count: int = 1) -> None:
        if reason not in REASONS:
            raise KeyError(reason)
        self._counts[reason] = self._counts.get(reason, 0) + count
        self._examples.setdefault(reason, example[:200])

    def report(self) -> ReadReport:
        return ReadReport({reason: LeftOut(count, self._examples[reason]) for reason, count in self._counts.items()})
