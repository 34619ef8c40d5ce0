"""Both backends find the same; nothing but the adapter knows alibi-detect."""

import subprocess
import sys

import numpy as np
import pytest
import torch

from datamill.drift import backends
from datamill.drift.backends import NATIVE, choose, resolve
from datamill.drift.detectors import Finding, Sample, Setting
from datamill.errors import ParamsError

pytest.importorskip("alibi_detect")

from datamill.drift import alibi

SETTING = Setting(num_permutations=100, level=0.05, seed=0)
RNG = np.random.default_rng(0)
NUMBERS = RNG.normal(size=300), RNG.normal(0.15, 1, 120)
TIED = RNG.integers(0, 6, 300).astype(float), RNG.integers(0, 7, 120).astype(float)
CODES = RNG.choice(3, 300, p=[0.5, 0.3, 0.2]), RNG.choice(4, 120, p=[0.4, 0.3, 0.2, 0.1])
BITS = RNG.choice(2, 300, p=[0.7, 0.3]), RNG.choice(2, 120, p=[0.6, 0.4])
ROWS = RNG.normal(size=(120, 4)), RNG.normal(0.25, 1, (80, 4))
ANSWERS = RNG.dirichlet([8, 1, 1], 300), RNG.dirichlet([6, 1, 1], 120)


def both(name: str, samples: tuple[Sample, Sample], *, of: str | None = None) -> tuple[Finding, Finding]:
    """What the native detector and alibi-detect's find."""
    kinds = NATIVE[name], alibi.DETECTORS[of or name]
    ours, theirs = (kind(samples[0], setting=SETTING).test(samples[1]) for kind in kinds)
    return ours, theirs


@pytest.mark.parametrize(
    ("name", "samples", "of"),
    [
        ("ks", NUMBERS, None),
        ("ks", TIED, None),
        ("ks", NUMBERS, "tabular"),
        ("cvm", NUMBERS, None),
        ("cvm", TIED, None),
        ("chi2", CODES, None),
        ("chi2", BITS, None),
        ("chi2", CODES, "tabular_category"),
        ("fet", BITS, None),
        ("uncertainty", ANSWERS, None),
    ],
)
def test_statistic_p_value_and_effect_agree(name: str, samples: tuple[Sample, Sample], of: str | None) -> None:
    ours, theirs = both(name, samples, of=of)
    assert theirs.statistic == pytest.approx(ours.statistic, rel=1e-5)
    assert theirs.p_value == pytest.approx(ours.p_value, rel=1e-4)
    assert theirs.effect == pytest.approx(ours.effect, rel=1e-6)


def test_the_mean_discrepancy_agrees_and_its_p_value_up_to_chance() -> None:
    ours, theirs = both("mmd", ROWS)
    assert theirs.statistic == pytest.approx(ours.statistic, rel=1e-4)
    same = ROWS[0], np.random.default_rng(5).normal(size=(80, 4))
    ours, theirs = both("mmd", same)
    assert theirs.statistic == pytest.approx(ours.statistic, abs=1e-5)
    assert theirs.p_value == pytest.approx(ours.p_value, abs=0.15)


def test_a_certain_discrepancy_has_a_p_value_below_one_in_the_permutations() -> None:
    ours, theirs = both("mmd", (ROWS[0], ROWS[1] + 2))
    assert ours.p_value is not None
    assert theirs.p_value is not None
    assert max(ours.p_value, theirs.p_value) < 1e-6


@pytest.mark.parametrize("name", ["lsdd", "classifier"])
def test_moved_rows_are_found_and_others_not(name: str) -> None:
    detector = alibi.DETECTORS[name](ROWS[0], setting=SETTING)
    moved, same = detector.test(ROWS[1] + 2), detector.test(np.random.default_rng(5).normal(size=(80, 4)))
    assert moved.p_value is not None
    assert same.p_value is not None
    assert moved.p_value < 0.02 < same.p_value


def test_density_difference_says_when_rows_repeat_too_often() -> None:
    same = np.ones((60, 3))
    found = alibi.DensityDifference(same, setting=SETTING).test(same[:30])
    assert (found.p_value, found.is_drift) == (None, False)
    assert "Too many repeat instances" in found.detail["refused"]


def test_an_alibi_that_cannot_be_imported_is_said_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datamill.drift.alibi", None)
    with pytest.raises(ParamsError, match=r"cannot be imported .*; set drift.backend to 'native'"):
        choose("ks", backend="alibi")


def test_the_online_test_says_at_which_row_and_when_it_cannot_keep_the_level() -> None:
    window = np.concatenate([np.random.default_rng(5).normal(size=(30, 4)), np.full((30, 4), 3.0)])
    found = alibi.OnlineDiscrepancy(ROWS[0], setting=Setting(100, 0.2, 1)).test(window)
    assert found.is_drift
    assert 30 <= found.detail["first_row"] < 60
    late = alibi.OnlineDiscrepancy(ROWS[0], setting=Setting(100, 0.0001, 0)).test(window)
    assert (late.is_drift, late.detail["is_level_kept"]) == (False, False)


def test_equal_seeds_give_equal_findings_and_leave_the_global_generators_alone() -> None:
    np.random.seed(3)  # noqa: NPY002
    torch.manual_seed(3)
    before = np.random.get_state()[1].tolist(), torch.random.get_rng_state().tolist()  # noqa: NPY002
    first, second = (alibi.DETECTORS["lsdd"](ROWS[0], setting=SETTING).test(ROWS[1]) for _ in range(2))
    assert first == second
    assert (np.random.get_state()[1].tolist(), torch.random.get_rng_state().tolist()) == before  # noqa: NPY002


def test_auto_takes_alibi_where_it_is_installed_and_native_where_not(monkeypatch: pytest.MonkeyPatch) -> None:
    assert resolve("auto") == "alibi"
    monkeypatch.setattr(backends, "is_alibi_installed", lambda: False)
    assert resolve("auto") == "native"
    assert choose("lsdd", backend="native") is None
    with pytest.raises(ParamsError, match="alibi-detect is not installed; pip install"):
        resolve("alibi")


def test_a_detector_that_alibi_lacks_is_ours() -> None:
    choice = choose("psi", backend="alibi")
    assert choice is not None
    assert (choice.backend, choice.detector) == ("native", NATIVE["psi"])


def test_drift_is_imported_without_alibi() -> None:
    program = "import sys, datamill.drift; print([name for name in sys.modules if name.startswith('alibi_detect')])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
