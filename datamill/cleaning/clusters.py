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
    return np.asarray(first[component], np.int64)


def leak_groups(pairs: NDArray[np.int64], *, content: NDArray[np.int64]) -> NDArray[np.int64]:
    """First row of the group each sample shares a side of the split with, shape ``(N,)``.

    Args:
        pairs: Rows that are near-duplicates, shape ``(P, 2)``.
        content: First row with each sample's content, shape ``(N,)``; exact copies always share a group.
    """
    copies = np.stack([np.arange(len(content)), content], axis=1)
    return first_of_cluster(np.concatenate([pairs, copies]), num_samples=len(content))
