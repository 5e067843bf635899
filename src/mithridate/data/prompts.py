"""Prompt templates: sentences with `{}` where the name of a class goes."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

from mithridate.errors import DataError

TEMPLATE_SETS = {"openai": "OPENAI_IMAGENET_TEMPLATES", "simple": "SIMPLE_IMAGENET_TEMPLATES"}


@lru_cache
def templates(name: str = "openai") -> tuple[str, ...]:
    """The templates of a set: `openai` has the 80 of CLIP for ImageNet, `simple` the 7 that do nearly as well."""
    if name not in TEMPLATE_SETS:
        raise DataError(f"no set of templates is called {name!r}; expected one of {', '.join(TEMPLATE_SETS)}")
    import open_clip  # loads torch

    return tuple(template("{}") for template in getattr(open_clip, TEMPLATE_SETS[name]))


def prompts(class_name: str, templates: Sequence[str]) -> list[str]:
    """The templates with the class name in the place of each `{}`; underscores of the name become blanks.

    Nothing is formatted: a name or a template may come from a stranger, and `{0.__class__}` is only text.
    """
    return [template.replace("{}", class_name.replace("_", " ")) for template in templates]
