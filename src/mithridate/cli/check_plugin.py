"""`mithridate check-plugin FILE`: does what a plugin exports keep the contract of its kind."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, arg

from mithridate.cli.common import emit, parse, suggest
from mithridate.text import say


@dataclass(frozen=True)
class CheckPlugin:
    """Try the attacks, objectives, detectors, probes and repairs of a Python file on small data; exits with 1 where a
    check fails.

    Options that have no default and are no classes called source and target are taken from EXAMPLES, a dict of the file
    from name to instance.
    """

    file: Annotated[Positional[Path], arg(metavar="FILE")]
    """A Python file with ATTACKS, OBJECTIVES, DETECTORS, PROBES or REPAIRS. It is run."""
    json: bool = False
    """One JSON object on the last line."""

    def run(self) -> int:
        from mithridate.errors import MithridateError
        from mithridate.plugins import exports, load_plugins, loaded_module
        from mithridate.testing import CHECKS, example_of

        load_plugins([self.file])
        module = loaded_module(self.file)
        examples = getattr(module, "EXAMPLES", None)
        passed, failed = 0, {}
        for kind, classes in exports(module, str(self.file)).items():
            for name, cls in classes.items():
                what = "its options"
                try:
                    for what, check in CHECKS[kind](example_of(cls, examples, name)):
                        check()
                        passed += 1
                        if not self.json:
                            say(f"ok: {name}: {what}")
                except MithridateError as error:
                    failed[f"{name}: {what}"] = str(error)
                except Exception as error:  # of the plugin, whose code is what is tried
                    failed[f"{name}: {what}"] = f"{type(error).__name__}: {error}"
        if self.json:
            emit({"passed": passed, "failed": failed}, as_json=True)
        for what, message in failed.items():
            say(f"mithridate: failed: {what}: {message}", stderr=True)
        if not self.json and not failed:
            suggest("study", "matrix", "--plugin", self.file, "--out", "matrix")
        return 1 if failed else 0


def run(argv: Sequence[str]) -> int:
    return parse(CheckPlugin, argv, prog="check-plugin").run()
