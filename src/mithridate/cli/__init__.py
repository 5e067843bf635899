"""The command line: one sub-command a stage. A command's module is imported when it is called, not before."""

import importlib
import logging
import os
import sys
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from mithridate.text import one_line, say, shortened

# name -> (module with a function `run(argv)`, what it does)
COMMANDS = {
    "demo": ("mithridate.cli.demo", "the main job on the toy world, in minutes, ending in an HTML report"),
    "data": ("mithridate.cli.data", "describe, check (doctor) and convert data sets; build the toy world"),
    "poison": ("mithridate.cli.poison", "a poisoned copy or overlay of a data set, and its manifest"),
    "train": ("mithridate.cli.train", "train or fine-tune an encoder on pairs; goes on where it was killed"),
    "embed": ("mithridate.cli.embed", "embeddings of a data set, in clip-retrieval's layout"),
    "audit": ("mithridate.cli.audit", "which groups of pairs look planted, in pictures, and a keep-list"),
    "filter": ("mithridate.cli.filter", "suspicion of each pair, and a keep-list of those that may be trained on"),
    "inspect": ("mithridate.cli.inspect", "a verdict on a model of unknown origin, with the triggers in pictures"),
    "repair": ("mithridate.cli.repair", "take out of a model what inspect flagged, and inspect it again"),
    "screen": ("mithridate.cli.screen", "single images held against clean ones by test-time scores; no proof"),
    "evaluate": ("mithridate.cli.evaluate", "attack success and utility of a model, with intervals and baselines"),
    "classify": ("mithridate.cli.classify", "zero-shot classification and linear probe on labelled images"),
    "compare": ("mithridate.cli.compare", "the difference of evaluations, query by query, with p-values"),
    "repair-curve": ("mithridate.cli.repair_curve", "attack success against utility while a model is repaired"),
    "study": ("mithridate.cli.study", "every cell of a grid trained and measured: tables, figures, a page"),
    "push": ("mithridate.cli.push", "a poisoned set or a model to the Hugging Face hub, with a card"),
    "check-plugin": ("mithridate.cli.check_plugin", "do the methods of a file of your own keep the contract"),
    "report": ("mithridate.cli.report", "render a report again"),
}

GROUPS = ("data", "poison", "filter")
"""Commands that have commands of their own."""

DEBUG = "MITHRIDATE_DEBUG"  # set to 1, the trace of an error is printed before its sentence
UNEXPECTED = 70  # exit code of an error that nobody foresaw (EX_SOFTWARE)

USAGE = "usage: mithridate COMMAND ...   (mithridate COMMAND --help tells its options)"


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command. Gives back its exit code.

    0, 1 for an input that cannot be used, 2 for wrong usage, 70 for an error that nobody foresaw, 128 + the number of a
    signal that stopped it.
    """
    argv = list(sys.argv[1:] if argv is None else argv)
    if not argv or argv[0] in ("-h", "--help", "help"):
        say(*_help().splitlines())
        return 0 if argv else 2
    if argv[0] in ("-V", "--version"):
        from mithridate.version import __version__

        say(__version__)
        return 0
    if argv[0] == "--print-completion":
        return _print_completion(argv[1:])
    if any("\0" in argument for argument in argv):
        return _fail("an argument holds a NUL byte, which no path can; leave it out", 2)
    if argv[0] not in COMMANDS:
        import difflib

        near = difflib.get_close_matches(argv[0], COMMANDS, n=1)
        hint = f"did you mean {near[0]}?" if near else f"the commands are {', '.join(COMMANDS)}"
        return _fail(f"no command is called {argv[0]!r}; {hint}", 2)
    return _guarded(argv)


def _print_completion(argv: Sequence[str]) -> int:
    from mithridate.cli.completion import SHELLS, completion

    if len(argv) != 1 or argv[0] not in SHELLS:
        return _fail(f"usage: mithridate --print-completion {{{','.join(SHELLS)}}}", 2)
    print(completion(argv[0]), end="")
    return 0


def _guarded(argv: list[str]) -> int:
    from mithridate.errors import MithridateError
    from mithridate.folders import AlreadyDone
    from mithridate.processes import Stopped, stoppable

    try:
        # released last: a signal then ends the process, and its result has been said or its lock tells of it
        with _said_warnings(), _released(), stoppable():
            _say_loading(argv)
            # a command may give back another code than 0: its work is done, and something in it failed
            return importlib.import_module(COMMANDS[argv[0]][0]).run(argv[1:]) or 0
    except AlreadyDone as done:
        say(f"mithridate: {done}", stderr=True)
        return 0
    except MithridateError as error:
        # under torchrun every process meets the same refusal: the first says it
        return _fail(str(error), 1) if os.environ.get("RANK", "0") == "0" else 1
    except BrokenPipeError:  # `mithridate ... | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:
        named = isinstance(error.filename, str | bytes)
        where = f" on {one_line(os.fsdecode(error.filename), limit=300)}" if named else ""
        return _fail(f"I/O error{where}: {error.strerror or error}; check the path, its rights and the disk", 1)
    except Stopped as stopped:
        return _fail(f"stopped by {stopped}; run the same command again to go on", stopped.code)
    except KeyboardInterrupt:
        return _fail("stopped; run the same command again to go on", 130)
    except MemoryError:
        return _fail("there is not enough memory for this; take smaller batches or images, or fewer pairs", 1)
    except Exception as error:
        kind = type(error).__name__
        return _fail(f"unexpected {kind}: {one_line(error, limit=300)}; {DEBUG}=1 shows where", UNEXPECTED)


def _say_loading(argv: Sequence[str]) -> None:
    """Something on a terminal at once: the libraries that a command needs take seconds."""
    if sys.stderr.isatty() and not {"--json", "--help", "-h"} & set(argv):
        name = " ".join(argv[: 2 if argv[0] in GROUPS else 1])
        say(f"mithridate {one_line(name)}: loading ...", stderr=True)


@contextmanager
def _released() -> Iterator[None]:
    """At the end, other commands may write the folder that this one wrote."""
    try:
        yield
    finally:
        common = sys.modules.get("mithridate.cli.common")
        if common is not None:
            common.CLAIMS.__exit__(*sys.exc_info())  # a claim is told how the command ended


class _Said(logging.Handler):
    """What the package logs, in the form of its other messages, on the standard error of the moment."""

    def emit(self, record: logging.LogRecord) -> None:
        say(f"mithridate: {record.levelname.lower()}: {shortened(record.getMessage())}", stderr=True)


@contextmanager
def _said_warnings() -> Iterator[None]:
    log, handler = logging.getLogger("mithridate"), _Said(logging.WARNING)
    propagated, log.propagate = log.propagate, False  # libraries put handlers of their own on the root
    log.addHandler(handler)
    try:
        yield
    finally:
        log.removeHandler(handler)
        log.propagate = propagated


def _fail(message: str, code: int) -> int:
    if os.environ.get(DEBUG, "0") not in ("", "0") and sys.exc_info()[0] is not None:
        say(*traceback.format_exc().splitlines(), stderr=True)
    say(f"mithridate: {shortened(message)}", stderr=True)
    return code


def _help() -> str:
    width = max(map(len, COMMANDS))
    lines = [f"  {name:<{width}}  {what}" for name, (_, what) in COMMANDS.items()]
    rest = (
        "Poison, train, embed, evaluate: each reads folders and writes one folder.",
        "Every command takes --config FILE (YAML). mithridate --print-completion bash|zsh completes in a shell.",
    )
    return "\n".join([USAGE, "", *rest, "", *lines])
