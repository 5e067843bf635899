"""Who may import whom, what the package exports, and what `import mithridate` may cost."""

import ast
import importlib
import json
import re
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import mithridate
from mithridate.cli import COMMANDS
from mithridate.cli.data import COMMANDS as DATA_COMMANDS

SOURCE = Path(mithridate.__file__).parent
BASE = {
    *("allocator", "disk", "errors", "folders", "leftovers", "plugins", "processes", "provenance"),
    *("randomness", "remote", "sealed", "text", "threads", "version"),
}

BELOW_STUDIES = {
    *("data", "toy", "encoder", "poisoning", "training"),
    *("statistics", "metrics", "auditing", "evaluation", "report"),
}

# room -> the rooms it may import, besides itself and BASE
MAY_IMPORT = {
    "data": {"engine"},
    "engine": set(),
    "toy": {"data"},
    "encoder": {"data", "engine"},
    "poisoning": {"data"},
    "training": {"data", "encoder"},
    "statistics": set(),
    "metrics": {"statistics"},
    # of poisoning only the triggers, to stamp them: an inspector does not see the truth
    "inspection": {"data", "encoder", "engine", "training", "poisoning"},
    "repairing": {"data", "encoder", "training", "inspection"},
    "auditing": {"data", "encoder", "engine"},  # never poisoning: a detector does not see the truth
    # what a detector said, held against the truth
    "evaluation": {"data", "encoder", "poisoning", "statistics", "metrics", "auditing"},
    # of poisoning only the goals
    "report": {
        *("data", "statistics", "metrics", "auditing", "evaluation", "poisoning"),
        *("inspection", "repairing"),
    },
    # the card of an upload says what was planted, and what an inspection found
    "publishing": {"data", "poisoning", "training", "encoder", "inspection", "repairing", "report"},
    "studies": {
        *(
            "data",
            "toy",
            "encoder",
            "engine",
            "poisoning",
            "training",
            "statistics",
            "metrics",
            "auditing",
            "evaluation",
            "report",
            "inspection",
            "repairing",
        ),
    },
    "cli": {
        *(
            "data",
            "toy",
            "encoder",
            "engine",
            "poisoning",
            "training",
            "statistics",
            "metrics",
            "auditing",
            "evaluation",
            "report",
            "inspection",
            "repairing",
            "publishing",
        ),
        "studies",
        "testing",
    },
    **{name: set() for name in sorted(BASE)},  # in one order for every process
    "testing": {"data", "encoder", "poisoning", "training", "auditing", "studies", "inspection", "repairing"},
    "__main__": {"cli"},
    "__init__": set(),  # the public names stand in its stub
}
READ_THE_TRUTH = {"evaluation", "poisoning", "publishing", "studies", "cli", "testing"}
# all that evaluation may see of it; a trigger is part of the truth: it is stamped on test images
OF_POISONING = {f"mithridate.poisoning.{name}" for name in ("goals", "manifest", "plan", "triggers")}


def room_of(path):
    return path.relative_to(SOURCE).parts[0].removesuffix(".py")


def modules():
    return sorted(SOURCE.rglob("*.py"))


def imports(path, text=None, nodes=ast.walk):
    """Full names of the modules of this package that a file imports, also inside functions."""
    package = ("mithridate", *path.relative_to(SOURCE).parent.parts)
    for node in nodes(ast.parse(text or path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            above = ".".join(package[: len(package) - node.level + 1]) if node.level else ""
            origin = ".".join(filter(None, (above, node.module)))
            # `from mithridate.data import coco` names a module, `from mithridate.data.coco import x` does not
            names = [f"{origin}.{alias.name}" if is_package(origin) else origin for alias in node.names]
        else:
            continue
        yield from (name for name in names if name.split(".")[0] == "mithridate")


def running(node):
    """Every node that runs: all but those under `if TYPE_CHECKING`."""
    yield node
    for child in ast.iter_child_nodes(node):
        typed = isinstance(child, ast.If) and ast.unparse(child.test).endswith("TYPE_CHECKING")
        for each in child.orelse if isinstance(child, ast.If) and typed else (child,):
            yield from running(each)


def is_package(name):
    return name == "mithridate" or (SOURCE / Path(*name.split(".")[1:])).is_dir()


def test_the_table_names_every_room():
    assert {room_of(path) for path in modules()} <= MAY_IMPORT.keys()


@pytest.mark.parametrize("room", MAY_IMPORT)
def test_a_room_imports_only_what_it_may(room):
    found = {
        f"{path.relative_to(SOURCE)} imports {name}"
        for path in modules()
        if room_of(path) == room
        for name in imports(path)
        if name.split(".")[1] not in MAY_IMPORT[room] | BASE | {room}
    }
    assert not found


def test_only_those_who_may_know_the_truth_import_the_manifest():
    readers = {room_of(path) for path in modules() if "mithridate.poisoning.manifest" in imports(path)}
    assert readers <= READ_THE_TRUTH
    assert "evaluation" in readers


def test_evaluation_sees_the_truth_and_never_how_it_was_made():
    seen = {name for path in modules() if room_of(path) == "evaluation" for name in imports(path)}
    assert {name for name in seen if name.startswith("mithridate.poisoning")} <= OF_POISONING


def test_an_inspector_sees_triggers_and_nothing_else_of_poisoning():
    seen = {name for path in modules() if room_of(path) in ("inspection", "repairing") for name in imports(path)}
    assert {name for name in seen if name.startswith("mithridate.poisoning")} == {"mithridate.poisoning.triggers"}


def test_no_draws_are_made_by_lists_of_numbers():
    root = Path(__file__).parents[1]
    found = {
        path.relative_to(root).as_posix()
        for folder in (SOURCE, root / "benchmarks", root / "examples")
        for path in folder.rglob("*.py")
        if re.search(r"(default_rng|SeedSequence)\(\[", path.read_text(encoding="utf-8"))
    }
    assert found <= {"src/mithridate/randomness.py"}  # which says why not


def test_pages_know_what_an_attack_wants_and_nothing_else_of_it():
    seen = {name for path in modules() if room_of(path) == "report" for name in imports(path)}
    assert {name for name in seen if name.startswith("mithridate.poisoning")} == {"mithridate.poisoning.goals"}


def test_imports_are_found_wherever_they_stand():
    text = (
        "import mithridate.cli.train as t\n"
        "from ..encoder import embed\n"
        "from . import cache\n"
        "def f():\n    from mithridate import poisoning\n"
    )
    assert list(imports(SOURCE / "data" / "x.py", text)) == [
        "mithridate.cli.train",
        "mithridate.encoder.embed",
        "mithridate.data.cache",
        "mithridate.poisoning",
    ]


def test_no_files_import_each_other_in_a_circle():
    """Imports inside functions count: a circle that is only met later is one all the same."""
    graph = {module_name(path): {*imports(path, nodes=running)} for path in modules() if path.name != "__init__.py"}
    TopologicalSorter(graph).prepare()  # raises CycleError with the circle


def module_name(path):
    return ".".join(("mithridate", *path.relative_to(SOURCE).with_suffix("").parts))


def test_a_module_of_more_than_350_lines_says_why():
    """In its first lines: `# Above 350 lines: ...`."""
    found = set()
    for path in modules():
        lines = path.read_text(encoding="utf-8").splitlines()
        if len(lines) > 350 and not any(line.startswith("# Above 350 lines: ") for line in lines[:15]):
            found.add(path.relative_to(SOURCE).as_posix())
    assert not found


# --- what a command costs before it works -------------------------------------------------------------


HEAVY = {"torch", "torchvision", "open_clip", "timm", "transformers", "faiss", "sklearn", "matplotlib", "pandas"}
HELPS = [
    *([name] for name in COMMANDS),
    *(["data", name] for name in DATA_COMMANDS),
    *(["filter", name] for name in ("cosine-distance", "gmm", "neg-clip-loss", "recurring-patch")),
    *(["poison", name] for name in mithridate.ATTACKS),
    *(["train", "--objective", name] for name in mithridate.OBJECTIVES),
    ["study", "status"],
]
# forked for each command by a process that has loaded what most of them load: its seconds count for each of them
ASKS_FOR_HELP = """
import contextlib, json, os, resource, sys
import jaxtyping, pyarrow.compute, pydantic, tyro
import mithridate.cli.common, mithridate.poisoning.manifest

def seconds():
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime

def say():
    from mithridate.cli import main
    with contextlib.redirect_stdout(None):
        try:
            main([*command, "--help"])
        except SystemExit as end:
            assert not end.code
    print(json.dumps([command, before + seconds(), sorted({name.split(".")[0] for name in sys.modules})]), flush=True)

before = seconds()
for command in json.loads(sys.argv[1]):
    child = os.fork()
    if not child:
        say()
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
"""


def helped(commands):
    """Of each command that is asked for its help: seconds of processor time, and the packages that were loaded."""
    ask = [sys.executable, "-c", ASKS_FOR_HELP, json.dumps(commands)]
    done = subprocess.run(ask, capture_output=True, text=True, check=True)
    return {" ".join(c): (seconds, set(loaded)) for c, seconds, loaded in map(json.loads, done.stdout.splitlines())}


def test_the_help_of_every_command_loads_nothing_heavy_and_takes_less_than_two_seconds():
    found = helped(HELPS)
    assert found.keys() == {" ".join(command) for command in HELPS}
    assert not {command: loaded & HEAVY for command, (_, loaded) in found.items() if loaded & HEAVY}
    slow = [command for command in HELPS if found[" ".join(command)][0] >= 2]  # 0.5 to 1.4 by machine
    again = [helped(slow) for _ in range(3)] if slow else []  # what else keeps the caches busy counts too
    assert not [command for command in map(" ".join, slow) if min(one[command][0] for one in again) >= 2]


def test_importing_the_package_loads_nothing_heavy():
    code = "import mithridate, sys\nprint(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert "mithridate" in loaded and not set(loaded) & (HEAVY | {"numpy", "pyarrow", "tyro"})


def kind(name):
    """ruff's order of exported names: constants, classes, the rest."""
    return 0 if name.isupper() else 1 if name[0].isupper() else 2


def test_exported_names_are_sorted_and_each_is_what_its_module_has():
    names = vars(mithridate)["__all__"]
    assert names == sorted(names, key=lambda name: (kind(name), name))
    for name in names:
        module = importlib.import_module(vars(mithridate)["_WHERE"][name])
        assert getattr(mithridate, name) is getattr(module, name)


def test_the_stub_re_exports_each_name_once_and_nothing_else():
    """What pyright sees is what is loaded: `from a import b as b`, as a stub exports, and no other statement."""
    _, *imports = ast.parse(SOURCE.joinpath("__init__.pyi").read_text(encoding="utf-8")).body
    names = []
    for node in imports:
        assert isinstance(node, ast.ImportFrom) and not node.level
        names += [alias.name for alias in node.names if alias.name == alias.asname]
    assert sorted(names) == sorted(vars(mithridate)["__all__"]) and len(set(names)) == len(names)
    assert set(names) <= set(dir(mithridate))
    errors = {name for name in vars(importlib.import_module("mithridate.errors")) if name.endswith("Error")}
    assert errors < set(names)


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="'mithridate' has no attribute 'poisson'"):
        _ = importlib.import_module("mithridate").poisson
