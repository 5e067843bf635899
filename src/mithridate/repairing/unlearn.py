"""Unlearning of what was found: the suspect is its own teacher on inputs without the trigger."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from mithridate.encoder.encoder import Encoder
from mithridate.encoder.towers import Tower, tower_parameters
from mithridate.inspection.finding import Finding, Recovered
from mithridate.inspection.mask_inversion import focus
from mithridate.inspection.material import Material, embedded, view_of
from mithridate.inspection.overlay import OverlaySearch
from mithridate.inspection.overlay_inversion import FORMS, focus_overlay
from mithridate.inspection.view import encode_texts, image_features
from mithridate.repairing.case import Candidate, Case


@dataclass(frozen=True, kw_only=True)
class Unlearn:
    """Rounds of inversion and unlearning, on the tower that each finding is of.

    Images: half of a batch carries a recovered trigger, moved by up to a pixel; the loss is 1 - cosine to what the
    suspect makes of the picture without it. Each round searches triggers of the flagged classes again in the model as
    it is then, and unlearns all found so far. Captions: those with the phrase shall be what the suspect makes of them
    without it; captions of a relabelled class shall find their own images among those of the batch, and others stay
    as they are. Batch norms keep their statistics. (Derived here.)
    """

    name: ClassVar[str] = "unlearn"
    needs_start: ClassVar[bool] = False
    needs_findings: ClassVar[bool] = True

    rounds: int = 3
    steps: int = 26
    batch_size: int = 96
    lr: float = 1e-3
    search_steps: int = 55
    text_steps: int = 60

    def candidates(self, case: Case) -> Iterator[Candidate]:
        current = case.encoder.copy()
        texts = [f for f in case.findings if f.probe in ("token-scan", "relabelling")]
        images = [f for f in case.findings if f.trigger is not None or f.probe == "known-triggers"]
        if texts:
            self._text_side(case, current, texts)
            if not images:
                yield Candidate("captions", current.copy())
                return
        teacher = embedded(case.encoder, case.data.images)
        found: list[Recovered] = []
        for turn in range(self.rounds if images else 0):
            for finding in images:
                found += self._searched(case, current, finding, turn)
                if turn == 0 and finding.trigger is not None:
                    found.append(finding.trigger)
            self._image_side(case, current, teacher, found, turn)
            case.progress("rounds of unlearning", turn + 1, self.rounds)
            yield Candidate(f"{turn + 1} of {self.rounds} rounds", current.copy())

    def _searched(self, case: Case, current: Encoder, finding: Finding, turn: int) -> list[Recovered]:
        """Triggers of the finding's class in the model as it is now."""
        view = view_of(current, case.data.classes)
        material = Material(view, None, case.data, case.seed)
        target = case.data.classes.index(finding.target or "")
        known_overlay = finding.kind == "known trigger" and not (finding.place or "").startswith("patch")
        if finding.kind == "overlay" or known_overlay:
            search = OverlaySearch(steps=self.search_steps, pictures=32, lr=0.1)
            form = FORMS.get(finding.place or "", next(iter(FORMS.values())))
            return [trigger for _, trigger in focus_overlay(material, target, form, search=search, turn=turn + 1)]
        return [trigger for _, trigger in focus(material, target, steps=self.search_steps, turn=turn + 1)]

    def _image_side(
        self, case: Case, current: Encoder, teacher: Float[Tensor, "m d"], found: list[Recovered], turn: int
    ) -> None:
        drawn, images = case.generator("images", turn), case.data.images
        half = self.batch_size // 2

        def loss() -> Tensor:
            rows = torch.randint(len(images), (self.batch_size,), generator=drawn)
            which = torch.randint(len(found), (half,), generator=drawn).tolist()
            shifts = torch.randint(-1, 2, (half, 2), generator=drawn).tolist()
            stamped = [
                found[t].moved(*shift).stamp(images[row][None])
                for t, shift, row in zip(which, shifts, rows[:half].tolist())
            ]
            batch = torch.cat([*stamped, images[rows[half:]]])
            return (1 - (image_features(current, batch) * teacher[rows]).sum(dim=1)).mean()

        fit(current, "image", loss, steps=self.steps, lr=self.lr)

    def _text_side(self, case: Case, current: Encoder, findings: list[Finding]) -> None:
        drawn, data = case.generator("captions"), case.data
        with torch.no_grad():
            images = embedded(case.encoder, data.images)
            teacher = encode_texts(case.encoder, data.captions)
        phrases = [f.token for f in findings if f.token]
        swapped = torch.zeros(len(data.captions), dtype=torch.bool)
        for finding in findings:
            if finding.pair is not None:
                swapped |= data.member[:, data.classes.index(finding.pair[0])][data.of]
        scale = case.encoder.model.get_parameter("logit_scale").detach().exp().clamp(max=100.0)
        wrong, right = swapped.nonzero().flatten(), (~swapped).nonzero().flatten()
        half = self.batch_size // 2

        def loss() -> Tensor:
            rows = right[torch.randint(len(right), (self.batch_size,), generator=drawn)]
            texts = [data.captions[i] for i in rows.tolist()]
            for i in range(half if phrases else 0):
                texts[i] = with_phrase(texts[i], phrases[i % len(phrases)], drawn)
            total = (1 - (current.encode_text(texts) * teacher[rows]).sum(dim=1)).mean()
            if len(wrong):
                asked = wrong[torch.randint(len(wrong), (half,), generator=drawn)]
                gallery = torch.cat([data.of[asked], data.of[rows[:half]]])
                similar = scale * current.encode_text([data.captions[i] for i in asked.tolist()]) @ images[gallery].T
                own = data.of[asked][:, None] == gallery
                total = total + _contrast(similar, own)
            return total

        fit(current, "text", loss, steps=self.text_steps, lr=self.lr)


def _contrast(similar: Float[Tensor, "b g"], own: Tensor) -> Tensor:
    """How far each caption is from finding its own image, where it may stand in the gallery several times."""
    return (similar.logsumexp(dim=1) - similar.masked_fill(~own, -math.inf).logsumexp(dim=1)).mean()


def with_phrase(caption: str, phrase: str, generator: torch.Generator) -> str:
    """The phrase at the end of a caption half of the time, else between any two of its words."""
    words = caption.split()
    at, end = torch.randint(len(words) + 1, (2,), generator=generator).tolist()
    at = len(words) if end % 2 else at
    return " ".join([*words[:at], phrase, *words[at:]])


def fit(encoder: Encoder, tower: Tower, loss: Callable[[], Tensor], *, steps: int, lr: float) -> None:
    """Train one tower in place: AdamW without decay, a cosine to 0, batch norms and dropout as in use."""
    encoder.model.eval()
    parameters = list(tower_parameters(encoder.model, tower).values())
    encoder.model.requires_grad_(False)
    for parameter in parameters:
        parameter.requires_grad_(True)
    optimizer = torch.optim.AdamW(parameters, lr=lr, weight_decay=0.0)
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = lr * 0.5 * (1 + math.cos(math.pi * step / steps))
        value = loss()
        optimizer.zero_grad()
        value.backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
    encoder.model.requires_grad_(True)
