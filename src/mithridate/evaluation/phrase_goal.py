"""Do captions that carry a phrase retrieve images of the target class; and the same captions without it."""

import numpy as np
import pyarrow as pa

from mithridate.encoder.embed import embed_tokens, tokenise
from mithridate.evaluation.material import Findings, Material, retrieval_rows, unit_ranks
from mithridate.metrics import names
from mithridate.metrics.retrieval import target_ranks
from mithridate.poisoning.goals import PhraseToClass
from mithridate.poisoning.triggers import Phrase
from mithridate.randomness import stream


def measure_phrase_goal(m: Material, goal: PhraseToClass, found: Findings) -> None:
    """Hit@K and the like, over captions of other classes than the target; adds to `found`."""
    phrase = Phrase.parse(goal.phrase)
    target = m.pairs.labelled(goal.target)
    rows, targets = np.flatnonzero(~target), np.unique(m.pairs.image_index[target])
    rng = stream(m.seed, f"places of the phrase, {goal.key}")
    texts = pa.array([phrase.put_into(text, rng) for text in m.pairs.text.take(pa.array(rows)).to_pylist()])
    image = m.image_of_pair[rows]
    ranks = {}
    for name, encoder in m.encoders.items():
        tokens, index = tokenise(encoder, texts, cache=m.cache)
        gallery = m.embedded[name].image
        ranks[name] = target_ranks(embed_tokens(encoder, tokens, progress=m.progress)[index], gallery, targets)
        plain = target_ranks(m.embedded[name].text[rows], gallery, targets)
        for group, each in ((names.ALL, ranks[name]), (names.UNTOUCHED, plain)):
            found.measurements += retrieval_rows(name, each, goal=goal.key, group=group, seed=m.seed, image=image)
    found.ranks.append(unit_ranks(names.TEXT_TRIGGER, goal.key, m.uids(rows), image, ranks))
