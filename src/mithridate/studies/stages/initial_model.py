"""The encoder that a training begins with."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from mithridate.encoder.encoder import Encoder, load_encoder

if TYPE_CHECKING:
    from mithridate.studies.store import Store


@dataclass(frozen=True)
class InitialModel:
    """An encoder as it is loaded, or drawn from `seed`. It is no stage: nothing is written for it."""

    encoder: str
    pretrained: str | None = None
    seed: int = 0
    weights: str = ""  # fingerprint of weights that lie outside

    def load(self, store: "Store", epoch: int | None = None) -> Encoder:
        """The encoder; it has no epochs."""
        assert epoch is None  # only what was trained has epochs
        return load_encoder(self.encoder, pretrained=self.pretrained, seed=self.seed)

    @property
    def initial(self) -> "InitialModel":
        """This model itself; of a trained one that which its first training began with."""
        return self
