"""What `mithridate demo` goes through: poison, train, measure, audit, inspect, repair, verify, on toy worlds."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from mithridate.auditing.audit import AuditOptions
from mithridate.auditing.audit_files import summary as audit_summary
from mithridate.auditing.data import DataAudit, audit
from mithridate.cli.demo_plan import WORLD, Plan
from mithridate.cli.progress import Display
from mithridate.data.pairs import Pairs
from mithridate.data.read import read_pairs
from mithridate.data.write import write_table
from mithridate.encoder.encoder import Encoder, load_encoder, save_encoder
from mithridate.evaluation.evaluate import evaluate
from mithridate.evaluation.evaluation_file import write_evaluation
from mithridate.evaluation.measurement import Evaluation
from mithridate.folders import new_folder
from mithridate.inspection.findings_file import summary as inspection_summary
from mithridate.inspection.inspect import Inspection, inspect
from mithridate.poisoning.apply import poison
from mithridate.poisoning.backdoor import Backdoor
from mithridate.poisoning.combined import Combined
from mithridate.poisoning.manifest import Manifest, read_manifest, write_manifest
from mithridate.poisoning.relabel import SingleLabel
from mithridate.repairing.repair import Repaired, repair
from mithridate.report.numbers import percent, show
from mithridate.report.review import title, write_review
from mithridate.report.sections.evaluation import evaluation_report
from mithridate.report.verdict import (
    repair_sentence,
    repair_summary,
    sentence,
    verdict_sentence,
    write_inspection,
    write_repair,
)
from mithridate.report.walk import Headline, Step, Walk
from mithridate.report.write import write_report
from mithridate.toy.world import write_toy_world
from mithridate.training.config import SCRATCH, TrainConfig
from mithridate.training.loop import train
from mithridate.training.run import METRICS, MODEL, epoch_folder, read_run

ENCODER, SIZE = "mithridate-micro", 32
PATCH = "patch:size=8,place=bottom-right"
MAX_LOSS = 0.05  # of 140 images, which are half of those that the user has


@dataclass
class Loop:
    """One walk through all steps. `say` prints a line; `first`: after how many seconds a figure stood on the screen."""

    out: Path
    plan: Plan
    show: Display
    say: Callable[[str, str], None]
    first: float = 0.0
    steps: list[Step] = field(default_factory=list)
    began: float = field(default_factory=time.monotonic)

    def go(self) -> tuple[Walk, dict[str, Any]]:
        """Every step in turn; what was trained before a kill is not trained again."""
        own, scraped, test = self._draw()
        manifest, poisoned_pairs = self._poison(scraped)
        start, clean, poisoned = self._train(scraped, poisoned_pairs, test)
        models = {"poisoned": poisoned, "clean": clean}
        self._measure(models, test, manifest)
        audited = self._audit(poisoned_pairs, start, own, manifest)
        inspection = self._inspect(poisoned, start, own)
        repaired = self._repair(poisoned, inspection, start, own)
        if repaired is not None:
            models["repaired"] = repaired.encoder
        evaluation = self._verify(models, test, manifest)
        report = evaluation_report(evaluation)
        with new_folder(self.out / "measured", overwrite=True) as folder:
            write_evaluation(evaluation, folder)
            write_report(report, folder)
        walk = Walk(
            report,
            audited,
            inspection,
            repaired,
            tuple(self.steps),
            self._headlines(evaluation),
        )
        return walk, {
            "audit": {**audit_summary(audited.audit), **_found(audited, manifest)},
            "inspect": inspection_summary(inspection),
            "repair": None if repaired is None else repair_summary(repaired),
        }

    # --- the steps ----------------------------------------------------------------------------------------

    def _draw(self) -> tuple[Pairs, Pairs, Pairs]:
        w, seed = WORLD, self.plan.seed
        self._begin(
            "draw",
            f"A world of {len(w.classes)} classes is drawn by code: {show(w.start).value} captioned pictures that are "
            f"trusted, and {show(w.scraped).value} that stand for scraped ones.",
            "mithridate data toy --size 32 --train 2000 --test 280 --out toy",
        )
        for name, pictures, beside, of in (
            ("trusted", w.start, w.own, 2 * seed + 1),
            ("scraped", w.scraped, w.test, 2 * seed),
        ):
            if not (self.out / name).is_dir():
                write_toy_world(
                    self.out / name,
                    train=pictures,
                    test=beside,
                    seed=of,
                    size=SIZE,
                    classes=w.classes,
                    progress=lambda done, total, name=name: self.show.stage(f"drawing {name} pictures", done, total),
                )
        return (
            read_pairs(self.out / "trusted", split="test"),
            read_pairs(self.out / "scraped", split="train"),
            read_pairs(self.out / "scraped", split="test"),
        )

    def _poison(self, scraped: Pairs) -> tuple[Manifest, Pairs]:
        p, folder = self.plan, self.out / "poison"
        self._begin(
            "poison",
            f"An attacker edits the scraped pairs: captions of {p.source} go to images of {p.target}, and a small "
            f"patch goes onto images whose captions then say {p.triggered}.",
            f"mithridate poison single-label toy --split train --source {p.source} --target {p.target} --out poisoned",
        )
        if not folder.is_dir():
            attack = Combined(
                attacks=(
                    SingleLabel(source=p.source, target=p.target, class_share=p.class_share),
                    Backdoor(target=p.triggered, trigger=PATCH, count=WORLD.triggered),
                )
            )
            with new_folder(folder) as made:
                (made / "data").mkdir()
                done = poison(scraped, attack, seed=p.seed, images=made / "data" / "images", progress=self.show.stage)
                write_table(done.pairs, made / "data", copy_images=False)
                write_manifest(done.manifest, made / "manifest.json")
        manifest = read_manifest(folder)
        s = manifest.strength
        self._tell(f"{show(int(s['count']))} of {show(int(s['pairs']))} pairs are poisoned ({percent(s['rate'])}).")
        return manifest, read_pairs(folder / "data")

    def _train(self, scraped: Pairs, poisoned: Pairs, test: Pairs) -> tuple[Encoder, Encoder, Encoder]:
        self._begin(
            "train",
            "A CLIP model learns from the trusted pairs; copies of it are fine-tuned on the scraped pairs as they were "
            "(clean) and as they are (poisoned).",
            "mithridate train poisoned --encoder START --preset scratch --epochs 2 --out poisoned-run",
        )
        recipe = replace(SCRATCH, batch_size=WORLD.batch_size, seed=self.plan.seed)
        trusted = read_pairs(self.out / "trusted", split="train")
        passes = replace(recipe, epochs=WORLD.start_epochs, save_epochs=True)
        start = self._model("start", None, trusted, passes, lambda model, epoch: self._tell_utility(model, epoch, test))
        self._tell_utility(start, WORLD.start_epochs, test)
        tune = replace(recipe, epochs=self.plan.epochs, lr=1e-3)
        return start, self._model("clean", start, scraped, tune), self._model("poisoned", start, poisoned, tune)

    def _model(
        self,
        name: str,
        start: Encoder | None,
        pairs: Pairs,
        config: TrainConfig,
        after: Callable[[Encoder, int], None] | None = None,
    ) -> Encoder:
        """The trained model `name`; `after` is told the model after each epoch but the last, where epochs are kept."""
        folder = self.out / name
        bar = self.show.training(f"training the {name} model", folder / METRICS)

        def on_step(step: int, total: int, batch_size: int) -> None:
            bar(step, total, batch_size)
            epoch, steps = divmod(step, total // config.epochs)
            if after is not None and epoch and steps == 1:  # the model is kept after the epoch's last step was told
                after(load_encoder(str(epoch_folder(folder, epoch))), epoch)

        if not (folder / MODEL).is_dir():
            train(
                start or load_encoder(ENCODER, seed=self.plan.seed),
                pairs,
                config=config,
                out=folder,
                progress=self.show.stage,
                on_step=on_step,
            )
        return load_encoder(str(folder))

    def _measure(self, models: dict[str, Encoder], test: Pairs, manifest: Manifest) -> None:
        self._begin(
            "measure",
            "Only the attacker knows what was planted; with that knowledge success is measured on test pairs.",
            "mithridate evaluate poisoned-run toy --split test --manifest poisoned --clean clean-run --out report",
        )
        e = self._evaluated(models, test, manifest)
        for each in self._headlines(e):
            self._tell(f"{each.title}: {', '.join(f'{name} {value}' for name, value in each.values)}")

    def _audit(self, pairs: Pairs, start: Encoder, own: Pairs, manifest: Manifest) -> DataAudit:
        self._begin(
            "audit",
            "You do not know what was planted. Before training you would let the trusted model look at the pairs:",
            "mithridate audit MY-PAIRS --encoder TRUSTED --clean MY-CLEAN-PAIRS --out audit",
        )
        done = audit(pairs, start, clean=own, options=AuditOptions(seed=self.plan.seed), progress=self.show.stage)
        with new_folder(self.out / "audit", overwrite=True) as folder:
            write_review(done, folder)
        for each in done.audit.campaigns[:3]:
            self._tell(f"looks planted: {title(each.lead)}")
        found = _found(done, manifest)
        self._tell(
            f"would drop {show(found['planted_found'])} of {show(found['planted'])} planted pairs, and "
            f"{show(found['clean_dropped'])} of {show(len(pairs) - found['planted'])} others"
        )
        return done

    def _inspect(self, poisoned: Encoder, start: Encoder, own: Pairs) -> Inspection:
        self._begin(
            "inspect",
            f"Or you were given the model alone. {show(len(own.images))} clean images of yours, and the model that it "
            "was fine-tuned from, are enough to name what is in it:",
            "mithridate inspect MY-MODEL --data MY-CLEAN-PAIRS --start ITS-START --out verdict",
        )
        found = inspect(poisoned, own, start=start, seed=self.plan.seed, progress=self.show.stage)
        with new_folder(self.out / "verdict", overwrite=True) as folder:
            write_inspection(found, folder)
        for each in found.flagged[:3]:
            self._tell(sentence(each).rstrip("."))
        if not found.flagged:
            self._tell(verdict_sentence(found))
        return found

    def _repair(self, poisoned: Encoder, found: Inspection, start: Encoder, own: Pairs) -> Repaired | None:
        self._begin(
            "repair",
            "What was named is unlearned on half of your images; the other half says what that cost.",
            "mithridate repair MY-MODEL --findings verdict --data MY-CLEAN-PAIRS --start ITS-START --max-loss 0.05 "
            "--out repaired",
        )
        if not found.flagged:
            self._tell("there is nothing to take out")
            return None
        done = repair(
            poisoned, found, own, start=start, max_loss=MAX_LOSS, seed=self.plan.seed, progress=self.show.stage
        )
        with new_folder(self.out / "repaired", overwrite=True) as folder:
            save_encoder(done.encoder, folder, location=self.out / "repaired")
            write_repair(done, found, folder)
        self._tell(repair_sentence(done))
        return done

    def _verify(self, models: dict[str, Encoder], test: Pairs, manifest: Manifest) -> Evaluation:
        self._begin(
            "verify",
            "Back to the attacker's knowledge: what is left of what was planted?",
            "mithridate evaluate repaired toy --split test --manifest poisoned --clean clean-run --out after",
        )
        e = self._evaluated(models, test, manifest)
        for each in self._headlines(e):
            values = dict(each.values)
            self._tell(f"{each.title}: {values['poisoned']} -> {values.get('repaired', values['poisoned'])}")
        return e

    # --- parts --------------------------------------------------------------------------------------------

    def _tell_utility(self, start: Encoder, epoch: int, test: Pairs) -> None:
        utility = self._evaluated({"start": start}, test).utility()
        shown = ", ".join(f"{name} {show(m.value.value).value}" for name, m in utility.items())
        self._tell(f"after pass {epoch} of {WORLD.start_epochs}, on test pairs: {shown}")
        self.first = self.first or time.monotonic() - self.began

    def _evaluated(self, models: dict[str, Encoder], test: Pairs, manifest: Manifest | None = None) -> Evaluation:
        runs = {name: read_run(self.out / name) for name in models if (self.out / name / MODEL).is_dir()}
        reference = "clean" if "clean" in models else None
        return evaluate(
            models, test, manifest, reference=reference, seed=self.plan.seed, runs=runs, progress=self.show.stage
        )

    def _headlines(self, e: Evaluation) -> tuple[Headline, ...]:
        """Success of both attacks and what the models are good for, by model, chance last."""
        p, found = self.plan, []
        for measurements, words in (
            ([e.success(model) for model in e.models], None),
            ([e.utility(model) for model in e.models], ("TR@10", "IR@10")),
        ):
            for key in words or measurements[0]:
                each = {model: of[key] for model, of in zip(e.models, measurements) if key in of}
                if words is None:
                    captions = key == f"{p.source}:{p.target}"
                    name = f"{p.source} finds {p.target}" if captions else f"patch taken for {p.triggered}"
                else:
                    name = {"TR@10": "captions found (TR@10)", "IR@10": "images found (IR@10)"}[key]
                values = [(model, show(m.value.value).value) for model, m in each.items()]
                chance = next(iter(each.values())).chance
                if words is None and chance is not None:
                    values.append(("chance", show(float(chance)).value))
                found.append(Headline(name, tuple(values), attack=words is None))
        return tuple(found)

    def _begin(self, name: str, why: str, command: str) -> None:
        self.show.clear()
        self.steps.append(Step(name, why, (), command))
        self.say(f"{len(self.steps)} {name:<8}", why)

    def _tell(self, line: str) -> None:
        self.show.clear()
        last = self.steps[-1]
        self.steps[-1] = replace(last, lines=(*last.lines, line))
        self.say(" " * 10, line)


def _found(done: DataAudit, manifest: Manifest) -> dict[str, int]:
    """What the audit would drop, held against the truth."""
    import pyarrow.compute as pc

    planted = np.asarray(pc.is_in(done.audit.pairs.uid, value_set=pa.array(manifest.poisoned["uid"].to_pylist())))  # pyright: ignore
    dropped = ~np.asarray(done.audit.kept)
    return {
        "planted": int(planted.sum()),
        "planted_found": int((planted & dropped).sum()),
        "clean_dropped": int((~planted & dropped).sum()),
    }
