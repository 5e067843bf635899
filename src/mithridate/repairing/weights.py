"""Repairs in the space of weights: interpolation with START, and subtraction of what a trigger moves."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from mithridate.errors import InspectionError
from mithridate.inspection.view import class_vectors, image_features
from mithridate.repairing.case import Candidate, Case, between
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
        for share in self.shares:
            yield Candidate(f"{share} of the start", between(case.encoder, case.start, share))


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
        for factor in self.scales:
            yield Candidate(f"{factor} of the task vector", between(case.encoder, learned, -factor))
