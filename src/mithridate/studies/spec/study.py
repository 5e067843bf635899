"""What a study is, as values: experiments, the cells that they are made of, what is shown and claimed of them.

A study file says all of it (docs/studies.md); `load.py` reads one, `cells.py` lays its grid out, `run.py` carries cells
out, `outcomes.py` reads what they measured, and the rest of the room turns that into tables, figures and sentences.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from mithridate.auditing.evidence import Detector
from mithridate.auditing.threshold import Threshold
from mithridate.poisoning.plan import Attack
from mithridate.studies.spec.data import DataSpec
from mithridate.training.clip import Clip
from mithridate.training.config import TrainConfig
from mithridate.training.objective import Objective

Label = str | int | float
"""What an axis is labelled with: a name, or the number that is varied."""

Model = Literal["poisoned", "clean", "start", "repaired"]
"""`poisoned`: the model of the cell, after filter, audit and repair. `clean`: the same recipe with plain CLIP on the
clean pairs, measured on the same queries. `start`: what both were trained from. `repaired`: the model of the cell after
what its inspection flagged was taken out; where nothing was flagged, as it was."""


@dataclass(frozen=True, kw_only=True)
class StartSpec:
    """What training begins with: an encoder as it is, or one trained on clean pairs first."""

    encoder: str = "mithridate-tiny"
    """As in `mithridate train --encoder`."""
    pretrained: str | None = None
    """Its pretrained tag or checkpoint file."""
    pretrain: TrainConfig | None = None
    """Train it first by this recipe, from the cell's seed."""
    on: DataSpec | None = None
    """On these pairs; by default on a toy world that nothing else uses."""


@dataclass(frozen=True, kw_only=True)
class FilterSpec:
    """Pairs are left out before training."""

    detector: Detector
    threshold: Threshold
    encoder: StartSpec | None = None
    """What embeds the pairs; by default the start of another seed: it has seen neither these pairs nor the poison."""


@dataclass(frozen=True, kw_only=True)
class AuditSpec:
    """Pairs are audited before training, and some are left out."""

    drop: Literal["flagged"] | float = "flagged"
    """What goes: what the audit proposes of the groups that it flags, or this share of the ranking, in (0, 1)."""
    detectors: tuple[str, ...] = ()
    """By default those of `mithridate audit`, plugged-in ones too."""
    by: Literal["suspicion", "cosine-distance"] = "suspicion"
    """The ranking that is cut; with `cosine-distance` as many pairs go as the audit would drop, by cosine alone."""
    encoder: StartSpec | None = None
    """As in `FilterSpec`."""


@dataclass(frozen=True, kw_only=True)
class RepairSpec:
    """Training on clean pairs afterwards."""

    train: TrainConfig
    objective: Objective = field(default_factory=Clip)
    on: DataSpec | None = None
    """Clean pairs; by default those of a toy world that nothing else trains on, else the clean training pairs."""


@dataclass(frozen=True, kw_only=True)
class InspectSpec:
    """The cell's model and the clean one are inspected as their owner would, who never sees the manifest."""

    on: DataSpec | None = None
    """The owner's clean pairs; by default those of a toy world that nothing trains on."""
    start: bool = True
    """Whether the owner has what training began with. A model drawn at random tells nothing and is never given."""
    nulls: int = 0
    """Null models, as `mithridate inspect --nulls`."""
    compare: bool = False
    """Published detectors beside the probes; they take no part in the verdict."""
    repair: bool = False
    """Repair what was flagged, and measure the repaired model too."""
    methods: tuple[str, ...] = ()
    """Repairs, one after the other, as `mithridate repair --method`; by default those of the command."""
    verify: bool = True
    """Inspect what was repaired, and unlearn what that flags; false as `mithridate repair --no-verify`."""
    told: bool = False
    """The repair is told what was planted in place of what the inspection found: the bound of what repairs reach."""


@dataclass(frozen=True)
class Cell:
    """One model, trained and measured. Equal but for `experiment` and `axes` means the same work, done once."""

    experiment: str
    axes: tuple[tuple[str, Label], ...]  # in the order of the file; `seed` is not among them
    seed: int
    data: DataSpec
    start: StartSpec
    attack: Attack | None  # None: trained on the clean pairs, utility alone is measured
    objective: Objective
    train: TrainConfig
    filter: FilterSpec | None = None
    repair: RepairSpec | None = None
    audit: AuditSpec | None = None
    test: DataSpec | None = None  # test pairs of other data: transfer
    inspect: InspectSpec | None = None
    measures: tuple[str, ...] = ()  # what is measured besides: see `Experiment.measures`
    clean: bool = True  # whether the clean model is trained and measured beside it

    @property
    def axis(self) -> dict[str, Label]:
        return dict(self.axes)


Where = Mapping[str, Any]
"""Which cells: axis -> label, or a list of labels, or {not: label}; `model` and `epoch` may be among the axes.

In a claim `epoch` may be {until: {measure, at}}: the first epoch after which the measure is `at` or more. Without `at`,
in `than`: as much as the cells of `of` have, seed by seed, which makes it a comparison at equal utility."""


@dataclass(frozen=True, kw_only=True)
class ShowTable:
    """A table: one row for each combination of labels, one column a measure (and model)."""

    title: str = ""
    rows: tuple[str, ...]
    """Axes; `model` and `epoch` count as such."""
    measures: tuple[str, ...]
    where: Where = field(default_factory=dict)
    published: str | None = None
    """A set of published numbers to stand beside: its key in published/*.json."""


@dataclass(frozen=True, kw_only=True)
class ShowFigure:
    """A figure. `path`: what training passes through, one point an epoch. `report`: one that an evaluation drew, by its
    name, of the first cell that `where` names."""

    kind: Literal["line", "heat", "points", "path", "report"]
    title: str = ""
    x: str = ""
    """Axis, or (points, path) measure."""
    y: str = ""
    """Measure, or (heat) axis."""
    z: str = ""
    """heat: measure."""
    series: tuple[str, ...] = ()
    """Axes that tell one line, or kind of point, from another; `model` counts as one."""
    log: bool = False
    """The x axis is logarithmic."""
    name: str = ""
    """report: which figure."""
    where: Where = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Floor:
    """What a model must still be able to do for a claim of robustness to hold of it: one of `above`, `times_chance`."""

    measure: str
    above: float | None = None
    """A fixed number."""
    times_chance: float | None = None
    """In its place a multiple of the measure's chance level."""


INSPECTION_TABLES = ("verdicts", "probes", "repairs")


@dataclass(frozen=True, kw_only=True)
class ShowInspections:
    """Tables of what inspections said of planted and of clean models."""

    title: str = ""
    rows: tuple[str, ...]
    """Axes that tell kinds of models apart."""
    tables: tuple[str, ...] = INSPECTION_TABLES
    """Which of them: where rows differ in the repair alone, the others say the same of each."""
    where: Where = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class ShowMatrix:
    """Every attack against every defence, the axes of these names: a heat map a measure, a ranking, a file to share."""

    title: str = ""
    success: tuple[str, ...] = ("ASR", "PSR", "Hit@10")
    """What success is: of each attack the first of these that it was measured by."""
    utility: tuple[str, ...] = ("zero-shot", "IR@10")
    floor: Floor
    """What models under a defence must still be able to do, or it is not ranked; by default the experiment's."""
    where: Where = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class ShowSlopes:
    """A table of the slopes of a measure's logit against the logarithms of axes."""

    title: str = ""
    measure: str
    """Of units that are 0 or 1."""
    regress: tuple[str, ...]
    """Axes with numbers."""
    where: Where = field(default_factory=dict)


Show = ShowTable | ShowFigure | ShowInspections | ShowMatrix | ShowSlopes


@dataclass(frozen=True, kw_only=True)
class Claim:
    """A published sentence, and the test that decides whether it held here."""

    says: str
    """In our words."""
    source: str = ""
    """Paper and where in it; empty for a hypothesis of this study."""
    measure: str
    of: Where = field(default_factory=dict)
    """The cells it speaks of."""
    is_: Literal["above", "below", "equal", "rising", "falling"]
    """`is` in the file: above or below `than`; equal within `margin`; rising or falling along `along`."""
    than: Where | None = None
    """What it is held against: other cells, or the same on another model. None: `value`."""
    than_measure: str = ""
    """The measure of `than`, where it is another."""
    value: float | None = None
    """A fixed number to be above, below or equal to; `chance` where it is None and `than` too."""
    margin: float = 0.0
    """equal: largest difference that counts as none."""
    along: str | None = None
    """rising, falling: the axis with numbers."""
    every: tuple[str, ...] = ()
    """Axes: the claim must hold for each of their labels by itself (p-values are Holm's)."""
    regress: tuple[str, ...] = ()
    """Axes with numbers: the logit of the measure, which is 0 or 1 of every unit, is regressed on their logarithms."""
    slope: str | None = None
    """The axis of `regress` whose slope is claimed of, in place of the measure itself."""
    than_slope: str | None = None
    """The axis whose slope it is held against; else `value`, by default 0."""
    floor: Floor | None = None
    """The utility without which a success below something says nothing; by default that of the experiment or study."""


@dataclass(frozen=True, kw_only=True)
class Experiment:
    """A grid of cells with what is shown and claimed of them."""

    name: str
    title: str
    asks: str = ""
    cells: tuple[Cell, ...] = ()
    shows: tuple[Show, ...] = ()
    claims: tuple[Claim, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Study:
    """A study file with one of its profiles filled in."""

    name: str
    title: str
    about: str = ""
    profile: str = ""
    experiments: tuple[Experiment, ...] = ()

    @property
    def cells(self) -> tuple[Cell, ...]:
        return tuple(cell for experiment in self.experiments for cell in experiment.cells)
