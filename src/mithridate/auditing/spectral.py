"""One frequency stands out of an image: a sine that was added to it."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from mithridate.auditing.corpus import Corpus
from mithridate.auditing.evidence import Evidence, Need
from mithridate.auditing.pixels import SIDE, amplitudes


@dataclass(frozen=True, kw_only=True)
class SpectralPeak:
    """How far one frequency's log amplitude lies above what it usually is, in robust standard deviations.

    Of a grey copy of 64x64 pixels; the largest over all frequencies. Median and median absolute deviation of each
    frequency are those of the corpus. Derived here. Limit: sees a periodic trigger and no other.
    """

    floor: float = 0.25
    """Least deviation of a frequency, in units of log amplitude: a frequency that hardly varies is not suspicious."""

    name: ClassVar[str] = "spectral-peak"
    measures: ClassVar[str] = "log amplitude of its strongest frequency, in deviations"
    own_level: ClassVar[float | None] = None
    needs: ClassVar[tuple[Need, ...]] = ("pixels",)

    def examine(self, corpus: Corpus, rng: np.random.Generator) -> Evidence:
        grey = corpus.known_pixels.grey
        found = np.concatenate([block.reshape(len(block), -1) for _, block in amplitudes(grey)])
        middle = np.median(found, axis=0)
        spread = np.maximum(1.4826 * np.median(np.abs(found - middle), axis=0), self.floor)
        z = (found - middle) / spread
        z[:, 0] = -np.inf  # the mean was taken away
        best = z.argmax(axis=1)
        score = z[np.arange(len(z)), best]
        reason = np.array(
            [f"frequency {_frequency(int(b))}: {round(float(s), 1)} deviations" for b, s in zip(best, score)], object
        )
        return Evidence(corpus.per_pair(score.astype(np.float64)), corpus.per_pair(reason))


def _frequency(position: int) -> str:
    row, column = divmod(position, SIDE // 2 + 1)
    return f"{column} across, {row if row <= SIDE // 2 else row - SIDE} down"
