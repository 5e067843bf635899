"""From pairs to what the loop gathers from: decoded, tokenised, without what is bad, frozen trunks run once."""

import hashlib
import logging
from collections.abc import Collection
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from torch import Tensor

from mithridate.data.pairs import Pairs
from mithridate.encoder.embed import Progress, image_source, pixel_recipe, tokenise
from mithridate.encoder.encoder import Encoder
from mithridate.errors import DataError
from mithridate.remote.caches import cache_folder
from mithridate.training.augment_text import Synonyms, augment_texts
from mithridate.training.batches import AugmentTexts, TrainingSet
from mithridate.training.config import TrainConfig
from mithridate.training.distributed import Processes
from mithridate.training.features import frozen_features
from mithridate.training.loss import View
from mithridate.training.towers import TwoTower

_LOG = logging.getLogger(__name__)
_SIDES = 0.01  # share of captions that may name sides where images are mirrored


def training_set(
    encoder: Encoder,
    towers: TwoTower,
    pairs: Pairs,
    config: TrainConfig,
    views: Collection[View],
    synonyms: Synonyms | None,
    processes: Processes,
    cache: Path | str | None,
    cache_limit: int | None,
    progress: Progress,
) -> TrainingSet:
    """What the `views` of a run are gathered from. `synonyms` where one of them augments captions.

    Raises `DataError` where pairs or images do not suffice.
    """
    if any(view.image == "augmented" and view.flip for view in views):
        _warn_of_sides(pairs)
    # one process fills the cache, the others find it filled
    with processes.first_before_others():
        source = image_source(encoder, pairs.images, cache=cache, limit=cache_limit, progress=progress)
        tokens, text_index = tokenise(encoder, pairs.text, cache=cache)
    if source.bad:
        _refuse_bad(source.bad, len(pairs.images), config.max_bad)
        _LOG.warning("%s; they are left out", _failures(source.bad, len(pairs.images)))
    usable = ~np.isin(pairs.image_index, list(source.bad))
    rows = np.flatnonzero(usable)
    if len(rows) < config.batch_size:
        raise DataError(
            f"a batch needs {config.batch_size} pairs and there are {len(rows)}; lower --batch-size or give more data"
        )
    image_features = text_features = None
    folder = cache_folder() if cache == "default" else None if cache is None else Path(cache)

    def run_frozen(tower, keys, count, gather, recipe) -> np.ndarray | None:
        with processes.first_before_others():
            return frozen_features(
                towers,
                tower,
                keys,
                count,
                gather,
                recipe=recipe,
                folder=folder,
                device=processes.device,
                progress=progress,
            )

    # what is drawn anew cannot be computed once
    if "image" in towers.frozen and config.augment == "none" and all(view.image == "plain" for view in views):
        image_features = run_frozen("image", source.keys, len(pairs.images), source.gather, pixel_recipe(encoder))
    if "text" in towers.frozen and synonyms is None:
        # one row of ids is one key: two captions that are cut to the same ids are the same to the tower
        keys = np.array([hashlib.blake2b(row.tobytes(), digest_size=15).digest() + b"+" for row in tokens])
        text_features = run_frozen("text", keys, len(tokens), lambda r: tokens[r].astype(np.int64), "")
    return TrainingSet(
        rows,
        pairs.image_index[rows],
        text_index[rows],
        tokens,
        source,
        image_features,
        text_features,
        None if synonyms is None else _augmenter(encoder, pairs, config.seed, synonyms),
    )


def _warn_of_sides(pairs: Pairs) -> None:
    """Warn where captions name sides: of a mirrored image they are wrong."""
    named = pc.match_substring_regex(pairs.text, r"(?i)\b(left|right)\b")  # type: ignore[attr-defined]
    said = pc.sum(named).as_py() or 0  # type: ignore[attr-defined]
    if said > _SIDES * len(pairs):
        _LOG.warning(
            "%s of %s captions say left or right, which is wrong of the half of the images that are mirrored; "
            "give --no-flip (in a study `flip: false`)",
            said,
            len(pairs),
        )


def _augmenter(encoder: Encoder, pairs: Pairs, seed: int, synonyms: Synonyms) -> AugmentTexts:
    def of(rows: np.ndarray, epoch: int, view: int) -> Tensor:
        texts = [text or "" for text in pairs.text.take(pa.array(rows)).to_pylist()]
        changed = augment_texts(texts, rows.tolist(), seed=seed, epoch=epoch, view=view, synonyms=synonyms)
        return encoder.tokenizer(changed).long()

    return of


def _refuse_bad(bad: dict[int, str], images: int, max_bad: float) -> None:
    if len(bad) > max_bad * images:
        raise DataError(
            f"{_failures(bad, images)}; --max-bad {max_bad} allows no more than that share of them: "
            "repair the data (mithridate data doctor lists all), or raise it"
        )


def _failures(bad: dict[int, str], images: int) -> str:
    more = f" and {len(bad) - 3} more" if len(bad) > 3 else ""
    return f"{len(bad)} of {images} images do not decode ({'; '.join(list(bad.values())[:3])}{more})"
