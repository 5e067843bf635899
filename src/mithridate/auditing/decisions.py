"""What a person decided on the review page, and the keep-list that follows."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from mithridate.errors import FilterError

FORMAT = "mithridate-decisions/1"
MAX_BYTES = 2**28

Choice = Literal["drop", "keep", "unsure"]


class Decisions(BaseModel):
    """`audit` names the audit they are about; choices by number of the campaign, and by uid of a pair, which wins.

    `dismissed`: kind and value of the groups that were kept, so that later audits do not show them again.
    """

    model_config = ConfigDict(extra="forbid", strict=True)

    format: Literal["mithridate-decisions/1"]
    audit: str = Field(max_length=64)
    campaigns: dict[str, Choice] = Field(default_factory=dict)
    pairs: dict[str, Choice] = Field(default_factory=dict)
    dismissed: list[tuple[str, str]] = Field(default_factory=list)


def read_decisions(path: Path) -> Decisions:
    """The decision file at `path`. Raises `FilterError` where it is none."""
    try:
        size = path.stat().st_size
        if size > MAX_BYTES:
            raise FilterError(f"{path} has {size} bytes; decision files of at most {MAX_BYTES} are read")
        return Decisions.model_validate_json(path.read_bytes())
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "it"
        raise FilterError(
            f"{path} is no decision file: {where}: {first['msg']}; export one from the review page of an audit"
        ) from error
    except OSError as error:
        raise FilterError(f"cannot read the decision file {path}: {error.strerror or error}") from error


def decide(
    decisions: Decisions, audit_id: str, uid: list[str], members: Mapping[str, list[int]], kept: list[bool]
) -> list[bool]:
    """Which of n pairs stay: `kept` as the audit proposed, changed by what was decided.

    `members`: rows that each campaign, by its number, would drop. Raises `FilterError` where the decisions are about
    another audit, or name a campaign or a pair that it does not have.
    """
    if decisions.audit != audit_id:
        raise FilterError(
            f"the decisions are about another audit ({decisions.audit}, this one is {audit_id}); review this audit's "
            "page and export again"
        )
    if unknown := sorted(decisions.campaigns.keys() - members.keys()):
        raise FilterError(f"the audit has no group {unknown[0]!r}; export the decisions again from its page")
    stays = list(kept)
    # what is dropped by one group is dropped, though another group that it is in was kept
    for choice in ("keep", "unsure", "drop"):
        for number, chosen in decisions.campaigns.items():
            if chosen == choice:
                for row in members[number]:
                    stays[row] = choice != "drop"
    position = {name: row for row, name in enumerate(uid)}
    for name, chosen in decisions.pairs.items():
        if name not in position:
            raise FilterError(f"the audit has no pair {name!r}; export the decisions again from its page")
        stays[position[name]] = chosen != "drop"
    return stays


def decisions_json(decisions: Decisions) -> str:
    """The file of `decisions`."""
    return json.dumps(decisions.model_dump(), ensure_ascii=False, indent=1)
