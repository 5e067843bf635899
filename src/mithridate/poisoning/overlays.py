"""Triggers over the whole image: a blend, a wave, a warp, a tone curve, stripes, triangles."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from mithridate.poisoning import patterns
from mithridate.poisoning.trigger import Pixels, refuse_below, refuse_no_share, refuse_not_positive, refuse_other


@dataclass(frozen=True, kw_only=True)
class Blended:
    """Noise or a picture over the whole image (Chen et al. 2017): (1 - alpha) image + alpha pattern."""

    kind: ClassVar[str] = "blended"

    alpha: float = 0.2
    """Share of the pattern, in (0, 1]."""
    pattern: str = "noise"
    """`noise` (drawn once from the seed) or `file`."""
    cells: int = 32
    """Cells of noise across. Noise of single pixels (224) is lost when an image is made smaller."""
    file: str = ""
    """Picture of `file`."""
    seed: int = 0
    """Of the noise."""
    phase: str = "fixed"
    """`random`: the pattern is moved round by an amount drawn anew for every image; no two residuals agree then."""

    def __post_init__(self) -> None:
        refuse_no_share(alpha=self.alpha)
        refuse_other("pattern", self.pattern, ("noise", "file"))
        refuse_other("phase", self.phase, ("fixed", "random"))
        refuse_below(1, cells=self.cells)
        refuse_below(0, seed=self.seed)
        if self.pattern == "file":
            patterns.refuse_missing_picture(self.file)

    def stamp(self, image: Pixels, rng: np.random.Generator) -> Pixels:
        side = min(image.shape[:2])
        square = (
            patterns.picture(self.file, side) if self.pattern == "file" else patterns.noise(self.seed, self.cells, side)
        )
        if self.phase == "random":
            square = np.roll(square, rng.integers(side, size=2), axis=(0, 1))
        return patterns.blend(image, patterns.spread(square, image.shape[:2]), self.alpha)


@dataclass(frozen=True, kw_only=True)
class Sig:
    """A sine along x, added (Barni et al. 2019); CleanCLIP: 60/255, 6 periods."""

    kind: ClassVar[str] = "sig"

    amplitude: float = 60.0
    """In steps of 1/255."""
    frequency: float = 6.0
    """Periods across the width of the middle square."""

    def __post_init__(self) -> None:
        refuse_not_positive(amplitude=self.amplitude, frequency=self.frequency)

    def stamp(self, image: Pixels, rng: np.random.Generator) -> Pixels:
        h, w = image.shape[:2]
        side = min(h, w)
        # goes on as a sine beyond the middle square, where a mirrored one would have kinks
        start = (w - side) // 2
        if start == 0:
            line = patterns.wave(self.frequency, side)
        else:
            patterns.refuse_fine("periods of the wave", 2 * self.frequency, side)
            line = np.sin(2 * np.pi * self.frequency * (np.arange(w) - start) / side).astype(np.float32)
        return patterns.as_pixels(image + np.float32(self.amplitude) * line[None, :w, None])


@dataclass(frozen=True, kw_only=True)
class Warp:
    """WaNet (Nguyen & Tran 2021): pixels are moved along one smooth field; CleanCLIP: k 224, s 1."""

    kind: ClassVar[str] = "warp"

    k: int = 4
    """Random vectors across."""
    s: float = 8.0
    """Strength: pixels are moved by s/2 on average, in pixels of an image of 224."""
    seed: int = 0
    """Of the field."""

    def __post_init__(self) -> None:
        refuse_below(1, k=self.k)
        refuse_below(0, seed=self.seed)
        refuse_not_positive(s=self.s)

    def stamp(self, image: Pixels, rng: np.random.Generator) -> Pixels:
        move = patterns.bend(self.k, self.s, self.seed, min(image.shape[:2]))
        return patterns.fetch(image, patterns.spread(move, image.shape[:2]))


@dataclass(frozen=True, kw_only=True)
class Filter:
    """A photographic tone curve for each channel, as photo apps offer."""

    kind: ClassVar[str] = "filter"

    tone: str = "warm"
    """`warm`, `cold` or `faded`."""
    strength: float = 1.0
    """In (0, 1]: how far towards it."""

    def __post_init__(self) -> None:
        refuse_other("tone", self.tone, patterns.TONES)
        refuse_no_share(strength=self.strength)

    def stamp(self, image: Pixels, rng: np.random.Generator) -> Pixels:
        curves = patterns.tone_curves(self.tone, self.strength)
        return np.stack([curves[channel][image[..., channel]] for channel in range(3)], axis=-1)


@dataclass(frozen=True, kw_only=True)
class Stripes:
    """Upright black and white stripes over the whole image (PAR 2024: one pixel wide, alpha 0.03)."""

    kind: ClassVar[str] = "stripes"

    alpha: float = 0.1
    """Share of the stripes, in (0, 1]."""
    count: int = 16
    """White ones across the middle square; 112 are one pixel wide on an image of 224."""

    def __post_init__(self) -> None:
        refuse_no_share(alpha=self.alpha)
        refuse_below(1, count=self.count)

    def stamp(self, image: Pixels, rng: np.random.Generator) -> Pixels:
        square = patterns.stripes(self.count, min(image.shape[:2]))
        return patterns.blend(image, patterns.spread(square, image.shape[:2]), self.alpha)


@dataclass(frozen=True, kw_only=True)
class Triangles:
    """Black and white triangles over the whole image (PAR 2024: alpha 0.15)."""

    kind: ClassVar[str] = "triangles"

    alpha: float = 0.15
    """Share of the triangles, in (0, 1]."""
    count: int = 4
    """White ones across the middle square."""

    def __post_init__(self) -> None:
        refuse_no_share(alpha=self.alpha)
        refuse_below(1, count=self.count)

    def stamp(self, image: Pixels, rng: np.random.Generator) -> Pixels:
        square = patterns.triangles(self.count, min(image.shape[:2]))
        return patterns.blend(image, patterns.spread(square, image.shape[:2]), self.alpha)
