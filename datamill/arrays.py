"""Arrays written to files in such a way that a full disk is told.

``ndarray.tofile``, and ``np.save`` with it, goes through a buffer of C's, and is silent where the last of it does not
fit: up to 4 KiB of each call are lost.
"""

from types import SimpleNamespace
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray


def append(file: IO[bytes], array: NDArray[Any]) -> None:
    """Write the bytes of an array of any type, in C order.

    Raises:
        OSError: The disk is full; here, or when the file is closed.
    """
    file.write(np.ascontiguousarray(array).data)


def save(file: IO[bytes], array: NDArray[Any]) -> None:
    """Write an array in NumPy's own format.

    Raises:
        OSError: The disk is full; here, or when the file is closed.
    """
    plain: Any = SimpleNamespace(write=file.write)  # what is no file to NumPy is written to as it ought to be
    np.save(plain, np.ascontiguousarray(array), allow_pickle=False)
