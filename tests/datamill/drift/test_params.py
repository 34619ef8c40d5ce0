"""What may be asked of drift."""

import pytest
from pydantic import ValidationError

from datamill.drift import DriftParams
from datamill.drift.params import DetectorParams, EffectParams
from tests.datamill.drift.made import params


@pytest.mark.parametrize("model", [DriftParams, DetectorParams, EffectParams])
def test_every_field_says_what_it_is(model: type[DriftParams]) -> None:
    assert all(field.description for field in model.model_fields.values())
    assert all(field.is_required() for field in model.model_fields.values())


def test_the_native_backend_is_not_asked_for_what_it_lacks() -> None:
    with pytest.raises(ValidationError, match=r"\['lsdd'\] are alibi-detect's alone"):
        params(detectors={"embedding": ["lsdd"]})
    assert params(backend="auto", detectors={"embedding": ["lsdd"]}).detectors.embedding == ("lsdd",)


@pytest.mark.parametrize("change", [{"level": 0.0}, {"margin": 1.0}, {"backend": "torch"}, {"min_samples": 1}])
def test_values_out_of_bounds_are_refused(change: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        params(**change)
