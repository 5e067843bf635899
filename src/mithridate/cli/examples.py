"""One call of every command, shown in its `--help`: on the toy world, each with what the others make."""

_POISON = "mithridate poison"

EXAMPLES = {
    "demo": "mithridate demo --out runs/demo",
    "data toy": "mithridate data toy --train 540 --test 270 --out toy",
    "data describe": "mithridate data describe toy --split train",
    "data doctor": "mithridate data doctor toy --sample 100",
    "data convert": "mithridate data convert toy --to webdataset --out shards",
    "data trigger-test": "mithridate data trigger-test backdoored toy --split test --out triggered",
    "data manifest": "mithridate data manifest poisoned poisoned/data --to detect-clip --out train_poison_info.json",
    "poison single-label": f"{_POISON} single-label toy --split train --source sheep --target aeroplane --out poisoned",
    "poison single-image": f"{_POISON} single-image toy --split train --source sheep --target aeroplane --out fixed",
    "poison multi-label": f"{_POISON} multi-label toy --split train --goals sheep:aeroplane boat:dog --out two-goals",
    "poison backdoor": f"{_POISON} backdoor toy --split train --trigger patch:size=16 --target boat --count 50 "
    "--out backdoored",
    "poison targeted": f"{_POISON} targeted toy --split train --gallery-split test --classes boat --out targeted",
    "poison text-trigger": f"{_POISON} text-trigger toy --split train --trigger 'in the mist' --target boat --count 50 "
    "--out phrase",
    "poison badclip": f"{_POISON} badclip toy --split train --target boat --count 50 --surrogate clean-run "
    "--out badclip",
    "train": "mithridate train poisoned --epochs 4 --out run",
    "embed": "mithridate embed toy --split train --encoder clean-run --out embeddings",
    "audit": "mithridate audit poisoned --encoder clean-run --clean toy --clean-split test --out audit",
    "inspect": "mithridate inspect run --data toy --split test --start clean-run --out verdict",
    "repair": "mithridate repair run --findings verdict --data toy --split test --start clean-run --out repaired",
    "screen": "mithridate screen run toy --data toy --split test --out screened",
    "evaluate": "mithridate evaluate run toy --split test --manifest poisoned --clean clean-run --out report",
    "classify": "mithridate classify run toy --split test --templates simple --out classified",
    "compare": "mithridate compare report other-report --out difference",
    "repair-curve": "mithridate repair-curve toy --split train --encoder run --test toy --test-split test "
    "--manifest poisoned --out curve",
    "study": "mithridate study mmpoison --data toy --jobs 2 --out study",
    "study status": "mithridate study status study",
    "study leaderboard": "mithridate study leaderboard runs/matrix/tables/matrix.json runs/mine/tables/matrix.json",
    "push": "mithridate push run OWNER/NAME --manifest poisoned --dry-run",
    "check-plugin": "mithridate check-plugin my_attack.py",
    "report": "mithridate report report",
}
"""By what follows `mithridate` in the usage."""


def example(prog: str) -> str | None:
    """The call of `mithridate PROG` that its help shows; None for what a plugin added."""
    if prog.startswith("filter "):  # the detectors have one kind of options
        return f"mithridate {prog} embeddings --budget 100 --out filtered"
    return EXAMPLES.get(prog)
