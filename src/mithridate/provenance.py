"""Which source makes a result: a hash over modules and every module of this package that they import.

Imports are read from the files, not from what happens to be loaded, so that the hash is the same in every process.
Rooms that present results, and the one that says where work is done, are left out: no number depends on them.
"""

import ast
import sys
from collections.abc import Iterable, Iterator
from functools import lru_cache
from hashlib import blake2b
from pathlib import Path

PACKAGE = "mithridate"
NO_NUMBERS = ("mithridate.report", "mithridate.cli", "mithridate.engine")
"""Packages whose source decides no number."""

_ROOT = Path(__file__).parent


def source_hash(*modules: str) -> str:
    """A hash of the source files of `modules` and of all that they import, by name; see `source_files`."""
    digest = blake2b(digest_size=12)
    for name, path in sorted(source_files(*modules).items()):
        content = path.read_bytes()
        digest.update(f"{name} {len(content)}\n".encode())
        digest.update(content)
    return digest.hexdigest()


def source_files(*modules: str) -> dict[str, Path]:
    """The files of `modules` and of every module that they import, at any depth, by module name.

    Followed are imports of this package, wherever they stand but under `TYPE_CHECKING`, and those of a plugin from its
    own folder. Modules without a Python file (built in, or typed into an interpreter) have none.
    """
    found: dict[str, Path] = {}
    left = [name for name in modules if not name.startswith(NO_NUMBERS)]
    while left:
        name = left.pop()
        path = None if name in found else _file_of(name)
        if path is not None:
            found[name] = path
            left += _imports(path, path.stat().st_mtime_ns, name)
    return found


def _file_of(name: str) -> Path | None:
    """The file of a module: of this package by its name, of another as it was loaded."""
    if name.split(".")[0] == PACKAGE:
        path = _ROOT.joinpath(*name.split(".")[1:])
        return next((file for file in (path.with_suffix(".py"), path / "__init__.py") if file.is_file()), None)
    file = getattr(sys.modules.get(name), "__file__", None)
    return Path(file) if file and file.endswith(".py") and Path(file).is_file() else None


@lru_cache(maxsize=4096)
def _imports(path: Path, _changed: int, name: str) -> tuple[str, ...]:
    """The modules that a file imports: of this package, and of a plugin those that lie beside it."""
    own = name.split(".")[0] == PACKAGE
    tree = ast.parse(path.read_bytes(), str(path))
    named = dict.fromkeys(target for node in _running(tree) for target in _targets(node, name, path))
    return tuple(
        target
        for target in named
        if (target.startswith(f"{PACKAGE}.") and not target.startswith(NO_NUMBERS))
        or (not own and (path.parent / f"{target}.py").is_file())
    )


def _running(node: ast.AST) -> Iterator[ast.AST]:
    """Every node that runs: all but those under `if TYPE_CHECKING`."""
    yield node
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and ast.unparse(child.test).endswith("TYPE_CHECKING"):
            for other in child.orelse:
                yield from _running(other)
        else:
            yield from _running(child)


def _targets(node: ast.AST, name: str, path: Path) -> Iterable[str]:
    """The modules that one import statement may name."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if not isinstance(node, ast.ImportFrom):
        return []
    package = name.split(".") if path.name == "__init__.py" else name.split(".")[:-1]
    above = package[: len(package) - node.level + 1] if node.level else []
    origin = ".".join(filter(None, (*above, node.module)))
    # `from mithridate.data import coco` names a module, `from mithridate.data.coco import x` the one before the import
    inner = [f"{origin}.{alias.name}" for alias in node.names]
    return [origin, *inner]
