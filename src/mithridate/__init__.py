"""Poisoning and backdoors in CLIP-style image-text encoders: done, measured, prevented, found and repaired."""

import importlib
from typing import TYPE_CHECKING, Any

from mithridate.errors import (
    AttackError,
    DataError,
    EncoderError,
    EvaluationError,
    MithridateError,
    OutputError,
)
from mithridate.version import __version__

if TYPE_CHECKING:
    from mithridate.data.labelled import read_labelled, write_clip_benchmark
    from mithridate.data.pairs import Pairs, concat_pairs, make_pairs
    from mithridate.data.read import read_pairs
    from mithridate.data.toy_world import write_toy_world
    from mithridate.encoder.embed import embed
    from mithridate.encoder.embeddings import Embeddings, read_embeddings, write_embeddings
    from mithridate.encoder.encoder import Encoder, load_encoder, save_encoder
    from mithridate.evaluation.compare import compare
    from mithridate.evaluation.evaluate import evaluate
    from mithridate.evaluation.probe import AdamWProbe, LbfgsProbe
    from mithridate.evaluation.result import Report, read_report
    from mithridate.evaluation.success import attack_success_rate, poison_success_rate
    from mithridate.evaluation.zeroshot import Classified, zero_shot
    from mithridate.poisoning.apply import Poisoned, poison
    from mithridate.poisoning.manifest import Manifest, read_manifest, write_manifest
    from mithridate.poisoning.plan import Goal, PoisonPlan
    from mithridate.poisoning.registry import ATTACKS
    from mithridate.poisoning.relabel import MultiLabel, SingleImage, SingleLabel
    from mithridate.report.write import write_report
    from mithridate.training.clip import Clip
    from mithridate.training.config import SCRATCH, TrainConfig
    from mithridate.training.loop import train
    from mithridate.training.registry import OBJECTIVES

# Imported when first asked for: `import mithridate` must not load torch.
_WHERE = {
    "ATTACKS": "poisoning.registry",
    "AdamWProbe": "evaluation.probe",
    "Classified": "evaluation.zeroshot",
    "Clip": "training.clip",
    "Embeddings": "encoder.embeddings",
    "Encoder": "encoder.encoder",
    "Goal": "poisoning.plan",
    "LbfgsProbe": "evaluation.probe",
    "Manifest": "poisoning.manifest",
    "MultiLabel": "poisoning.relabel",
    "OBJECTIVES": "training.registry",
    "Pairs": "data.pairs",
    "PoisonPlan": "poisoning.plan",
    "Poisoned": "poisoning.apply",
    "Report": "evaluation.result",
    "SCRATCH": "training.config",
    "SingleImage": "poisoning.relabel",
    "SingleLabel": "poisoning.relabel",
    "TrainConfig": "training.config",
    "attack_success_rate": "evaluation.success",
    "compare": "evaluation.compare",
    "concat_pairs": "data.pairs",
    "embed": "encoder.embed",
    "evaluate": "evaluation.evaluate",
    "load_encoder": "encoder.encoder",
    "make_pairs": "data.pairs",
    "poison": "poisoning.apply",
    "poison_success_rate": "evaluation.success",
    "read_embeddings": "encoder.embeddings",
    "read_labelled": "data.labelled",
    "read_manifest": "poisoning.manifest",
    "read_pairs": "data.read",
    "read_report": "evaluation.result",
    "save_encoder": "encoder.encoder",
    "train": "training.loop",
    "write_clip_benchmark": "data.labelled",
    "write_embeddings": "encoder.embeddings",
    "write_manifest": "poisoning.manifest",
    "write_report": "report.write",
    "write_toy_world": "data.toy_world",
    "zero_shot": "evaluation.zeroshot",
}

__all__ = [
    "ATTACKS",
    "OBJECTIVES",
    "SCRATCH",
    "AdamWProbe",
    "AttackError",
    "Classified",
    "Clip",
    "DataError",
    "Embeddings",
    "Encoder",
    "EncoderError",
    "EvaluationError",
    "Goal",
    "LbfgsProbe",
    "Manifest",
    "MithridateError",
    "MultiLabel",
    "OutputError",
    "Pairs",
    "PoisonPlan",
    "Poisoned",
    "Report",
    "SingleImage",
    "SingleLabel",
    "TrainConfig",
    "__version__",
    "attack_success_rate",
    "compare",
    "concat_pairs",
    "embed",
    "evaluate",
    "load_encoder",
    "make_pairs",
    "poison",
    "poison_success_rate",
    "read_embeddings",
    "read_labelled",
    "read_manifest",
    "read_pairs",
    "read_report",
    "save_encoder",
    "train",
    "write_clip_benchmark",
    "write_embeddings",
    "write_manifest",
    "write_report",
    "write_toy_world",
    "zero_shot",
]


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module 'mithridate' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"mithridate.{_WHERE[name]}"), name)

    globals()[name] = value
    return value
