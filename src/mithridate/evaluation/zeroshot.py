"""Zero-shot classification with prompt ensembles."""

import difflib
from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from mithridate.data.labelled import class_index, match_classes, read_templates, refuse_templates
from mithridate.data.pairs import Pairs
from mithridate.data.prompts import TEMPLATE_SETS, prompts, templates
from mithridate.encoder.embed import Progress, _silent, embed_images, embed_tokens, image_source
from mithridate.encoder.encoder import Encoder
from mithridate.errors import DataError
from mithridate.metrics.classification import ClassScores, class_scores, unit_length

_CLASSES_AT_ONCE = 64

TEMPLATES: dict[str, tuple[str, ...]] = {name: templates(name) for name in TEMPLATE_SETS}


def find_templates(name: str) -> tuple[str, ...]:
    """The set of templates with this name, or those in the text file at this path. Raises `DataError`."""
    if name in TEMPLATES:
        return TEMPLATES[name]
    if not Path(name).is_file():
        near = difflib.get_close_matches(name, TEMPLATES, n=1)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise DataError(f"no file and no set of templates is called {name!r}: expected {', '.join(TEMPLATES)}{hint}")
    found = tuple(read_templates(Path(name)))
    refuse_templates(found)
    return found


def zero_shot_weights(
    encoder: Encoder,
    class_names: Sequence[str],
    templates: Sequence[str] | None = None,
    *,
    progress: Progress = _silent,
) -> Float[np.ndarray, "c d"]:
    """One unit vector a class: the normalised mean of the unit embeddings of its prompts (Radford et al. 2021).

    `templates`: the 80 of OpenAI for ImageNet by default, any strings with `{}`. Raises `DataError` for others.
    """
    templates = TEMPLATES["openai"] if templates is None else templates
    refuse_templates(templates)
    if not class_names:
        raise DataError("zero-shot classification needs at least one class, got none")
    # always in one order: what shares a batch moves the last bit of an embedding
    names, index = np.unique(np.array(class_names, dtype=object), return_inverse=True)
    blocks = []
    for start in range(0, len(names), _CLASSES_AT_ONCE):
        block = names[start : start + _CLASSES_AT_ONCE]
        tokens, rows = _prompt_tokens(encoder.tokenizer, tuple(block), tuple(templates))
        each = embed_tokens(encoder, tokens)[rows].reshape(len(block), len(templates), -1)
        blocks.append(unit_length(each.mean(axis=1)))
        progress("embedding classes", start + len(block), len(names))
    return np.concatenate(blocks)[index]


@lru_cache(maxsize=16)
def _prompt_tokens(
    tokenizer: Callable[[Sequence[str]], Tensor], names: tuple[str, ...], templates: tuple[str, ...]
) -> tuple[np.ndarray, np.ndarray]:
    """Ids of the distinct prompts (t, length), and which of them each class's each template gives.

    Kept, as studies ask every model for the same classes, and tokenising prompts takes as long as embedding them.
    """
    every = [prompt for name in names for prompt in prompts(name, templates)]
    at = {prompt: row for row, prompt in enumerate(dict.fromkeys(every))}
    return tokenizer(list(at)).to(torch.int32).numpy(), np.array([at[prompt] for prompt in every])


def zero_shot(
    encoder: Encoder,
    pairs: Pairs,
    *,
    classes: Sequence[str] | None = None,
    templates: Sequence[str] | None = None,
    cache: Any = "default",
    cache_limit: int | None = None,
    progress: Progress = _silent,
) -> ClassScores:
    """Cosine similarity of each image of `pairs` (`read_labelled`) to the prompts of each class.

    Raises `DataError` where images do not decode, or `classes` are not those of the set.
    """
    names = match_classes(pairs, classes)
    weights = zero_shot_weights(encoder, names, templates, progress=progress)
    source = image_source(encoder, pairs.images, cache=cache, limit=cache_limit, progress=progress)
    refuse_bad_images(source.bad, len(pairs.images))
    image = embed_images(encoder, source, len(pairs.images), progress=progress)[pairs.image_index]
    return ClassScores("zero-shot", names, class_index(pairs, names), class_scores(image, weights))


def refuse_bad_images(bad: dict[int, str], count: int) -> None:
    """Raise `DataError` where images do not decode: leaving them out would change every share."""
    if bad:
        raise DataError(
            f"{len(bad)} of {count} images do not decode ({'; '.join(list(bad.values())[:3])}); remove them"
        )
