"""Unlearning of what was found: the suspect is its own teacher on inputs without the trigger."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from mithridate.data.prompts import prompts, templates
from mithridate.encoder.encoder import Encoder
from mithridate.encoder.towers import Tower, tower_parameters
from mithridate.inspection.finding import Finding, Recovered
from mithridate.inspection.known_triggers import stamped_with
from mithridate.inspection.mask_inversion import focus
from mithridate.inspection.material import Material, OwnData, embedded, view_of
from mithridate.inspection.overlay import OverlaySearch
from mithridate.inspection.overlay_inversion import FORMS, focus_overlay
from mithridate.inspection.transfer import transfers
from mithridate.inspection.view import class_vectors, encode_texts, image_features
from mithridate.repairing.case import Candidate, Case

_TEXT = ("token-scan", "relabelling")


@dataclass(frozen=True, eq=False)
class _Planted:
    """A trigger of a class: as it was recovered, or the owner's m images with a known one."""

    target: int
    trigger: Recovered | Float[Tensor, "m 3 h w"]

    def put_on(self, images: Float[Tensor, "m 3 h w"], row: int, shift: Sequence[int]) -> Float[Tensor, "1 3 h w"]:
        """One image with the trigger; a recovered one is moved."""
        if isinstance(self.trigger, Recovered):
            return self.trigger.moved(*shift).stamp(images[row][None])
        return self.trigger[row][None]


@dataclass(frozen=True, kw_only=True)
class Unlearn:
    """Rounds of inversion and unlearning, on the tower that each finding is of.

    Images: a third of a batch are images of other classes that carry a trigger, moved by up to a pixel: they shall not
    be taken for its class (the loss is -log of the probability that they are not). The others shall stay as the suspect
    embeds them, `keep` times the cosine distance. The first round unlearns what was flagged, known triggers as they
    are; each further one searches patches and overlays of these classes in the model as it is then, such as leave START
    alone: what fools both is a feature of both, and taking it out costs utility. Unlearned are all found so far that
    take `least` more images than in START. Captions: those with the phrase shall be what the suspect makes of them
    without it; captions and prompts of a relabelled class shall choose among the owner's images as START does, or
    without START their own image and those of the class; all other captions and prompts stay as they are. Batch norms
    keep their statistics. (Derived here.)
    """

    name: ClassVar[str] = "unlearn"
    needs_start: ClassVar[bool] = False
    needs_findings: ClassVar[bool] = True

    rounds: int = 2
    steps: int = 25
    batch_size: int = 144
    lr: float = 5e-4
    keep: float = 10.0
    search_steps: int = 40
    search_pictures: int = 16
    least: float = 0.1
    text_steps: int = 60
    text_lr: float = 1e-3

    def candidates(self, case: Case) -> Iterator[Candidate]:
        current = case.encoder.copy()
        texts = [f for f in case.findings if f.probe in _TEXT]
        images = [f for f in case.findings if f.probe not in _TEXT]
        if texts:
            self._text_side(case, current, texts)
            if not images:
                yield Candidate("captions", current.copy())
                return
        classes, found = case.data.classes, list[_Planted]()
        for finding in images:
            target = classes.index(finding.target or "")
            known = finding.trigger or stamped_with(case.data.images, finding.place or "", case.seed)
            if known is not None:
                found.append(_Planted(target, known))
        for turn in range(self.rounds if images else 0):
            if turn or not found:
                for target in dict.fromkeys(classes.index(f.target or "") for f in images):
                    found += [_Planted(target, each) for each in self._searched(case, current, target, turn)]
            self._image_side(case, current, found, turn)
            case.progress("rounds of unlearning", turn + 1, self.rounds)
            yield Candidate(f"{turn + 1} of {self.rounds} rounds", current.copy())

    def _searched(self, case: Case, current: Encoder, target: int, turn: int) -> list[Recovered]:
        """Triggers of a class that work in the model as it is now and not in START; one at least."""
        view = view_of(current, case.data.classes)
        start = None if case.start is None else view_of(case.start, case.data.classes)
        material = Material(view, start, case.data, case.seed)
        search = OverlaySearch(steps=self.search_steps, pictures=self.search_pictures, lr=0.1)
        found = focus(material, target, steps=self.search_steps, turn=turn + 1, spared=start)
        for form in FORMS.values():
            found += focus_overlay(material, target, form, search=search, turn=turn + 1, spared=start)
        measured = transfers(material, found)
        return [each.trigger for i, each in enumerate(measured) if i == 0 or each.gap >= self.least]

    def _image_side(self, case: Case, current: Encoder, found: Sequence[_Planted], turn: int) -> None:
        drawn, images = case.generator("images", turn), case.data.images
        few = self.batch_size // 3
        teacher, before = embedded(case.encoder, images), class_vectors(case.encoder, case.data.classes)
        scale = case.encoder.model.get_parameter("logit_scale").detach().exp().clamp(max=100.0)
        target = torch.tensor([each.target for each in found])
        taken = (teacher @ before.T).argmax(dim=1)
        # by class the images that are of another, and taken for another
        other = [(~case.data.member[:, c] & (taken != c)).nonzero().flatten() for c in range(len(before))]
        usable = [i for i, each in enumerate(found) if len(other[each.target])]
        if not usable:
            return
        classes = class_vectors(current, case.data.classes)

        def loss() -> Tensor:
            which = torch.tensor(usable)[torch.randint(len(usable), (few,), generator=drawn)]
            shifts = torch.randint(-1, 2, (few, 2), generator=drawn).tolist()
            rows = [int(_draw(other[int(target[i])], 1, drawn)) for i in which]
            with_trigger = [found[int(i)].put_on(images, row, shift) for i, row, shift in zip(which, rows, shifts)]
            clean = torch.randint(len(images), (self.batch_size - few,), generator=drawn)
            made = image_features(current, torch.cat([*with_trigger, images[clean]]))
            hit = (scale * made[:few] @ classes.T).softmax(dim=1).gather(1, target[which][:, None])
            apart = 1 - (made[few:] * teacher[clean]).sum(dim=1)
            return self.keep * apart.mean() - torch.log1p(-hit.clamp(max=0.999)).mean()

        fit(current, "image", loss, steps=self.steps, lr=self.lr)

    def _text_side(self, case: Case, current: Encoder, findings: Sequence[Finding]) -> None:
        drawn, data = case.generator("captions"), case.data
        own = _Captions(data, [f.pair[0] for f in findings if f.pair is not None])
        phrases = [f.token for f in findings if f.token]
        with torch.no_grad():
            images = embedded(case.encoder, data.images)
            teacher = encode_texts(case.encoder, own.texts)
            wanted = own.found_by if case.start is None else _Found(case.start, own)
        scale = case.encoder.model.get_parameter("logit_scale").detach().exp().clamp(max=100.0)
        half = self.batch_size // 3

        def loss() -> Tensor:
            rows = torch.cat([_draw(own.right, 2 * half, drawn), _draw(own.right_prompts, half // 2, drawn)])
            texts = [own.texts[i] for i in rows.tolist()]
            for i in range(half if phrases else 0):
                texts[i] = with_phrase(texts[i], phrases[i % len(phrases)], drawn)
            asked = torch.cat([_draw(own.wrong, half, drawn), _draw(own.wrong_prompts, half // 4, drawn)])
            made = current.encode_text([*texts, *(own.texts[i] for i in asked.tolist())])
            stay = scale * (1 - (made[: len(rows)] * teacher[rows]).sum(dim=1)).mean()
            if not len(asked):
                return stay
            found = (scale * made[len(rows) :] @ images.T).log_softmax(dim=1)
            return stay - (wanted(asked) * found).sum(dim=1).mean()

        fit(current, "text", loss, steps=self.text_steps, lr=self.text_lr)


class _Captions:
    """The owner's captions, then the prompts of the classes; `wrong` are those of the relabelled classes."""

    def __init__(self, data: OwnData, relabelled: Sequence[str]) -> None:
        each = templates("simple")
        self.data, self.captions = data, len(data.captions)
        self.of_class = torch.arange(len(data.classes)).repeat_interleave(len(each))
        self.texts = [*data.captions, *(text for name in data.classes for text in prompts(name, each))]
        classes = torch.tensor([name in relabelled for name in data.classes])
        swapped = (data.member & classes).any(dim=1)[data.of]
        self.wrong, self.right = swapped.nonzero().flatten(), (~swapped).nonzero().flatten()
        of_wrong = classes[self.of_class]
        self.wrong_prompts = self.captions + of_wrong.nonzero().flatten()
        self.right_prompts = self.captions + (~of_wrong).nonzero().flatten()

    def found_by(self, rows: Int[Tensor, " b"]) -> Float[Tensor, "b m"]:
        """How each text shall choose among the images: a caption its own, a prompt any of its class."""
        own = self.data.of[rows.clamp(max=self.captions - 1)][:, None] == torch.arange(len(self.data.images))
        of_class = self.data.member[:, self.of_class[(rows - self.captions).clamp(min=0)]].T
        found = torch.where((rows < self.captions)[:, None], own, of_class).float()
        return found / found.sum(dim=1, keepdim=True).clamp_min(1)


class _Found:
    """How START chooses among the images with each text: softer than its own image alone, and learned on more pairs."""

    def __init__(self, start: Encoder, own: _Captions) -> None:
        scale = start.model.get_parameter("logit_scale").detach().exp().clamp(max=100.0)
        self.images = embedded(start, own.data.images)
        self.texts = scale * encode_texts(start, own.texts)

    def __call__(self, rows: Int[Tensor, " b"]) -> Float[Tensor, "b m"]:
        return (self.texts[rows] @ self.images.T).softmax(dim=1)


def _draw(rows: Int[Tensor, " n"], count: int, generator: torch.Generator) -> Int[Tensor, " b"]:
    """So many of `rows` at random; none where there are none."""
    return rows[torch.randint(len(rows), (count,), generator=generator)] if len(rows) else rows


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
