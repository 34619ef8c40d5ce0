"""Constant samples: images of a single colour, which hold nothing to learn from."""

from typing import Literal

import numpy as np
from numpy.typing import NDArray

from datamill.fates import Fates
from datamill.ledger import Fate

CONSTANT = "constant"


def settle_constant(fates: Fates, *, constant: NDArray[np.int64], policy: Literal["drop", "flag", "off"]) -> None:
    """Decide about constant samples.

    Args:
        fates: Receives the decisions.
        constant: Samples all of whose pixels are equal, ascending, shape ``(M,)``.
        policy: What becomes of them.
    """
    if policy != "off":
        fate: Fate = "dropped" if policy == "drop" else "kept"
        fates.decide(constant, fate=fate, reason=CONSTANT, details="all pixels are equal")
