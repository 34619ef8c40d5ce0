"""Constant samples: images of a single colour, which hold nothing to learn from."""

from typing import Literal

import numpy as np
from numpy.typing import NDArray

from datamill.fates import Fates
from datamill.ledger import Fate

CONSTANT = "constant"


def settle_constant(fates: Fates, *, is_constant: NDArray[np.bool_], policy: Literal["drop", "flag", "off"]) -> None:
    """Decide about constant samples.

    Args:
        fates: Receives the decisions.
        is_constant: Whether all pixels of a sample are equal, shape ``(N,)``.
        policy: What becomes of them.
    """
    if policy != "off":
        fate: Fate = "dropped" if policy == "drop" else "kept"
        fates.decide(np.flatnonzero(is_constant), fate=fate, reason=CONSTANT, details="all pixels are equal")
