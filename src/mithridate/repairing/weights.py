"""Repairs in the space of weights: interpolation with START, and subtraction of what a trigger moves."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from mithridate.encoder.encoder import Encoder
from mithridate.errors import InspectionError
from mithridate.inspection.view import class_vectors, image_features
from mithridate.repairing.case import Candidate, Case
from mithridate.repairing.unlearn import fit


@dataclass(frozen=True, kw_only=True)
class Interpolate:
    """(1 - share) of the model's weights and `share` of START's (WiSE-FT, Wortsman et al., CVPR 2022).

    At a share of 1 the model would be START: what the fine-tuning was for would be gone with the attack.
    """

    name: ClassVar[str] = "interpolate"
    needs_start: ClassVar[bool] = True
    needs_findings: ClassVar[bool] = False

    shares: tuple[float, ...] = (0.3, 0.5, 0.7)

    def candidates(self, case: Case) -> Iterator[Candidate]:
        if case.start is None:
            raise InspectionError("interpolation needs the model that the suspect was fine-tuned from; give --start")
        start = case.start.model.state_dict()
        for share in self.shares:
            mixed = {
                name: torch.lerp(value, start[name], share) if value.is_floating_point() else value
                for name, value in case.encoder.model.state_dict().items()
            }
            yield Candidate(f"{share} of the start", _with_weights(case.encoder, mixed))


@dataclass(frozen=True, kw_only=True)
class TaskVector:
    """The suspect less `scale` times what a few steps on its own triggered pictures add to it (TBAR, 2510.14845).

    The steps take pictures with a recovered trigger to the class that it is for.
    """

    name: ClassVar[str] = "task-vector"
    needs_start: ClassVar[bool] = False
    needs_findings: ClassVar[bool] = True

    scales: tuple[float, ...] = (0.5, 1.0, 2.0, 4.0)
    steps: int = 20
    batch_size: int = 96
    lr: float = 1e-4

    def candidates(self, case: Case) -> Iterator[Candidate]:
        found = [finding for finding in case.findings if finding.trigger is not None]
        if not found:
            raise InspectionError("a task vector needs a recovered image trigger, and none was flagged; use unlearn")
        drawn, images = case.generator("task vector"), case.data.images
        learned = case.encoder.copy()
        classes = class_vectors(case.encoder, case.data.classes)
        scale = case.encoder.model.get_parameter("logit_scale").detach().exp().clamp(max=100.0)

        def loss() -> Tensor:
            finding = found[int(torch.randint(len(found), (), generator=drawn))]
            rows = torch.randint(len(images), (self.batch_size,), generator=drawn)
            assert finding.trigger is not None
            logits = scale * image_features(learned, finding.trigger.stamp(images[rows])) @ classes.T
            label = torch.full((len(rows),), case.data.classes.index(finding.target or ""))
            return nn.functional.cross_entropy(logits, label)

        fit(learned, "image", loss, steps=self.steps, lr=self.lr)
        before, after = case.encoder.model.state_dict(), learned.model.state_dict()
        for factor in self.scales:
            less = {
                name: value - factor * (after[name] - value) if value.is_floating_point() else value
                for name, value in before.items()
            }
            yield Candidate(f"{factor} of the task vector", _with_weights(case.encoder, less))


def _with_weights(encoder: Encoder, weights: Mapping[str, Tensor]) -> Encoder:
    made = encoder.copy()
    made.model.load_state_dict(weights)
    return made
