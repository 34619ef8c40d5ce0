"""What a stage tells other tools when it starts and ends: OpenLineage events as plain JSON.

An artifact is a data set named by its DVC path; its version is DVC's digest, so what one stage wrote and another read
are the same version by name. Built here and not by the client library, which is then needed by nobody.

Source: the OpenLineage specification 2-0-2 and its facets, https://openlineage.io/spec.
"""

import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

from datamill import dvcfile
from datamill.lineage import versions
from datamill.stage import Artifact, Stage
from datamill.tracking import Session, redact

EventType = Literal["START", "COMPLETE", "FAIL", "ABORT"]
SPEC = "https://openlineage.io/spec"
RUN_EVENT = f"{SPEC}/2-0-2/OpenLineage.json#/$defs/RunEvent"
FACETS = {
    "parent": "1-2-0/ParentRunFacet",
    "errorMessage": "1-0-1/ErrorMessageRunFacet",
    "jobType": "2-0-4/JobTypeJobFacet",
    "documentation": "1-1-0/DocumentationJobFacet",
    "version": "1-0-1/DatasetVersionDatasetFacet",
    "schema": "1-2-0/SchemaDatasetFacet",
    "dataQualityMetrics": "1-0-1/DataQualityMetricsDatasetFacet",
    "outputStatistics": "1-0-2/OutputStatisticsOutputDatasetFacet",
}
NAMESPACE = uuid.UUID("6f9f9a2e-5c0b-4b7e-9d6c-0a3d7a1f4c52")  # of ids made from sessions that are no UUIDs
PIPELINE_JOB = "pipeline"  # the job whose runs are the parents of the stages' runs
MAX_HASHED_BYTES = 64 * 2**20  # a larger output is hashed by DVC alone, and gets its version when a stage reads it


@dataclass(frozen=True)
class Subject:
    """Whose events these are.

    Attributes:
        stage: The stage.
        root: The workspace.
        session: Whose run it belongs to.
        run_id: A UUID, the same in every event of one execution.
        namespace: Of the job; the workspace's name unless the environment says otherwise.
    """

    stage: Stage
    root: Path
    session: Session
    run_id: str
    namespace: str


def run_id(session: Session, *, stage: str, started_ns: int) -> str:
    """A UUID for one execution of a stage: its own for every execution."""
    return str(uuid.uuid5(NAMESPACE, f"{session.key}\0{stage}\0{started_ns}"))


def parent_id(session: Session) -> str:
    """The session's UUID: Prefect's where its key is one."""
    try:
        return str(uuid.UUID(session.key))
    except ValueError:
        return str(uuid.uuid5(NAMESPACE, session.key))


def event(kind: EventType, subject: Subject, *, now: datetime, error: BaseException | None = None) -> dict[str, Any]:
    """One event; the outputs have facets only once they are complete.

    Args:
        kind: What happened.
        subject: To whom.
        now: When, in UTC.
        error: What it failed with.
    """
    stage, root = subject.stage, subject.root
    lock = dvcfile.read_lock(root)
    parent = {
        "run": {"runId": parent_id(subject.session)},
        "job": {"namespace": subject.namespace, "name": PIPELINE_JOB},
    }
    facets = {"parent": facet("parent", **parent)}
    if error is not None:
        message = redact(str(error) or type(error).__name__)
        facets["errorMessage"] = facet("errorMessage", message=message, programmingLanguage="Python")
    is_complete = kind == "COMPLETE"
    return {
        "eventType": kind,
        "eventTime": now.isoformat(timespec="milliseconds"),
        "producer": producer(),
        "schemaURL": RUN_EVENT,
        "run": {"runId": subject.run_id, "facets": facets},
        "job": {
            "namespace": subject.namespace,
            "name": stage.name,
            "facets": {
                "jobType": facet("jobType", processingType="BATCH", integration="DATAMILL", jobType="STAGE"),
                "documentation": facet("documentation", description=stage.summary),
            },
        },
        "inputs": [
            {**_named(artifact, subject=subject), "facets": _version(_known_digest(artifact, root=root, lock=lock))}
            for artifact in _tracked(stage.inputs.values())
        ],
        "outputs": [
            {
                **_named(artifact, subject=subject),
                **(_written(artifact, port=port, subject=subject) if is_complete else {}),
            }
            for port, artifact in stage.outputs.items()
            if not artifact.measured
        ],
    }


def facet(name: str, **content: Any) -> dict[str, Any]:
    """A facet of the specification with its two obligatory fields."""
    path = FACETS[name]
    return {
        "_producer": producer(),
        "_schemaURL": f"{SPEC}/facets/{path}.json#/$defs/{path.partition('/')[2]}",
        **content,
    }


@cache  # the version is read from the package's files
def producer() -> str:
    """Who tells: this program and its version, as a URI."""
    return f"urn:datamill:{version('datamill')}"


def _tracked(artifacts: Iterable[Artifact]) -> list[Artifact]:
    return [artifact for artifact in artifacts if not artifact.measured]


def _named(artifact: Artifact, *, subject: Subject) -> dict[str, Any]:
    return {"namespace": f"dvc:{subject.namespace}", "name": artifact.path}


def _known_digest(artifact: Artifact, *, root: Path, lock: Mapping[str, Any]) -> str | None:
    """DVC's digest of an input: from the lock file if that speaks of what is on disk, else of what is there."""
    path = root / artifact.path
    if not path.exists():
        return None
    size = versions.size_of(path)
    outs = [out for entry in lock.values() for out in entry.get("outs", ()) if out["path"] == artifact.path]
    if outs and outs[0].get("size") == size:
        return str(outs[0]["md5"])
    return versions.digest_of(path) if size <= MAX_HASHED_BYTES else None


def _written(artifact: Artifact, *, port: str, subject: Subject) -> dict[str, Any]:
    path = subject.root / artifact.path
    size = versions.size_of(path)
    facets = _version(versions.digest_of(path) if size <= MAX_HASHED_BYTES else None) | _schema(path)
    statistics: dict[str, Any] = {"size": size, "fileCount": sum(1 for _ in path.rglob("*")) if path.is_dir() else 1}
    account = subject.stage.account
    if account is not None and account.ledger == port:
        facets |= _quality(path, size=size)
        statistics["rowCount"] = facets["dataQualityMetrics"]["rowCount"]
    return {"facets": facets, "outputFacets": {"outputStatistics": facet("outputStatistics", **statistics)}}


def _version(digest: str | None) -> dict[str, Any]:
    return {} if digest is None else {"version": facet("version", datasetVersion=digest)}


def _schema(path: Path) -> dict[str, Any]:
    """Columns of a Parquet file or of a parts folder; nothing for others."""
    import pyarrow.parquet as pq

    from datamill import parts

    if (path / parts.MANIFEST).is_file():
        found = parts.read_manifest(path).parts
        path = path / found[0].name if found else path
    if path.suffix != ".parquet":
        return {}
    fields = [{"name": field.name, "type": str(field.type)} for field in pq.read_schema(path)]
    return {"schema": facet("schema", fields=fields)}


def _quality(path: Path, *, size: int) -> dict[str, Any]:
    """Rows of a ledger, and how many of them have which fate for which reason."""
    from datamill import ledger

    counts = ledger.count(path)
    fates = {fate: counts[fate] for fate in ledger.FATES}
    columns = {
        "fate": {"count": counts["in"], "nullCount": 0, "distinctCount": sum(1 for count in fates.values() if count)},
        "reason": {"count": sum(counts["reasons"].values()), "distinctCount": len(counts["reasons"])},
    }
    told = {"_producer": producer(), "_schemaURL": "urn:datamill:facets:ledger:1", "fates": fates}
    return {
        "dataQualityMetrics": facet("dataQualityMetrics", rowCount=counts["in"], bytes=size, columnMetrics=columns),
        "datamill_ledger": {**told, "reasons": counts["reasons"]},
    }
