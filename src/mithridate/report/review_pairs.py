"""The pairs of a review as a table with their pictures: Parquet that viewers of data sets open."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from mithridate.auditing.audit import Audit
from mithridate.auditing.audit_files import score_table
from mithridate.evaluation.examples import thumbnail

FILE = "pairs.parquet"
_MOST, _SIDE = 2000, 256  # pairs in the table, and pixels of the longer side of their pictures
_KINDS = {pa.string(): "string", pa.float64(): "float64", pa.bool_(): "bool"}


def write_review_pairs(audit: Audit, folder: Path) -> None:
    """Write `pairs.parquet` into `folder` (it exists): the pairs of flagged groups and the most suspicious others.

    Up to 2,000 rows with what scores.parquet has of them, all reasons in one list `reasons`, and `image`, a struct of
    `bytes` (a JPEG of at most 256 pixels a side) and `path`, null where the image is not readable. The schema says so
    in the way of Hugging Face's `datasets`.
    """
    order = np.argsort(-audit.suspicion, kind="stable")
    in_group = np.zeros(len(order), bool)
    for campaign in audit.campaigns:
        in_group[campaign.rows] = True
    chosen = np.concatenate([order[in_group[order]], order[~in_group[order]]])[:_MOST]
    table = score_table(audit).take(pa.array(chosen))
    places = audit.pairs.image.take(pa.array(chosen)).to_pylist()
    encoded = [(base64.b64decode(thumbnail(place, side=_SIDE)), place) for place in places]
    images = [{"bytes": jpeg, "path": place} if jpeg else None for jpeg, place in encoded]
    reasons = [
        [f"{name}: {e.reason[row]}" for name, e in audit.evidence.items() if e.reason[row]] for row in chosen.tolist()
    ]
    plain = [name for name in table.column_names if not name.endswith("_reason")]
    columns: dict[str, Any] = {
        "image": pa.array(images, pa.struct([("bytes", pa.binary()), ("path", pa.string())])),
        **{name: table[name] for name in plain},
        "reasons": pa.array(reasons, pa.list_(pa.string())),
    }
    features: dict[str, Any] = {"image": {"_type": "Image"}}
    features |= {name: {"dtype": _KINDS[table[name].type], "_type": "Value"} for name in plain}
    features["reasons"] = {"feature": {"dtype": "string", "_type": "Value"}, "_type": "List"}
    known = {"huggingface": json.dumps({"info": {"features": features}})}
    pq.write_table(pa.table(columns).replace_schema_metadata(known), folder / FILE, compression="zstd")
