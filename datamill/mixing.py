"""SplitMix64: numbers whose bits look random, the same for the same input.

Source: G. L. Steele, D. Lea, C. H. Flood, "Fast splittable pseudorandom number generators", OOPSLA 2014.
"""

import numpy as np
from numpy.typing import NDArray

INCREMENT = np.uint64(0x9E3779B97F4A7C15)  # 2 to the power of 64 by the golden ratio: what is added at each step
FIRST, SECOND = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)


def mixed(bits: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """``bits`` with every bit spread over all 64, one to one."""
    bits = (bits ^ (bits >> np.uint64(30))) * FIRST
    bits = (bits ^ (bits >> np.uint64(27))) * SECOND
    return np.asarray(bits ^ (bits >> np.uint64(31)), np.uint64)
