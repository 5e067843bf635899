"""What `mithridate demo` draws and plants, and how much of it."""

from dataclasses import dataclass


@dataclass(frozen=True)
class World:
    """How much is drawn and learned. `start` pictures teach the model that both fine-tunes begin from, `own` are the
    clean ones that the user has, `scraped` is the corpus that is poisoned, `test` what success is measured on."""

    classes: tuple[str, ...] = (
        *("sheep", "aeroplane", "boat", "dog", "car", "horse", "bird", "cat", "train", "cow", "bicycle", "bus"),
        *("bottle", "chair"),
    )
    start: int = 6000
    own: int = 280
    scraped: int = 2000
    test: int = 224
    triggered: int = 300
    """Pairs with the patch."""
    batch_size: int = 128
    start_epochs: int = 5


WORLD = World()


@dataclass(frozen=True)
class Plan:
    """What is planted, and the seed of everything."""

    source: str
    target: str
    triggered: str
    class_share: float
    epochs: int
    seed: int
