"""Poisoning and backdoors in CLIP-style image-text encoders: done, measured, prevented, found and repaired."""

import importlib
from typing import TYPE_CHECKING, Any

from mithridate.errors import (
    AttackError,
    DataError,
    EncoderError,
    EvaluationError,
    FilterError,
    InspectionError,
    MithridateError,
    OutputError,
    PluginError,
    StudyError,
)
from mithridate.version import __version__

if TYPE_CHECKING:
    from mithridate.auditing.cosine import CosineDistance
    from mithridate.auditing.data import audit
    from mithridate.auditing.evidence import Evidence
    from mithridate.auditing.filter import Filtered, filter
    from mithridate.auditing.keep import KeepList, read_keep_list
    from mithridate.auditing.mixture import GaussianMixture
    from mithridate.auditing.neg_clip_loss import NegClipLoss
    from mithridate.auditing.output import write_filtered
    from mithridate.auditing.registry import DETECTORS
    from mithridate.auditing.scores import Scores
    from mithridate.auditing.threshold import Above, Budget, CleanQuantile
    from mithridate.data.labelled import read_labelled, write_clip_benchmark
    from mithridate.data.pairs import Pairs, concat_pairs, make_pairs
    from mithridate.data.read import read_pairs
    from mithridate.encoder.embed import embed
    from mithridate.encoder.embeddings import Embeddings, read_embeddings, write_embeddings
    from mithridate.encoder.encoder import Encoder, load_encoder, save_encoder
    from mithridate.encoder.surrogate import SurrogateEncoder
    from mithridate.evaluation.classify import Classification, classify
    from mithridate.evaluation.compare import compare
    from mithridate.evaluation.evaluate import evaluate
    from mithridate.evaluation.evaluation_file import read_evaluation, write_evaluation
    from mithridate.evaluation.filter_outcome import FilterOutcome, filter_outcome
    from mithridate.evaluation.leak_test import LeakTest, leak_test
    from mithridate.evaluation.measurement import Evaluation, Measurement
    from mithridate.evaluation.preflight import Preflight, preflight
    from mithridate.evaluation.probe import AdamWProbe, LbfgsProbe
    from mithridate.evaluation.zeroshot import zero_shot
    from mithridate.inspection.findings_file import read_findings, write_findings
    from mithridate.inspection.inspect import Inspection, inspect
    from mithridate.inspection.registry import PROBES
    from mithridate.metrics.attack_success import attack_success_rate, poison_success_rate
    from mithridate.metrics.classification import ClassScores
    from mithridate.metrics.detection import Detection, detection
    from mithridate.plugins import load_plugins
    from mithridate.poisoning.apply import Poisoned, poison
    from mithridate.poisoning.backdoor import Backdoor
    from mithridate.poisoning.badclip import BadClip
    from mithridate.poisoning.goals import (
        AttackGoal,
        CaptionsToClass,
        CaptionsToImage,
        ImageToClass,
        PhraseToClass,
        TriggerToClass,
    )
    from mithridate.poisoning.interop import read_truth
    from mithridate.poisoning.manifest import Manifest, read_manifest, write_manifest
    from mithridate.poisoning.plan import PoisonPlan, Surrogate
    from mithridate.poisoning.registry import ATTACKS
    from mithridate.poisoning.relabel import MultiLabel, SingleImage, SingleLabel
    from mithridate.poisoning.targeted import Targeted
    from mithridate.poisoning.text_trigger import TextTrigger
    from mithridate.poisoning.trigger_test import write_trigger_test
    from mithridate.poisoning.triggers import TRIGGERS, parse_trigger
    from mithridate.repairing.registry import REPAIRS
    from mithridate.repairing.repair import Repaired, repair
    from mithridate.report.document import Report, read_report
    from mithridate.report.sections.classify import classification_report
    from mithridate.report.sections.comparison import comparison_report
    from mithridate.report.sections.evaluation import evaluation_report
    from mithridate.report.sections.filtering import filter_report
    from mithridate.report.sections.preflight import preflight_report
    from mithridate.report.write import write_report
    from mithridate.studies.analysis.outcomes import read_outcomes
    from mithridate.studies.render.page import write_study
    from mithridate.studies.run import run_study
    from mithridate.studies.spec.load import read_study
    from mithridate.studies.spec.study import Study
    from mithridate.toy.world import write_toy_world
    from mithridate.training.augment_only import AugmentOnly
    from mithridate.training.cleanclip import CleanClip
    from mithridate.training.clip import Clip
    from mithridate.training.config import SCRATCH, TrainConfig
    from mithridate.training.loop import train
    from mithridate.training.par import Par
    from mithridate.training.registry import OBJECTIVES
    from mithridate.training.roclip import RoClip
    from mithridate.training.safeclip import SafeClip
    from mithridate.training.siglip import Siglip

# Imported when first asked for: `import mithridate` must not load torch.
_WHERE = {
    "ATTACKS": "poisoning.registry",
    "Above": "auditing.threshold",
    "AdamWProbe": "evaluation.probe",
    "AttackGoal": "poisoning.goals",
    "AugmentOnly": "training.augment_only",
    "Backdoor": "poisoning.backdoor",
    "BadClip": "poisoning.badclip",
    "Budget": "auditing.threshold",
    "CaptionsToClass": "poisoning.goals",
    "CaptionsToImage": "poisoning.goals",
    "ClassScores": "metrics.classification",
    "Classification": "evaluation.classify",
    "CleanClip": "training.cleanclip",
    "CleanQuantile": "auditing.threshold",
    "Clip": "training.clip",
    "CosineDistance": "auditing.cosine",
    "DETECTORS": "auditing.registry",
    "Detection": "metrics.detection",
    "Embeddings": "encoder.embeddings",
    "Encoder": "encoder.encoder",
    "FilterOutcome": "evaluation.filter_outcome",
    "Evaluation": "evaluation.measurement",
    "Evidence": "auditing.evidence",
    "Filtered": "auditing.filter",
    "GaussianMixture": "auditing.mixture",
    "ImageToClass": "poisoning.goals",
    "KeepList": "auditing.keep",
    "LbfgsProbe": "evaluation.probe",
    "LeakTest": "evaluation.leak_test",
    "Manifest": "poisoning.manifest",
    "Measurement": "evaluation.measurement",
    "MultiLabel": "poisoning.relabel",
    "NegClipLoss": "auditing.neg_clip_loss",
    "OBJECTIVES": "training.registry",
    "Pairs": "data.pairs",
    "Par": "training.par",
    "PhraseToClass": "poisoning.goals",
    "PoisonPlan": "poisoning.plan",
    "Poisoned": "poisoning.apply",
    "Preflight": "evaluation.preflight",
    "Report": "report.document",
    "RoClip": "training.roclip",
    "SCRATCH": "training.config",
    "SafeClip": "training.safeclip",
    "Scores": "auditing.scores",
    "Siglip": "training.siglip",
    "SingleImage": "poisoning.relabel",
    "SingleLabel": "poisoning.relabel",
    "Study": "studies.spec.study",
    "Surrogate": "poisoning.plan",
    "SurrogateEncoder": "encoder.surrogate",
    "TRIGGERS": "poisoning.triggers",
    "Targeted": "poisoning.targeted",
    "TextTrigger": "poisoning.text_trigger",
    "TrainConfig": "training.config",
    "TriggerToClass": "poisoning.goals",
    "attack_success_rate": "metrics.attack_success",
    "audit": "auditing.data",
    "classification_report": "report.sections.classify",
    "classify": "evaluation.classify",
    "compare": "evaluation.compare",
    "comparison_report": "report.sections.comparison",
    "concat_pairs": "data.pairs",
    "detection": "metrics.detection",
    "embed": "encoder.embed",
    "evaluate": "evaluation.evaluate",
    "evaluation_report": "report.sections.evaluation",
    "filter": "auditing.filter",
    "filter_outcome": "evaluation.filter_outcome",
    "filter_report": "report.sections.filtering",
    "leak_test": "evaluation.leak_test",
    "load_encoder": "encoder.encoder",
    "load_plugins": "plugins",
    "make_pairs": "data.pairs",
    "parse_trigger": "poisoning.triggers",
    "poison": "poisoning.apply",
    "poison_success_rate": "metrics.attack_success",
    "preflight": "evaluation.preflight",
    "preflight_report": "report.sections.preflight",
    "read_embeddings": "encoder.embeddings",
    "read_evaluation": "evaluation.evaluation_file",
    "read_keep_list": "auditing.keep",
    "read_labelled": "data.labelled",
    "read_manifest": "poisoning.manifest",
    "read_outcomes": "studies.analysis.outcomes",
    "read_pairs": "data.read",
    "read_report": "report.document",
    "read_study": "studies.spec.load",
    "read_truth": "poisoning.interop",
    "run_study": "studies.run",
    "save_encoder": "encoder.encoder",
    "train": "training.loop",
    "write_clip_benchmark": "data.labelled",
    "write_embeddings": "encoder.embeddings",
    "write_evaluation": "evaluation.evaluation_file",
    "write_filtered": "auditing.output",
    "write_manifest": "poisoning.manifest",
    "write_report": "report.write",
    "write_study": "studies.render.page",
    "write_toy_world": "toy.world",
    "write_trigger_test": "poisoning.trigger_test",
    "zero_shot": "evaluation.zeroshot",
    "Inspection": "inspection.inspect",
    "inspect": "inspection.inspect",
    "PROBES": "inspection.registry",
    "read_findings": "inspection.findings_file",
    "write_findings": "inspection.findings_file",
    "REPAIRS": "repairing.registry",
    "Repaired": "repairing.repair",
    "repair": "repairing.repair",
}

__all__ = [
    "ATTACKS",
    "DETECTORS",
    "OBJECTIVES",
    "PROBES",
    "REPAIRS",
    "SCRATCH",
    "TRIGGERS",
    "Above",
    "AdamWProbe",
    "AttackError",
    "AttackGoal",
    "AugmentOnly",
    "Backdoor",
    "BadClip",
    "Budget",
    "CaptionsToClass",
    "CaptionsToImage",
    "ClassScores",
    "Classification",
    "CleanClip",
    "CleanQuantile",
    "Clip",
    "CosineDistance",
    "DataError",
    "Detection",
    "Embeddings",
    "Encoder",
    "EncoderError",
    "Evaluation",
    "EvaluationError",
    "Evidence",
    "FilterError",
    "FilterOutcome",
    "Filtered",
    "GaussianMixture",
    "ImageToClass",
    "Inspection",
    "InspectionError",
    "KeepList",
    "LbfgsProbe",
    "LeakTest",
    "Manifest",
    "Measurement",
    "MithridateError",
    "MultiLabel",
    "NegClipLoss",
    "OutputError",
    "Pairs",
    "Par",
    "PhraseToClass",
    "PluginError",
    "PoisonPlan",
    "Poisoned",
    "Preflight",
    "Repaired",
    "Report",
    "RoClip",
    "SafeClip",
    "Scores",
    "Siglip",
    "SingleImage",
    "SingleLabel",
    "Study",
    "StudyError",
    "Surrogate",
    "SurrogateEncoder",
    "Targeted",
    "TextTrigger",
    "TrainConfig",
    "TriggerToClass",
    "__version__",
    "attack_success_rate",
    "audit",
    "classification_report",
    "classify",
    "compare",
    "comparison_report",
    "concat_pairs",
    "detection",
    "embed",
    "evaluate",
    "evaluation_report",
    "filter",
    "filter_outcome",
    "filter_report",
    "inspect",
    "leak_test",
    "load_encoder",
    "load_plugins",
    "make_pairs",
    "parse_trigger",
    "poison",
    "poison_success_rate",
    "preflight",
    "preflight_report",
    "read_embeddings",
    "read_evaluation",
    "read_findings",
    "read_keep_list",
    "read_labelled",
    "read_manifest",
    "read_outcomes",
    "read_pairs",
    "read_report",
    "read_study",
    "read_truth",
    "repair",
    "run_study",
    "save_encoder",
    "train",
    "write_clip_benchmark",
    "write_embeddings",
    "write_evaluation",
    "write_filtered",
    "write_findings",
    "write_manifest",
    "write_report",
    "write_study",
    "write_toy_world",
    "write_trigger_test",
    "zero_shot",
]


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module 'mithridate' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"mithridate.{_WHERE[name]}"), name)

    globals()[name] = value
    return value
