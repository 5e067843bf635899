"""Poisoning and backdoors in CLIP-style image-text encoders: done, measured, prevented, found and repaired."""

import ast
import importlib
from pathlib import Path
from typing import Any


def _public() -> dict[str, str]:
    """Module of each public name, read from the stub beside this file, which is the one list of them."""
    stub = ast.parse(Path(__file__).with_suffix(".pyi").read_text(encoding="utf-8"))
    return {
        name.name: node.module or "" for node in stub.body if isinstance(node, ast.ImportFrom) for name in node.names
    }


_WHERE = _public()
# constants, classes, the rest
__all__ = sorted(_WHERE, key=lambda name: (not name.isupper(), not name[0].isupper(), name))  # pyright: ignore


def __getattr__(name: str) -> Any:
    """Import what is first asked for: `import mithridate` must not load torch."""
    if name not in _WHERE:
        raise AttributeError(f"module 'mithridate' has no attribute {name!r}")
    value = getattr(importlib.import_module(_WHERE[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return [*globals(), *__all__]
