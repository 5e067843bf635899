"""For an engineer about to train on scraped pairs: what is wrong with them, and which pairs do not belong.

    python examples/engineer.py DATA ENCODER

DATA: shards, a table or a folder; ENCODER: an open_clip model's folder that was not trained on these pairs.
"""

import sys

import numpy as np

import mithridate as mt
from mithridate.data.doctor import doctor


def main(data: str, encoder: str, *, shown: int = 10) -> np.ndarray:
    """Prints the findings and the least similar pairs; gives back the cosine distances (n,)."""
    pairs = mt.read_pairs(data)
    for finding in doctor(pairs):
        print(f"{finding.severity}: {finding.message}")
    embedded = mt.embed(mt.load_encoder(encoder), pairs)
    distance = 1 - embedded.similarity()
    for row in np.argsort(-distance)[:shown]:
        print(f"{distance[row]:.3f}  {pairs.uid[int(row)]}  {pairs.text[int(row)]}")
    return distance


if __name__ == "__main__":
    main(*sys.argv[1:3])
