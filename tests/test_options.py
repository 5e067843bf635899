"""Options on the command line and in a `--config` file: names, values, which wins; the shell's completion."""

import re
import shlex
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from pydantic import TypeAdapter

from mithridate.cli import COMMANDS, main
from mithridate.cli.common import parse
from mithridate.cli.completion import completion, kinds
from mithridate.cli.data import Toy
from mithridate.cli.examples import EXAMPLES, example
from mithridate.cli.options import flag, options_of
from mithridate.cli.poison import Poison
from mithridate.cli.train import Train
from mithridate.poisoning.registry import ATTACKS
from mithridate.training.registry import OBJECTIVES

KINDS = kinds()


def parsed(monkeypatch, *argv):
    """The value of a command that would be run."""
    found = []
    for kind in (Train, Toy):
        monkeypatch.setattr(kind, "run", lambda self: found.append(self))
    assert main(list(argv)) == 0
    return found[0]


def file_of(tmp_path, text):
    path = tmp_path / "options.yaml"
    path.write_text(text)
    return str(path)


def test_every_command_has_its_options_and_an_example():
    assert {prog.split()[0] for prog in KINDS} == COMMANDS.keys()
    assert EXAMPLES.keys() <= KINDS.keys()
    assert all(example(prog) for prog in KINDS)


@pytest.mark.parametrize("prog", KINDS)
def test_the_example_in_the_help_is_a_call_that_the_command_takes(prog, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words = shlex.split(example(prog) or "")
    called = ["mithridate", *prog.split()]
    assert words[: len(called)] == called
    argv = [word.replace("runs/", "") for word in words[len(called) :]]
    parse(KINDS[prog], argv, prog=prog, default=None)


def test_a_file_may_name_what_the_help_names(capsys):
    """`options_of` reads dataclasses, the help is tyro's: they must not drift apart."""
    for prog, kind in KINDS.items():
        with pytest.raises(SystemExit):
            parse(kind, ["--help"], prog=prog)
        shown = capsys.readouterr().out
        assert "Example: mithridate" in shown and "--config FILE" in shown
        flags = set(re.findall(r"^\W{2,3}(--[a-z][a-z0-9-]+|-[a-z](?= ))", shown, flags=re.MULTILINE))
        options = options_of(kind)
        assert flags - {"-h"} == {flag(name) for name, option in options.items() if not option.positional}, prog
        for option in options.values():
            TypeAdapter(option.type)  # raises for a type that no file can hold


def test_a_file_and_the_command_line_say_the_same(tmp_path, monkeypatch):
    text = "data: toy\nout: run\nepochs: 3\nlr: 1e-3\nfreeze: [image, text]\nsave_epochs: true\nsplit: train\n"
    config = file_of(tmp_path, text + "objective: roclip\npool_size: 12\n")
    said = [
        *("train", "toy", "--out", "run", "--epochs", "3", "--lr", "1e-3", "--freeze", "image", "text"),
        *("--save-epochs", "--split", "train", "--objective", "roclip", "--pool-size", "12"),
    ]
    monkeypatch.chdir(tmp_path)
    by_file, by_words = parsed(monkeypatch, "train", "--config", config), parsed(monkeypatch, *said)
    assert by_file == by_words
    assert isinstance(by_file.out, Path) and by_file.config.freeze == ("image", "text")


def test_the_command_line_wins(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config = file_of(tmp_path, "data: toy\nout: run\nepochs: 3\nsave-epochs: true\nfreeze: image\nobjective: roclip\n")
    own = ["other", "--epochs=5", "--no-save-epochs", "--freeze", "text", "--objective", "par"]
    run = parsed(monkeypatch, "train", *own, "--config", config)
    assert (run.data, run.config.epochs, run.config.save_epochs, run.config.freeze) == ("other", 5, False, ("text",))
    assert isinstance(run.options, OBJECTIVES["par"])


def test_what_must_be_given_may_stand_in_the_file_or_in_the_call(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config = file_of(tmp_path, "source: sheep\nclean: trusted\n")
    argv = ["toy", "--target", "bird", "--out", "p", "--test", "held-out", "--config", config]
    made: Any = parse(Poison[ATTACKS["single-label"]], argv, prog="poison single-label")
    assert (made.attack.source, made.attack.target) == ("sheep", "bird")
    assert (made.check.clean, made.check.test) == ("trusted", "held-out")  # neither alone is allowed


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("epochz: 3\n", "options.yaml, line 1: there is no option epochz; did you mean epochs?"),
        ("epochs: 3\nlr: [1]\n", "options.yaml, line 2: lr: input should be a valid number, got [1]"),
        ("augment: flip\n", "line 1: augment: input should be 'none' or 'crop', got 'flip'"),
        ("- a\n", "line 1: a file of options should be a mapping (name: value), got ['a']"),
        ("epochs: 1\nepochs: 2\n", "'epochs' is given twice"),
        ("data: toy\nout: run\nepochs: -1\n", "epochs must be at least 1, got -1"),
    ],
)
def test_a_wrong_file_is_one_sentence(text, message, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["train", "--config", file_of(tmp_path, text)]) == 1
    said = capsys.readouterr().err
    assert message in said and len(said.splitlines()) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["options.yaml"]


def test_two_files_and_a_missing_one_are_refused(tmp_path, capsys):
    assert main(["train", "--config", "a", "--config", "b"]) == 1
    assert "expected one --config FILE, got 2" in capsys.readouterr().err
    assert main(["train", "--config", str(tmp_path / "none.yaml")]) == 1
    assert "none.yaml cannot be read: No such file" in capsys.readouterr().err


def test_a_folder_that_holds_the_file_is_not_replaced(tmp_path, capsys):
    config = file_of(tmp_path, "train: 9\n")
    assert main(["data", "toy", "--config", config, "--out", str(tmp_path), "--overwrite"]) == 1
    assert "which this command reads" in capsys.readouterr().err
    assert Path(config).is_file()


@pytest.mark.parametrize(
    ("argv", "hint"),
    [
        (["train", "toy", "--epoch", "3"], "has no option --epoch; did you mean --epochs?"),
        (["poison", "backdoor", "toy", "--triger=sig"], "has no option --triger; did you mean --trigger?"),
        (["embed", "toy", "--qqqq"], "has no option --qqqq; mithridate embed --help lists"),
    ],
)
def test_an_unknown_option_gets_the_nearest_name(argv, hint, capsys):
    with pytest.raises(SystemExit) as end:
        main(argv)
    assert end.value.code == 2 and hint in capsys.readouterr().err


def completed(script, *words):
    """What bash offers for the last of `words`."""
    line = " ".join(map(shlex.quote, words))
    ask = f'{script}\nCOMP_WORDS=({line}); COMP_CWORD={len(words) - 1}; _mithridate; echo "${{COMPREPLY[@]}}"'
    return subprocess.run(["bash", "-c", ask], capture_output=True, text=True, check=True).stdout.split()


@pytest.mark.skipif(shutil.which("bash") is None, reason="there is no bash here")
def test_bash_completes_commands_options_choices_and_files(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "toy.csv").touch()
    script = completion("bash")
    assert completed(script, "mithridate", "rep") == ["repair", "repair-curve", "report"]
    assert completed(script, "mithridate", "poison", "single") == ["single-image", "single-label"]
    assert completed(script, "mithridate", "embed", "to") == ["toy.csv"]
    assert completed(script, "mithridate", "poison", "backdoor", "toy.csv", "--trig") == ["--trigger"]
    assert completed(script, "mithridate", "train", "toy.csv", "--objective", "ro") == ["roclip"]
    assert completed(script, "mithridate", "data", "toy", "--no-o") == ["--no-overwrite"]


def test_the_script_is_printed_for_the_shells_there_are(capsys):
    assert main(["--print-completion", "zsh"]) == 0
    assert "bashcompinit" in capsys.readouterr().out
    assert main(["--print-completion", "tcsh"]) == 2
    assert "{bash,zsh}" in capsys.readouterr().err
