from datetime import UTC, datetime

import pytest
from openlineage.client import event_v2
from openlineage.client.generated import (
    data_quality_metrics_dataset,
    dataset_version_dataset,
    documentation_job,
    error_message_run,
    job_type_job,
    output_statistics_output_dataset,
    parent_run,
    schema_dataset,
)

from datamill.errors import DataError
from datamill.lineage import events, versions
from datamill.tracking import Session
from tasks import PIPELINE
from tests.lineages import write_workspace

NOW = datetime(2026, 3, 1, 12, 30, tzinfo=UTC)
CLASSES = {
    "parent": parent_run.ParentRunFacet,
    "errorMessage": error_message_run.ErrorMessageRunFacet,
    "jobType": job_type_job.JobTypeJobFacet,
    "documentation": documentation_job.DocumentationJobFacet,
    "version": dataset_version_dataset.DatasetVersionDatasetFacet,
    "schema": schema_dataset.SchemaDatasetFacet,
    "dataQualityMetrics": data_quality_metrics_dataset.DataQualityMetricsDatasetFacet,
    "outputStatistics": output_statistics_output_dataset.OutputStatisticsOutputDatasetFacet,
}


def subject(root, name, *, session=None):
    stage = next(one for one in PIPELINE if one.name == name)
    session = session or Session("flow-1", "train ws")
    return events.Subject(stage, root, session, events.run_id(session, stage=name, started_ns=1), "ws")


def event_of(tmp_path, name, kind="COMPLETE", **more):
    root = write_workspace(tmp_path / "ws")
    return events.event(kind, subject(root, name), now=NOW, **more)


def require_valid(content):
    """Every facet is one of the library's, of its version, with its fields; the event is one of the library's."""

    def checked(facets):
        for name, facet in facets.items():
            if name in CLASSES:
                fields = {key: value for key, value in facet.items() if not key.startswith("_")}
                made = CLASSES[name](**fields)
                assert facet["_schemaURL"] == made._get_schema()
            assert facet["_producer"].startswith("urn:datamill:")

    checked(content["run"]["facets"])
    checked(content["job"]["facets"])
    for one in (*content["inputs"], *content["outputs"]):
        checked(one.get("facets", {}))
        checked(one.get("outputFacets", {}))
    made = event_v2.RunEvent(
        eventType=event_v2.RunState(content["eventType"]),
        eventTime=content["eventTime"],
        producer=content["producer"],
        run=event_v2.Run(**content["run"]),
        job=event_v2.Job(**content["job"]),
        inputs=[event_v2.InputDataset(**one) for one in content["inputs"]],
        outputs=[event_v2.OutputDataset(**one) for one in content["outputs"]],
    )
    assert made.schemaURL == content["schemaURL"]


@pytest.mark.parametrize("kind", ["START", "COMPLETE", "FAIL", "ABORT"])
def test_an_event_is_what_the_library_would_build(tmp_path, kind):
    content = event_of(tmp_path, "audit", kind, error=DataError("bad") if kind == "FAIL" else None)
    require_valid(content)
    assert (content["eventTime"], content["job"]["name"]) == ("2026-03-01T12:30:00.000+00:00", "audit")


def test_what_one_stage_wrote_and_another_reads_is_one_version_by_name(tmp_path):
    root = write_workspace(tmp_path / "ws")
    written = events.event("COMPLETE", subject(root, "split"), now=NOW)["outputs"]
    read = events.event("START", subject(root, "audit"), now=NOW)["inputs"]
    (mine,) = [one for one in written if one["name"] == "data/split/assignments.parquet"]
    (yours,) = [one for one in read if one["name"] == "data/split/assignments.parquet"]
    assert mine["namespace"] == yours["namespace"] == "dvc:ws"
    expected = versions.digest_of(root / "data/split/assignments.parquet")
    assert mine["facets"]["version"]["datasetVersion"] == yours["facets"]["version"]["datasetVersion"] == expected


def test_a_ledger_comes_with_its_columns_its_rows_and_how_many_have_which_fate(tmp_path):
    root = write_workspace(tmp_path / "ws", audited=[0, 1, 2])
    outputs = events.event("COMPLETE", subject(root, "audit"), now=NOW)["outputs"]
    (ledger,) = [one for one in outputs if one["name"].endswith("ledger.parquet")]
    assert [field["name"] for field in ledger["facets"]["schema"]["fields"]][:4] == [
        "sample_id",
        "fate",
        "reason",
        "detail",
    ]
    assert ledger["facets"]["dataQualityMetrics"]["rowCount"] == 64
    assert ledger["facets"]["datamill_ledger"]["fates"] == {"kept": 61, "repaired": 0, "dropped": 3, "quarantined": 0}
    assert ledger["facets"]["datamill_ledger"]["reasons"] == {"label_issue": 3}
    assert ledger["outputFacets"]["outputStatistics"]["rowCount"] == 64


def test_parts_come_with_the_schema_of_the_samples(tmp_path):
    outputs = event_of(tmp_path, "ingest")["outputs"]
    (parts,) = [one for one in outputs if one["name"] == "data/ingest/samples"]
    assert {"name": "feature:height", "type": "double"} in parts["facets"]["schema"]["fields"]


def test_a_stage_that_starts_promises_outputs_without_facets(tmp_path):
    assert all(set(one) == {"namespace", "name"} for one in event_of(tmp_path, "split", "START")["outputs"])


def test_a_failure_tells_its_message_without_a_password(tmp_path):
    content = event_of(tmp_path, "split", "FAIL", error=DataError("no answer from https://me:secret@host/x"))
    assert content["run"]["facets"]["errorMessage"]["message"] == "no answer from https://host/x"


def test_the_parent_is_prefects_flow_run_where_there_is_one():
    flow = Session("0f8fad5b-d9cb-469f-a165-70867728950e", "train ws")
    assert events.parent_id(flow) == flow.key
    assert events.parent_id(Session("dvc-12-34", "dvc repro")) == events.parent_id(Session("dvc-12-34", "other"))


def test_two_executions_have_two_ids():
    session = Session("flow-1", "x")
    ids = {events.run_id(session, stage=stage, started_ns=ns) for stage in ("clean", "split") for ns in (1, 2)}
    assert len(ids) == 4
