"""Where pairs come from, registrable domain and shard, and how many of them one hand holds.

Attacks take with very few pairs: a backdoor with 300 of 3 million (Carlini and Terzis 2022, 0.01 %) or 75 of 3 million
(Bansal et al. 2023, 0.0025 %), one target image with 3 of 3 million (Carlini and Terzis 2022); 0.01 % of LAION-400M
could be bought with expired domains for 60 dollars (Carlini et al. 2024). Whoever holds more than that in one place
needs no second one.
"""

# pyright: reportAttributeAccessIssue=false
# (pyarrow makes its compute functions at import, where pyright does not see them)

from __future__ import annotations

import ipaddress
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from mithridate.auditing.words import words_of
from mithridate.data.locations import split_place
from mithridate.data.pairs import Pairs

BACKDOOR, TARGETED = 1e-4, 1e-6
"""Shares of the pairs at which a backdoor, and an attack on one image, are known to take."""
LEAST_BACKDOOR, LEAST_TARGETED = 75, 3
"""And the fewest pairs that either was shown to take with."""

_SHOWN = 10
_LEAST_CONCEPT = 20  # pairs of a word; of rarer ones any domain holds a large share
_HOST = r"^[A-Za-z][A-Za-z0-9+.-]*://(?:[^/?#@]*@)?(?P<host>\[[^\]]*\]|[^/?#:]+)"


@dataclass(frozen=True)
class Holder:
    """A `kind` of place (domain, shard, or concept: one domain's pairs that say a word), and how many `pairs` it holds
    of the `of` there are: all, or all that say the word."""

    kind: str
    value: str
    pairs: int
    of: int


@dataclass(frozen=True)
class Capacity:
    """The largest `holders` of each kind, largest first; how many domains hold as many pairs as a backdoor takes
    (`backdoor` pairs here) and as an attack on one image takes (`targeted`)."""

    holders: tuple[Holder, ...]
    domains: int
    backdoor: int
    targeted: int
    could_backdoor: int
    could_target: int


def registrable_domains(pairs: Pairs) -> pa.ChunkedArray | None:
    """The registrable domain of each pair's `url` (n,), by the public suffix list; null where there is none.

    A column `domain` is taken as it is. None where the pairs have neither.
    """
    names = pairs.table.column_names
    if "domain" in names:
        return pairs.table["domain"].cast(pa.string())
    if "url" not in names:
        return None
    from publicsuffixlist import PublicSuffixList

    found = pc.extract_regex(pairs.table["url"].cast(pa.string()), _HOST)
    hosts = pc.struct_field(found, "host").dictionary_encode().unify_dictionaries().combine_chunks()
    suffixes = PublicSuffixList()  # its list comes with it: nothing is fetched
    domains = pa.array([_domain(host, suffixes) for host in hosts.dictionary.to_pylist()], pa.string())
    return pa.chunked_array([domains.take(hosts.indices)])


def _domain(host: str, suffixes) -> str:
    host = host.lower().rstrip(".")
    try:
        return str(ipaddress.ip_address(host.strip("[]")))
    except ValueError:
        return suffixes.privatesuffix(host) or host


def shards(pairs: Pairs) -> pa.ChunkedArray:
    """The shard of each pair (n,): the archive or table that its image lies in; null where it is a file of its own."""
    places = pairs.image.dictionary_encode().unify_dictionaries().combine_chunks()
    found = [split_place(place) for place in places.dictionary.to_pylist()]
    names = [None if offset is None else path for path, offset, _ in found]
    return pa.chunked_array([pa.array(names, pa.string()).take(places.indices)])


def capacity(pairs: Pairs) -> Capacity:
    """Who holds how many of the pairs."""
    n = len(pairs)
    backdoor = max(LEAST_BACKDOOR, int(np.ceil(BACKDOOR * n)))
    targeted = max(LEAST_TARGETED, int(np.ceil(TARGETED * n)))
    domain = registrable_domains(pairs)
    counts = np.empty(0, np.int64) if domain is None else np.array(_counts(domain).column("pairs"))
    holders = [
        *([] if domain is None else _largest("domain", domain)),
        *_largest("shard", shards(pairs)),
        *([] if domain is None else _concepts(pairs, domain)),
    ]
    could = [int((counts >= least).sum()) for least in (backdoor, targeted)]
    return Capacity(tuple(holders), len(counts), backdoor, targeted, could[0], could[1])


def _counts(column: pa.ChunkedArray) -> pa.Table:
    table = pa.table({"value": column.drop_null()}).group_by("value").aggregate([([], "count_all")])
    return table.rename_columns(["value", "pairs"]).sort_by([("pairs", "descending"), ("value", "ascending")])


def _largest(kind: str, column: pa.ChunkedArray) -> list[Holder]:
    return [Holder(kind, row["value"], row["pairs"], len(column)) for row in _counts(column)[:_SHOWN].to_pylist()]


def _concepts(pairs: Pairs, domain: pa.ChunkedArray) -> list[Holder]:
    """The words of which one domain holds the largest share."""
    words = words_of(pairs.text)
    codes = domain.combine_chunks().dictionary_encode()
    place, domains = codes.indices.fill_null(-1).to_numpy().astype(np.int64), codes.dictionary.to_pylist()
    size = max(1, len(words.names))
    caption, word = np.divmod(np.unique(words.caption.astype(np.int64) * size + words.word), size)  # once a caption
    of = np.bincount(word, minlength=size)
    there = (place[caption] >= 0) & (of[word] >= _LEAST_CONCEPT)
    held, count = np.unique(word[there] * max(1, len(domains)) + place[caption[there]], return_counts=True)
    word, place = np.divmod(held, max(1, len(domains)))
    share = count / np.maximum(of[word], 1)
    order = np.lexsort((-count, -share))
    ties = order
    if len(order) > _SHOWN:  # equals of the last shown are told apart by their names
        last = order[_SHOWN - 1]
        ties = order[(share[order] > share[last]) | ((share[order] == share[last]) & (count[order] >= count[last]))]
    found = [(-share[i], -count[i], words.names[word[i]], domains[place[i]], int(of[word[i]])) for i in ties]
    return [
        Holder("concept", f"{name} at {site}", -int(n), whole) for _, n, name, site, whole in sorted(found)[:_SHOWN]
    ]
