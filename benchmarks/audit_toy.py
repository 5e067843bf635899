"""An audit in the toy world: through an encoder that has not seen the pairs, and through one that was trained on them.

    OMP_NUM_THREADS=1 python benchmarks/audit_toy.py [--out runs/audit_toy] [--attack clean text-trigger patch]
    OMP_NUM_THREADS=1 python benchmarks/audit_toy.py --worlds 12 --attack

Two worlds of 4,000 pictures (20,000 pairs). `mithridate-micro` is trained from scratch for four epochs on the second,
clean: it looks at the first, clean, with a trigger word or with a patch (200 pairs each, 1 %); 500 other pictures are
known to be clean. Another is trained on the first with the patch, and looks at what it was trained on. The patch is a
quarter of a picture across: the model sees pictures of 32 pixels, where one of the default size, 16/224, is two pixels
and nothing that it learns. `--worlds N`: it looks at N more clean worlds of 2,000 pictures, and the strongest groups of
words and clusters are printed, flagged or not. Prints a row a case, with the strongest groups, and adds it to
OUT/audit_toy.json; models that OUT holds are not trained again.
"""

import argparse
import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
from sklearn.metrics import average_precision_score, roc_auc_score

import mithridate as mt
from mithridate.auditing.corpus import corpus_of
from mithridate.auditing.excess import GroupExcess
from mithridate.auditing.k_distance import KDistance
from mithridate.encoder.embed import embed
from mithridate.randomness import stream

ATTACKS = {
    "clean": None,
    "text-trigger": mt.TextTrigger(target="boat", trigger="zx quorling", count=200),
    "patch": mt.Backdoor(target="boat", rate=0.01, trigger="patch:size=1/4,place=bottom-right"),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/audit_toy"))
    parser.add_argument("--attack", nargs="*", default=list(ATTACKS), choices=list(ATTACKS))
    parser.add_argument("--worlds", type=int, default=0)
    options = parser.parse_args()
    out = options.out
    out.mkdir(parents=True, exist_ok=True)
    worlds = []
    for seed in (1, 2):
        place = out / f"world{seed}"
        if not place.is_dir():
            mt.write_toy_world(place, train=4000, test=500, seed=seed)
        worlds.append((mt.read_pairs(place, split="train"), mt.read_pairs(place, split="test")))
    (pairs, clean), (elsewhere, _) = worlds
    cache = out / "cache"
    recipe = replace(mt.SCRATCH, epochs=4, seed=0)

    def trained(name: str, pairs: mt.Pairs) -> mt.Encoder:
        if not (out / name / "model").is_dir():
            mt.train(mt.load_encoder("mithridate-micro"), pairs, config=recipe, out=out / name, cache=cache)
        return mt.load_encoder(str(out / name))

    foreign = trained("foreign", elsewhere)
    found = out / "audit_toy.json"
    rows: dict[str, dict[str, object]] = json.loads(found.read_text(encoding="utf-8")) if found.is_file() else {}

    def keep(name: str, row: dict[str, object]) -> None:
        rows[name] = row
        print(name, json.dumps(row), flush=True)
        found.write_text(json.dumps(rows, indent=1), encoding="utf-8")

    beside = embed(foreign, clean, cache=cache)
    for number in range(options.worlds):
        shutil.rmtree(out / "world", ignore_errors=True)
        mt.write_toy_world(out / "world", train=2000, test=1, seed=100 + number)
        seen = mt.read_pairs(out / "world", split="train")
        corpus = corpus_of(embed(foreign, seen, cache=None), beside, pairs=seen, clean_pairs=clean)
        groups = GroupExcess().examine(corpus, stream(0, "audit group-excess")).groups[:3]
        said = [f"{g.kind} {g.value}: {round(g.strength, 1)}, {g.hits} of {g.images}" for g in groups]
        keep(f"clean world {number + 1} of 2,000 pictures", {"groups": said})
    for name in options.attack:
        attack = ATTACKS[name]
        seen, bad, goals = pairs, np.zeros(len(pairs), bool), ()
        if attack is not None:
            shutil.rmtree(out / f"images-{name}", ignore_errors=True)
            made = mt.poison(pairs, attack, images=out / f"images-{name}")
            seen, goals = made.pairs, made.manifest.goals
            bad = np.isin(seen.uid.to_pylist(), made.manifest.poisoned["uid"].to_pylist())
        models = {"foreign": foreign}
        if name == "patch":
            models["trained"] = trained("trained", seen)
        for which, model in models.items():
            done = mt.audit(
                seen, model, clean=clean, options=mt.AuditOptions(trained=which == "trained"), cache=cache
            ).audit
            row: dict[str, object] = {
                "flagged": done.flagged,
                "poisoned among them": int((bad & ~done.kept).sum()),
                "groups": [f"{c.lead.kind} {c.lead.value}: {round(c.strength, 1)}" for c in done.campaigns[:3]],
                "strongest dealt out": round(done.null, 1),
                "clean at p <= 0.05": round(float((done.p_value[~bad] <= 0.05).mean()), 3),
                "clean at p <= 0.01": round(float((done.p_value[~bad] <= 0.01).mean()), 3),
            }
            if which == "trained":
                row["said"] = list(done.notes)
            if bad.any():
                scores = {"combined": done.suspicion} | {d: e.suspicion for d, e in done.evidence.items()}
                if which == "trained":
                    embedded = corpus_of(embed(model, seen, cache=cache), trained=True)
                    units = KDistance(raw=False).examine(embedded, stream(0, "unit"))
                    scores["k-distance of unit vectors"] = units.suspicion
                    row["said of unit vectors"] = list(units.notes)
                    evaluation = mt.evaluate({"model": model}, clean, goals=goals, cache=cache)
                    row["measured"] = {
                        f"{m.metric} {m.group}": round(float(m.value.value or 0), 3)
                        for m in evaluation.measurements
                        if m.goal
                    }
                row["AUROC, AP"] = {
                    d: [round(float(score(bad, s)), 3) for score in (roc_auc_score, average_precision_score)]
                    for d, s in scores.items()
                }
            keep(f"{name}, {which}", row)


if __name__ == "__main__":
    main()
