"""The command line: one sub-command a stage. A command's module is imported when it is called, not before."""

import importlib
import logging
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

# name -> (module with a function `run(argv)`, what it does)
COMMANDS = {
    "demo": ("mithridate.cli.demo", "the main job on the toy world, in minutes, ending in an HTML report"),
    "data": ("mithridate.cli.data", "describe, check (doctor) and convert data sets; build the toy world"),
    "poison": ("mithridate.cli.poison", "a poisoned copy or overlay of a data set, and its manifest"),
    "train": ("mithridate.cli.train", "train or fine-tune an encoder on pairs; goes on where it was killed"),
    "embed": ("mithridate.cli.embed", "embeddings of a data set, in clip-retrieval's layout"),
    "filter": ("mithridate.cli.filter", "suspicion of each pair, and a keep-list of those that may be trained on"),
    "evaluate": ("mithridate.cli.evaluate", "attack success and utility of a model, with intervals and baselines"),
    "classify": ("mithridate.cli.classify", "zero-shot classification and linear probe on labelled images"),
    "compare": ("mithridate.cli.compare", "the difference of evaluations, query by query, with p-values"),
    "repair-curve": ("mithridate.cli.repair_curve", "attack success against utility while a model is repaired"),
    "study": ("mithridate.cli.study", "every cell of a grid trained and measured: tables, figures, a page"),
    "report": ("mithridate.cli.report", "render a report again"),
}

USAGE = "usage: mithridate COMMAND ...   (mithridate COMMAND --help tells its options)"


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; gives back its exit code: 0, 1 for an input that cannot be used, 2 for wrong usage."""
    argv = list(sys.argv[1:] if argv is None else argv)
    if not argv or argv[0] in ("-h", "--help", "help"):
        print(_help())
        return 0 if argv else 2
    if argv[0] in ("-V", "--version"):
        from mithridate.version import __version__

        print(__version__)
        return 0
    if argv[0] not in COMMANDS:
        import difflib

        near = difflib.get_close_matches(argv[0], COMMANDS, n=1)
        hint = f"did you mean {near[0]}?" if near else f"the commands are {', '.join(COMMANDS)}"
        return _fail(f"no command is called {argv[0]!r}; {hint}", 2)
    return _guarded(argv)


def _guarded(argv: list[str]) -> int:
    from mithridate.errors import MithridateError

    try:
        with _told_warnings():
            # a command may give back another code than 0: its work is done, and something in it failed
            return importlib.import_module(COMMANDS[argv[0]][0]).run(argv[1:]) or 0
    except MithridateError as error:
        return _fail(str(error), 1)
    except BrokenPipeError:  # `mithridate ... | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:
        where = f" {error.filename}" if error.filename else ""
        return _fail(
            f"the system refused{where}: {error.strerror or error}; check the path, its rights and the disk", 1
        )
    except KeyboardInterrupt:
        return _fail("stopped; run the same command again to go on", 130)


class _Told(logging.Handler):
    """What the package logs, in the form of its other messages, on the standard error of the moment."""

    def emit(self, record: logging.LogRecord) -> None:
        print(f"mithridate: {record.levelname.lower()}: {record.getMessage()}", file=sys.stderr)


@contextmanager
def _told_warnings() -> Iterator[None]:
    log, handler = logging.getLogger("mithridate"), _Told(logging.WARNING)
    propagated, log.propagate = log.propagate, False  # libraries put handlers of their own on the root
    log.addHandler(handler)
    try:
        yield
    finally:
        log.removeHandler(handler)
        log.propagate = propagated


def _fail(message: str, code: int) -> int:
    print(f"mithridate: {message}", file=sys.stderr)
    return code


def _help() -> str:
    width = max(map(len, COMMANDS))
    lines = [f"  {name:<{width}}  {what}" for name, (_, what) in COMMANDS.items()]
    return "\n".join(
        [USAGE, "", "Poison, train, embed, evaluate: each reads folders and writes one folder.", "", *lines]
    )
