"""Leak test of every attack: do files and positions alone tell poison from clean, on JPEG and on PNG sources?

    OMP_NUM_THREADS=1 python benchmarks/leak_test.py [--photographs SHARDS] [--count 200] [--formats table webdataset]

Each attack of the registry, each kind of trigger and the options that change files, on real photographs (JPEG, tar
shards; left out where they are not there) and on the toy world (PNG). The set is written out, read back and looked at
as `mithridate poison` does. Printed is the area under the ROC curve with its 95 % interval, which should hold 0.5; of
40 sets without any leak two do not on average.
"""

import argparse
import shutil
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np

import mithridate as mt
from mithridate.data.write import write_table, write_webdataset
from mithridate.evaluation.leak_test import leak_test
from mithridate.poisoning.apply import Poisoned
from mithridate.poisoning.plan import Attack

PHOTOGRAPHS = "../shared/data/flickr8k/train-{003..005}.tar"
TRIGGERS = ("blended", "sig", "warp", "filter", "stripes", "triangles", "text", "fresh-noise", "patch+sig")


def attacks(a: str, b: str, others: tuple[str, str], count: int) -> dict[str, Attack]:
    """Attacks that make `count` poisoned pairs, with classes A and B; `others`: a second goal."""
    label = mt.SingleLabel(source=a, target=b, count=count)
    backdoor = mt.Backdoor(target=b, trigger="patch", count=count)
    goals = (f"{a}:{b}", ":".join(others))
    return {
        "single-image": mt.SingleImage(source=a, target=b, count=count),
        "single-label": label,
        "single-label, inject": replace(label, mode="inject"),
        "single-label, mixed, collage": replace(label, mixed=True, collage=0.4),
        "multi-label": mt.MultiLabel(goals=goals, count=-(-count // 2)),
        "backdoor": backdoor,
        "backdoor, inject": replace(backdoor, mode="inject"),
        "backdoor, templates": replace(backdoor, captions="templates"),
        "backdoor, label-consistent": replace(backdoor, captions="label-consistent"),
        **{f"backdoor, {trigger}": replace(backdoor, trigger=trigger) for trigger in TRIGGERS},
        "badclip": mt.BadClip(target=b, patch=f"pixels:values={'AAz_' * 9},size=16/224", count=count),
        "targeted": mt.Targeted(images=-(-count // 5), per_target=5, reuse=True),
        "targeted, replace": mt.Targeted(images=-(-count // 5), per_target=5, classes=(a,), mode="replace"),
        "text-trigger": mt.TextTrigger(target=b, trigger="verily so", count=count),
    }


def written(done: Poisoned, folder: Path, form: str) -> mt.Pairs:
    folder.mkdir()
    if form == "table":
        write_table(done.pairs, folder, copy_images=True, records=done.records)
    else:
        write_webdataset(done.pairs, folder, records=done.records, origin=done.origin)
    return mt.read_pairs(folder)


def measure(name: str, pairs: mt.Pairs, attack: Attack, gallery: mt.Pairs, form: str, seed: int) -> bool:
    """Print a line of the table; gives back whether the interval holds 0.5."""
    clock = time.perf_counter()
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        done = mt.poison(
            pairs, attack, seed=seed, gallery=gallery if attack.needs_gallery else None, images=folder / "altered"
        )
        again = written(done, folder / "out", form)
        shutil.rmtree(folder / "altered", ignore_errors=True)
        truth = np.isin(again.uid.to_pylist(), done.manifest.poisoned["uid"].to_pylist())
        found = leak_test(again, truth, seed=seed)
    area = found.auroc
    assert area.low is not None and area.high is not None
    holds = area.low <= 0.5 <= area.high
    told = "" if holds else "  " + ", ".join(f"{kind} {e.value:.2f}" for kind, e in found.by.items())
    print(
        f"{name:<30} {form:<10} {len(done.manifest):>5} pairs, {found.poisoned:>4} of {found.samples:>5} images: "
        f"{area.value:.3f} [{area.low:.3f}, {area.high:.3f}] {'holds' if holds else 'DOES NOT HOLD'} 0.5"
        f"  ({time.perf_counter() - clock:.0f} s){told}",
        flush=True,
    )
    return holds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photographs", default=PHOTOGRAPHS)
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--formats", nargs="+", choices=("table", "webdataset"), default=["table", "webdataset"])
    parser.add_argument("--attacks", nargs="+", help="only these, by the names that are printed")
    parser.add_argument("--toy", type=int, default=2700, help="pictures of the toy world")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    held = []
    with tempfile.TemporaryDirectory() as place:
        sources = []
        if Path(options.photographs).parent.is_dir():
            pairs = mt.read_pairs(options.photographs)
            gallery = mt.read_pairs(Path(options.photographs).parent / "dev-000.tar")
            sources.append(("JPEG", pairs, gallery, ("bicycle", "boat", ("dog", "beach"))))
        else:
            print(f"{options.photographs} is not here, so no photographs are looked at")
        toy = mt.write_toy_world(Path(place) / "toy", train=options.toy, test=540, seed=options.seed)
        split = {name: mt.read_pairs(toy, split=name) for name in ("train", "test")}
        sources.append(("PNG", split["train"], split["test"], ("sheep", "aeroplane", ("dog", "cat"))))
        for kind, pairs, gallery, (a, b, others) in sources:
            print(f"{kind}: {len(pairs):,} pairs of {len(pairs.images):,} images")
            for name, attack in attacks(a, b, others, options.count).items():
                if options.attacks and name not in options.attacks:
                    continue
                for form in options.formats:
                    held.append(measure(name, pairs, attack, gallery, form, options.seed))  # noqa: PERF401 (prints as it goes)
    print(f"{sum(held)} of {len(held)} intervals hold 0.5")


if __name__ == "__main__":
    main()
