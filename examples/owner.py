"""For the owner of a checkpoint of unknown origin: does a class of captions find what it should not?

python examples/owner.py MODEL TEST_DATA SOURCE:TARGET [CLEAN_MODEL]
"""

import sys
from pathlib import Path

import mithridate as mt


def main(model: str, data: str, goal: str, clean: str | None = None, *, out: Path = Path("runs/owner")) -> mt.Report:
    """Measures the goal on the model; `clean` is a model of the same kind that is trusted."""
    models = {"suspicious": mt.load_encoder(model)} | ({"clean": mt.load_encoder(clean)} if clean else {})
    evaluation = mt.evaluate(
        models,
        mt.read_pairs(data),
        goals=(mt.CaptionsToClass.parse(goal),),
        reference="clean" if clean else None,
    )
    report = mt.evaluation_report(evaluation)
    out.mkdir(parents=True, exist_ok=True)
    mt.write_evaluation(evaluation, out)
    mt.write_report(report, out)
    print(*report.summary, f"{out / 'report.html'}", sep="\n")
    return report


if __name__ == "__main__":
    main(*sys.argv[1:5])
