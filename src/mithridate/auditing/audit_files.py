"""What an audit leaves on disk: a row a pair, the keep-list, the record that a decision file is held against."""

# pyright: reportAttributeAccessIssue=false
# (pyarrow makes its compute functions at import, where pyright does not see them)

from __future__ import annotations

import hashlib
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from mithridate.auditing.audit import Audit
from mithridate.auditing.decisions import Decisions, decide
from mithridate.auditing.keep import SCORES, read_record, write_keep_list, write_record
from mithridate.auditing.origins import shards
from mithridate.data.bounded import read_parquet
from mithridate.errors import FilterError
from mithridate.sealed import read_sealed_json, write_sealed_json
from mithridate.version import __version__

AUDIT = "audit.json"
AUDIT_FORMAT = "mithridate-audit/1"


def audit_id(audit: Audit) -> str:
    """A name of the audit that its decisions refer to: a hash of the pairs and of what was proposed."""
    digest = hashlib.blake2b(audit.pairs.fingerprint.encode(), digest_size=12)
    digest.update(audit.suspicion.tobytes())
    digest.update(np.packbits(audit.kept).tobytes())
    return digest.hexdigest()


def write_audit(audit: Audit, folder: Path, *, encoder: str, weights: str | None) -> None:
    """Write into `folder` (it exists): scores.parquet, keep.txt, keep.npy, filter.json and audit.json."""
    pq.write_table(score_table(audit), folder / SCORES, compression="zstd")
    write_keep_list(audit.pairs.uid.filter(pa.array(audit.kept)), folder)
    write_record({"detector": {"name": "audit"}, "encoder": encoder, "weights": weights}, folder)
    record = {
        "format": AUDIT_FORMAT,
        "id": audit_id(audit),
        "version": __version__,
        "encoder": encoder,
        "weights": weights,
        "detectors": list(audit.evidence),
        "left out": dict(audit.left_out),
        "notes": list(audit.notes),
        "capacity": None if audit.capacity is None else asdict(audit.capacity),
        "drop": {str(i + 1): campaign.drop.tolist() for i, campaign in enumerate(audit.campaigns)},
    }
    write_sealed_json(folder / AUDIT, {**record, **summary(audit)})


def write_kept(uid: pa.ChunkedArray, audit_folder: Path, record: dict[str, Any], folder: Path) -> None:
    """Write the keep-list that a person decided on, beside the scores it came from, into `folder` (it exists)."""
    write_keep_list(uid, folder)
    scored = read_parquet(audit_folder / SCORES)
    kept = pc.is_in(scored["uid"], value_set=uid)
    scored = scored.set_column(scored.column_names.index("kept"), "kept", kept)
    pq.write_table(scored, folder / SCORES, compression="zstd")
    own = {"detector": {"name": "audit"}, "encoder": record["encoder"], "weights": record["weights"]}
    write_record(own, folder)


def score_table(audit: Audit) -> pa.Table:
    """One row a pair: identity, ranking, what was decided, and what each detector says."""
    pairs, n = audit.pairs, len(audit.pairs)
    group = np.full(n, None, object)
    for number, campaign in reversed(list(enumerate(audit.campaigns))):
        group[campaign.rows] = str(number + 1)
    names = pairs.table.column_names
    columns: dict[str, Any] = {
        "uid": pairs.uid,
        "key": pairs.table["key"].cast(pa.string()) if "key" in names else pa.nulls(n, pa.string()),
        "url": pairs.table["url"].cast(pa.string()) if "url" in names else pa.nulls(n, pa.string()),
        "shard": shards(pairs),
        "caption": pairs.text,
        "suspicion": pa.array(audit.suspicion),
        "p_value": pa.array(audit.p_value, from_pandas=True),
        "kept": pa.array(audit.kept),
        "group": pa.array(group.tolist(), pa.string()),
    }
    for name, evidence in audit.evidence.items():
        column = name.replace("-", "_")
        columns[f"{column}_suspicion"] = pa.array(evidence.suspicion)
        columns[f"{column}_p"] = pa.array(audit.p[name]) if name in audit.p else pa.nulls(n, pa.float64())
        columns[f"{column}_reason"] = pa.array(evidence.reason.tolist(), pa.string())
    return pa.table(columns)


def summary(audit: Audit) -> dict[str, Any]:
    """What `mithridate audit --json` ends with, less the folder."""
    return {
        "verdict": audit.verdict,
        "pairs": len(audit.pairs),
        "flagged": audit.flagged,
        "groups": [
            {
                "kind": campaign.lead.kind,
                "value": campaign.lead.value,
                "strength": round(campaign.lead.strength, 2),
                "images": campaign.lead.images,
                "pairs": len(campaign.drop),
            }
            for campaign in audit.campaigns
        ],
    }


def apply_decisions(folder: Path, decisions: Decisions) -> tuple[pa.ChunkedArray, dict[str, Any]]:
    """The uids that stay after `decisions` on the audit in `folder`, and its record. Raises `FilterError`."""
    try:
        read_record(folder, [SCORES])
        record = read_sealed_json(folder / AUDIT)
        if record["format"] != AUDIT_FORMAT:
            raise ValueError(f"format {record['format']!r}")
        table = read_parquet(folder / SCORES, columns=["uid", "kept"])
        members = {str(number): [int(row) for row in rows] for number, rows in record["drop"].items()}
        name = str(record["id"])
        if type(record["pairs"]) is not int or not isinstance(record["encoder"], str):
            raise TypeError("pairs should be a number, and encoder a name")
        record.setdefault("weights", None)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise FilterError(f"{folder} holds no whole output of mithridate audit: {error}; audit again") from error
    uid, kept = table["uid"], table["kept"].to_pylist()
    if any(not 0 <= row < len(kept) for rows in members.values() for row in rows):
        raise FilterError(f"{folder} holds no whole output of mithridate audit: rows beyond its table; audit again")
    stays = decide(decisions, name, uid.to_pylist(), members, kept)
    return uid.filter(pa.array(stays)), record
