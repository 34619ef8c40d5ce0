"""Groups of samples that belong together, from pairs."""

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components


def first_of_cluster(pairs: NDArray[np.int64], *, num_samples: int) -> NDArray[np.int64]:
    """Smallest row of each sample's connected component, shape ``(N,)``; its own row where no pair names it.

    Args:
        pairs: Rows that belong together, shape ``(P, 2)``.
        num_samples: N.
    """
    links = coo_array((np.ones(len(pairs), bool), (pairs[:, 0], pairs[:, 1])), shape=(num_samples, num_samples))
    count, component = connected_components(links, directed=False)
    first = np.full(count, num_samples, np.int64)
    np.minimum.at(first, component, np.arange(num_samples))
    return first[component]
