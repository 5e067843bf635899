"""Captions that are nearly one: MinHash over their characters (Broder 1997), by datasketch."""

import zlib
from collections.abc import Iterator, Sequence

import numpy as np
from jaxtyping import Int

_GRAM, _PERMUTATIONS = 5, 128  # characters of a shingle: captions of ten words have too few word shingles


def near_captions(captions: Sequence[str], *, jaccard: float) -> Int[np.ndarray, " c"]:
    """For each of c captions the number of the group that it is in: those joined by a similarity of at least `jaccard`.

    Of the sets of five characters that follow each other; estimated by 128 permutations, so off by about 0.04
    (sqrt(j (1 - j) / 128)). Candidates are those that an index of bands gives.
    """
    from datasketch import MinHash, MinHashLSH
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    signatures = MinHash.bulk(map(_shingles, captions), num_perm=_PERMUTATIONS, hashfunc=zlib.crc32)
    index = MinHashLSH(threshold=jaccard, num_perm=_PERMUTATIONS)
    edges: list[tuple[int, int]] = []
    for number, signature in enumerate(signatures):
        edges += [(number, other) for other in _like(index.query(signature), signatures, signature, jaccard)]
        index.insert(number, signature, check_duplication=False)
    first, second = np.array(edges, np.int64).reshape(-1, 2).T
    graph = coo_matrix((np.ones(len(first), bool), (first, second)), shape=(len(captions), len(captions)))
    return connected_components(graph, directed=False)[1].astype(np.int64)


def _shingles(caption: str) -> set[bytes]:
    return {caption[i : i + _GRAM].encode() for i in range(max(1, len(caption) - _GRAM + 1))}


def _like(found: list, signatures: list, signature, jaccard: float) -> Iterator[int]:
    return (other for other in found if signatures[other].jaccard(signature) >= jaccard)
