"""Near duplicates: pairs whose fingerprints differ in few bits, confirmed on thumbnails; never all pairs."""

import itertools
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from datamill.cleaning.clusters import first_of_cluster
from datamill.cleaning.observing import Observed
from datamill.cleaning.policies import NearPolicy
from datamill.fates import Fates
from datamill.ledger import Fate

NEAR_DUPLICATE = "near_duplicate"
NUM_BITS = 64
MAX_NEIGHBORS = 128  # samples of one bucket that a sample is compared with; bounds the work where thousands look alike
CONFIRMED_AT_ONCE = 65_536  # pairs; bounds memory


def near_pairs(
    fingerprints: NDArray[np.uint64],
    *,
    thumbnails: NDArray[np.uint8] | None,
    max_bits: int,
    max_mean_difference: float,
    max_pixel_difference: float,
) -> NDArray[np.int64]:
    """Pairs of near-duplicates.

    Multi-index hashing: of ``max_bits + 1`` blocks of the fingerprint, at least one is equal in fingerprints that
    differ in ``max_bits`` bits or fewer, so only samples that share a block are compared. Within such a bucket samples
    are sorted by brightness, and each is compared with the next ``MAX_NEIGHBORS``: work grows linearly with the
    samples. A larger bucket of equally bright samples may hide a pair; its chain of neighbours mostly joins it all
    the same.

    Args:
        fingerprints: Shape ``(N,)``.
        thumbnails: Grey pixels, shape ``(N, D)``; a pair must agree on them. ``None`` trusts the fingerprints.
        max_bits: Hamming distance that is still near; 0 for fingerprints that near-duplicates share exactly.
        max_mean_difference: Largest mean difference between thumbnails (0 to 1).
        max_pixel_difference: Largest difference between two pixels of the thumbnails (0 to 1).

    Returns:
        Rows of each pair, the smaller first, sorted, without repetition, shape ``(P, 2)``.

    Source: M. Norouzi, A. Punjani, D. J. Fleet, "Fast exact search in Hamming space with multi-index hashing", 2014.
    """
    num_samples = len(fingerprints)
    sums = np.zeros(num_samples, np.int64) if thumbnails is None else thumbnails.sum(axis=1, dtype=np.int64)
    num_pixels = 0 if thumbnails is None else thumbnails.shape[1]
    found = [np.empty(0, np.int64)]
    for keys in _blocks(fingerprints, count=max_bits + 1):
        for left, right in _candidates(keys, sums, reach=max_mean_difference * 255 * num_pixels):
            near = _num_bits(fingerprints[left] ^ fingerprints[right]) <= max_bits
            left, right = left[near], right[near]
            if thumbnails is not None:
                alike = _alike(thumbnails, left, right, mean=max_mean_difference, pixel=max_pixel_difference)
                left, right = left[alike], right[alike]
            found.append(np.minimum(left, right) * num_samples + np.maximum(left, right))
    codes = np.unique(np.concatenate(found))
    return np.stack(np.divmod(codes, max(num_samples, 1)), axis=1)


def find_near(fates: Fates, *, observed: Observed, rows: NDArray[np.int64], policy: NearPolicy) -> NDArray[np.int64]:
    """Pairs of surviving near-duplicates among the observed samples, shape ``(P, 2)``.

    Args:
        fates: Says who survives.
        observed: Facts about the samples ``rows``.
        rows: Rows that were observed, ascending, shape ``(M,)``.
        policy: How alike they must be; without thumbnails the fingerprints must be equal.
    """
    eligible = np.flatnonzero(fates.surviving[rows])
    if policy.policy == "off" or not len(eligible):
        return np.empty((0, 2), np.int64)
    thumbnails = observed.thumbnails
    pairs = near_pairs(
        observed.fingerprints[eligible],
        thumbnails=None if thumbnails is None else thumbnails[eligible],
        max_bits=0 if thumbnails is None else policy.max_bits,
        max_mean_difference=policy.max_mean_difference,
        max_pixel_difference=policy.max_pixel_difference,
    )
    return np.asarray(rows[eligible[pairs]], np.int64)


def settle_near(
    fates: Fates,
    *,
    pairs: NDArray[np.int64],
    content: NDArray[np.int64],
    sample_ids: Sequence[str],
    policy: NearPolicy,
) -> None:
    """Decide about all of a cluster of near-duplicates but its first sample and that one's exact copies.

    Args:
        fates: Receives the decisions.
        pairs: Rows that are near-duplicates, each the first of its content, shape ``(P, 2)``.
        content: First row with each sample's content, shape ``(N,)``.
        sample_ids: Id of each sample.
        policy: What becomes of them.
    """
    first = first_of_cluster(pairs, num_samples=len(content))[content]
    rows = np.flatnonzero(first != content).tolist()
    fate: Fate = "dropped" if policy.policy == "drop" else "kept"
    fates.decide(rows, fate=fate, reason=NEAR_DUPLICATE, details=[f"of {sample_ids[first[row]]}" for row in rows])


def _blocks(fingerprints: NDArray[np.uint64], *, count: int) -> Iterator[NDArray[np.uint64]]:
    edges = [NUM_BITS * place // count for place in range(count + 1)]
    for low, high in itertools.pairwise(edges):
        yield (fingerprints >> np.uint64(low)) & np.uint64((1 << (high - low)) - 1)


def _candidates(
    keys: NDArray[np.uint64], sums: NDArray[np.int64], *, reach: float
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Pairs of rows with equal key and pixel sums at most ``reach`` apart, in batches.

    Sums further apart cannot belong to thumbnails that differ by less on average.
    """
    order = np.lexsort((sums, keys))
    keys, sums = keys[order], sums[order]
    for step in range(1, min(MAX_NEIGHBORS, len(order) - 1) + 1):
        near = np.flatnonzero((keys[step:] == keys[:-step]) & (sums[step:] - sums[:-step] <= reach))
        if not len(near):
            return  # sorted: what is too far apart here is further apart at the next step
        yield order[near], order[near + step]


def _num_bits(values: NDArray[np.uint64]) -> NDArray[np.int64]:
    bits = np.unpackbits(values.view(np.uint8).reshape(-1, 8), axis=1)
    return np.asarray(bits.sum(axis=1), np.int64)


def _alike(
    thumbnails: NDArray[np.uint8], left: NDArray[np.int64], right: NDArray[np.int64], *, mean: float, pixel: float
) -> NDArray[np.bool_]:
    alike = np.empty(len(left), bool)
    for start in range(0, len(left), CONFIRMED_AT_ONCE):
        piece = slice(start, start + CONFIRMED_AT_ONCE)
        difference = np.abs(thumbnails[left[piece]].astype(np.int16) - thumbnails[right[piece]])
        alike[piece] = difference.sum(axis=1) <= mean * 255 * difference.shape[1]
        alike[piece] &= difference.max(axis=1) <= pixel * 255
    return alike
