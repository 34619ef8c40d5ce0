"""Groups of samples that belong together, from pairs; memory grows with the pairs, beside 4 bytes per sample."""

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components


def first_of_cluster(pairs: NDArray[np.int64], *, num_samples: int) -> NDArray[np.int32]:
    """Smallest row of each sample's connected component, shape ``(N,)``; its own row where no pair names it.

    Args:
        pairs: Rows that belong together, shape ``(P, 2)``.
        num_samples: N.
    """
    rows, ends = np.unique(pairs, return_inverse=True)
    left, right = ends.reshape(pairs.shape).T.astype(np.int32)
    links = coo_array((np.ones(len(pairs), bool), (left, right)), shape=(len(rows), len(rows)))
    _, component = connected_components(links, directed=False)
    _, first = np.unique(component, return_index=True)  # rows ascend, so a component's first place is its smallest row
    firsts = np.arange(num_samples, dtype=np.int32)
    firsts[rows] = rows[first[component]]
    return firsts


def leak_groups(pairs: NDArray[np.int64], *, content: NDArray[np.int32]) -> NDArray[np.int32]:
    """First row of the group each sample shares a side of the split with, shape ``(N,)``.

    Args:
        pairs: Rows that are near-duplicates, shape ``(P, 2)``.
        content: First row with each sample's content, shape ``(N,)``; exact copies always share a group.
    """
    copies = np.flatnonzero(content != np.arange(len(content)))
    links = np.stack([copies, content[copies].astype(np.int64)], axis=1)
    return first_of_cluster(np.concatenate([pairs, links]), num_samples=len(content))
