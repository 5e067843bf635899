"""Forks a process that has everything imported for each command, so that a kill costs no start of Python.

Each line of input is a command, as JSON: {"argv": [...], "cwd": "..."}. Answers with its process at once, with its exit
code when it has ended. Every command has a session of its own, in which its workers are found.
"""

import json
import os
import sys


def on_a_small_world() -> None:
    """Let `mithridate demo`, which has no options for that, draw a few pictures instead of thousands."""
    from mithridate.cli import demo_plan, loop

    small = {"start": 18, "own": 45, "scraped": 18, "test": 9, "triggered": 10, "batch_size": 16, "start_epochs": 1}
    loop.WORLD = demo_plan.World(classes=("sheep", "aeroplane", "boat"), **small)


def main() -> None:
    from mithridate.cli import COMMANDS
    from mithridate.cli import main as command
    from mithridate.encoder.encoder import load_encoder

    for module, _ in COMMANDS.values():
        __import__(module)
    load_encoder("mithridate-micro")
    on_a_small_world()
    for line in sys.stdin:
        wanted = json.loads(line)
        pid = os.fork()
        if pid == 0:
            os.setsid()
            os.chdir(wanted["cwd"])
            said = os.open(wanted["said"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            os.dup2(said, 1)
            os.dup2(said, 2)
            code = 99
            try:
                code = command(wanted["argv"])
            except SystemExit as exited:
                code = int(exited.code or 0)
            finally:
                sys.stdout.flush()
                sys.stderr.flush()
                os._exit(code)
        print(json.dumps({"pid": pid}), flush=True)
        status = os.waitpid(pid, 0)[1]
        print(json.dumps({"code": os.waitstatus_to_exitcode(status)}), flush=True)


if __name__ == "__main__":
    main()
