"""Samples the pipeline makes itself: their identity, and the training samples they are made from."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from datamill import ledger, samples
from datamill.samples import Origin


def train_labels(audited: Path) -> dict[str, str]:
    """Label of every training sample that survived the audit, by id, in sample order."""
    table = ledger.read(audited, columns=["sample_id", "fate", "split", "label"])
    is_wanted = pc.and_(pc.is_in(table["fate"], pa.array(ledger.SURVIVING)), pc.equal(table["split"], "train"))
    table = table.filter(is_wanted)
    return dict(zip(table["sample_id"].to_pylist(), table["label"].to_pylist(), strict=True))


def payload_hashes(payload: Mapping[str, pa.Array | pa.ChunkedArray]) -> list[str]:
    """Content hash of each row of payload columns: equal payloads, whoever made them, share it."""
    if "image" in payload:
        return [samples.content_hash(cell["bytes"].as_py()) for cell in payload["image"]]
    rows = zip(*(column.to_pylist() for column in payload.values()), strict=True)
    return [samples.content_hash(repr(row).encode()) for row in rows]


def sample_table(
    payload: Mapping[str, pa.Array],
    *,
    sources: Sequence[str],
    labels: Sequence[str],
    parents: Sequence[Sequence[str]],
    origin: Origin,
) -> pa.Table:
    """Rows for a part: identity from ``sources`` and the payload's content; neither group nor time."""
    contents = payload_hashes(payload)
    return pa.table(
        {
            "sample_id": [
                samples.sample_id(source, content) for source, content in zip(sources, contents, strict=True)
            ],
            "source": pa.array(sources, pa.string()),
            "content_hash": pa.array(contents, pa.string()),
            "label": pa.array(labels, pa.string()),
            "origin": pa.array([origin] * len(contents), pa.string()),
            "parents": pa.array(parents, pa.list_(pa.string())),
            **payload,
        }
    )


def id_bytes(sample_ids: Sequence[str]) -> NDArray[np.uint8]:
    """Sample ids as bytes, shape (N, 16)."""
    raw = b"".join(bytes.fromhex(key) for key in sample_ids)
    return np.frombuffer(raw, np.uint8).reshape(len(sample_ids), samples.HASH_BYTES)
