"""Which implementation of a detector is used."""

import importlib
import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass
from types import ModuleType
from typing import Literal

from datamill.drift import estimation, multivariate, univariate
from datamill.drift.detectors import Detector
from datamill.drift.params import ALIBI_ONLY, BackendWish
from datamill.errors import ParamsError

Backend = Literal["native", "alibi"]

NATIVE: Mapping[str, type[Detector]] = {
    "ks": univariate.KolmogorovSmirnov,
    "cvm": univariate.CramerVonMises,
    "chi2": univariate.ChiSquare,
    "fet": univariate.FisherExact,
    "psi": univariate.StabilityIndex,
    "uncertainty": univariate.Uncertainty,
    "mmd": multivariate.MeanDiscrepancy,
    "novelty": multivariate.Novelty,
    "classifier": multivariate.ClassifierTest,
    "residual": estimation.Residual,
}


@dataclass(frozen=True)
class Choice:
    """A detector and whose it is.

    Attributes:
        detector: The class.
        backend: Whose.
        max_rows: Rows of each side that it can bear; ``None`` for any number.
    """

    detector: type[Detector]
    backend: Backend
    max_rows: int | None = None


def is_alibi_installed() -> bool:
    """Whether alibi-detect can be found; it is not imported for that."""
    return importlib.util.find_spec("alibi_detect") is not None


def resolve(wish: BackendWish) -> Backend:
    """The backend for a wish.

    Raises:
        ParamsError: alibi-detect was asked for and is not installed.
    """
    if wish == "alibi" and not is_alibi_installed():
        raise ParamsError(
            "drift.backend is 'alibi', but alibi-detect is not installed; pip install -e '.[alibi]' if its licence "
            "suits you, or set it to 'auto' or 'native'"
        )
    return "alibi" if wish != "native" and is_alibi_installed() else "native"


def _adapter() -> ModuleType:
    """The module that imports alibi-detect, which takes seconds, and more memory than all the rest."""
    try:
        return importlib.import_module("datamill.drift.alibi")
    except ImportError as error:
        raise ParamsError(f"alibi-detect cannot be imported ({error}); set drift.backend to 'native'") from error


def choose(name: str, *, backend: Backend, is_category: bool = False) -> Choice | None:
    """The detector of that name; our own where alibi-detect has none, ``None`` where only it has one and is absent.

    Raises:
        ParamsError: alibi-detect is installed and cannot be imported.
    """
    if backend == "alibi":
        alibi = _adapter()
        key = f"{name}_category" if name == "tabular" and is_category else name
        if key in alibi.DETECTORS:
            is_pairwise = name in ("mmd", "lsdd", "online_mmd")
            return Choice(alibi.DETECTORS[key], "alibi", alibi.PAIRWISE_ROWS if is_pairwise else None)
    if name in ALIBI_ONLY:
        return None
    return Choice(NATIVE[name], "native")
