"""`mithridate --print-completion bash|zsh`: a script that completes commands, options and choices."""

import importlib
from typing import Any

from mithridate.cli.options import flag, options_of

SHELLS = ("bash", "zsh")

_SCRIPT = """_mithridate() {
  local cur="${COMP_WORDS[COMP_CWORD]}" prev="${COMP_WORDS[COMP_CWORD-1]}" first="${COMP_WORDS[1]}" words=""
  local both="$first ${COMP_WORDS[2]}"
  if [ "$COMP_CWORD" = 1 ]; then
    words="@COMMANDS@"
  elif [ "$COMP_CWORD" = 2 ]; then
    case "$first" in
@SECOND@
    esac
  fi
  if [[ "$cur" == -* ]]; then
    case "$both" in
@OPTIONS@
    esac
  fi
  case "$both $prev" in
@CHOICES@
  esac
  COMPREPLY=()
  if [ -n "$words" ]; then
    COMPREPLY=($(compgen -W "$words" -- "$cur"))
  fi
  if [ ${#COMPREPLY[@]} = 0 ] && [[ "$cur" != -* ]]; then
    COMPREPLY=($(compgen -f -- "$cur"))
  fi
}
complete -o filenames -F _mithridate mithridate
"""


def kinds() -> dict[str, Any]:
    """The dataclass of every command, by what follows `mithridate` in its usage; all plain to import."""
    from mithridate.auditing.registry import DETECTORS
    from mithridate.cli.data import COMMANDS
    from mithridate.cli.filter import Filter
    from mithridate.cli.poison import Poison
    from mithridate.cli.repair_curve import RepairCurve
    from mithridate.cli.train import Train
    from mithridate.poisoning.registry import ATTACKS
    from mithridate.training.registry import OBJECTIVES

    clip: Any = OBJECTIVES["clip"]
    return {
        **{name: _kind(*where) for name, where in _PLAIN.items()},
        **{f"data {name}": kind for name, kind in COMMANDS.items()},
        **{f"poison {name}": Poison[attack] for name, attack in ATTACKS.items()},
        **{f"filter {name}": Filter[detector] for name, detector in DETECTORS.items()},
        "train": Train[clip],
        "repair-curve": RepairCurve[clip],
    }


_PLAIN = {
    "demo": ("demo", "Demo"),
    "embed": ("embed", "Embed"),
    "audit": ("audit", "Audit"),
    "inspect": ("inspect", "Inspect"),
    "screen": ("screen", "ScreenImages"),
    "repair": ("repair", "RepairModel"),
    "evaluate": ("evaluate", "Evaluate"),
    "classify": ("classify", "Classify"),
    "compare": ("compare", "Compare"),
    "study": ("study", "StudyCommand"),
    "study status": ("study", "Status"),
    "study leaderboard": ("study", "Leaderboard"),
    "push": ("push", "PushCommand"),
    "check-plugin": ("check_plugin", "CheckPlugin"),
    "report": ("report", "Render"),
}


def _kind(module: str, name: str) -> Any:
    return getattr(importlib.import_module(f"mithridate.cli.{module}"), name)


def completion(shell: str) -> str:
    """The script for `shell`, one of `SHELLS`. zsh, after `compinit`, reads bash's."""
    from mithridate.cli import COMMANDS
    from mithridate.training.registry import OBJECTIVES

    found = kinds()
    second: dict[str, list[str]] = {"study": ["list"]}
    for prog in found:
        if " " in prog:
            second.setdefault(prog.split()[0], []).append(prog.split()[1])
    options, choices = [], []
    # a name of two words is met before its first word alone
    for prog, kind in sorted(found.items(), key=lambda item: -item[0].count(" ")):
        known = {name: option for name, option in options_of(kind).items() if not option.positional}
        words = [flag(name) for name in known] + ["--config", "--help"]
        words += [f"--no-{name}" for name, option in known.items() if option.type is bool]
        pattern = f'"{prog}"' if " " in prog else f'"{prog} "*'
        options.append(f'      {pattern}) words="{" ".join(words)}" ;;')
        listed = {name: option.choices for name, option in known.items()}
        if "objective" in known:
            listed["objective"] = tuple(OBJECTIVES)
        choices += [
            f'    "{prog}"*" {flag(name)}") words="{" ".join(words)}" ;;' for name, words in listed.items() if words
        ]
    parts = {
        "@COMMANDS@": " ".join(COMMANDS),
        "@SECOND@": "\n".join(f'      {name}) words="{" ".join(words)}" ;;' for name, words in second.items()),
        "@OPTIONS@": "\n".join(options),
        "@CHOICES@": "\n".join(choices),
    }
    script = _SCRIPT
    for name, text in parts.items():
        script = script.replace(name, text)
    return ("autoload -U +X bashcompinit && bashcompinit\n" if shell == "zsh" else "") + script
