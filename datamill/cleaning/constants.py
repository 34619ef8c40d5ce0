"""Constant samples: images of a single colour, which hold nothing to learn from."""

from typing import Literal

import numpy as np
from numpy.typing import NDArray

from datamill.cleaning.observing import Observed
from datamill.fates import Fates
from datamill.ledger import Fate

CONSTANT = "constant"


def settle_constant(
    fates: Fates,
    *,
    observed: Observed,
    rows: NDArray[np.int64],
    content: NDArray[np.int64],
    policy: Literal["drop", "flag", "off"],
) -> None:
    """Decide about constant samples and their exact copies.

    Args:
        fates: Receives the decisions.
        observed: Facts about the samples ``rows``.
        rows: Rows that were observed, each the first of its content, shape ``(M,)``.
        content: First row with each sample's content, shape ``(N,)``.
        policy: What becomes of them.
    """
    if policy == "off":
        return
    constant = np.flatnonzero(np.isin(content, rows[observed.is_constant])).tolist()
    fate: Fate = "dropped" if policy == "drop" else "kept"
    fates.decide(constant, fate=fate, reason=CONSTANT, details=["all pixels are equal"] * len(constant))
