"""Is what a contender gives a part of what is stored?"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

AUDIO_SCALE = 1 / 32768


def decode_reference(file: Any) -> NDArray[np.uint8]:
    """Pixels (H, W, 3) as OpenCV's libjpeg-turbo decodes them."""
    import cv2

    return np.ascontiguousarray(cv2.imdecode(np.frombuffer(file, np.uint8), cv2.IMREAD_COLOR)[:, :, ::-1])


def is_crop(crop: NDArray[np.uint8], *, of: NDArray[np.uint8], margin: int = 0) -> bool:
    """Is ``crop``, or its mirror image, a part of the image, pixel by pixel?

    Args:
        crop: Pixels, shape (H, W, 3).
        of: The whole image.
        margin: Pixels at every edge of ``crop`` that do not count.
    """
    crop = crop[margin : len(crop) - margin, margin : crop.shape[1] - margin]
    height, width = crop.shape[:2]
    tops, lefts = of.shape[0] - height + 1, of.shape[1] - width + 1
    for candidate in (crop, crop[:, ::-1]):
        corner = (of[:tops, :lefts] == candidate[0, 0]).all(-1)
        for top, left in np.argwhere(corner):
            if np.array_equal(of[top : top + height, left : left + width], candidate):
                return True
    return False


def is_window(window: NDArray[np.float32], *, of: NDArray[np.int16]) -> bool:
    """Is ``window``, a part of the clip, scaled to [-1, 1)?"""
    found = np.rint(window / AUDIO_SCALE).astype(np.int64)
    starts = np.flatnonzero(of[: len(of) - len(found) + 1] == found[0])
    return any(np.array_equal(of[start : start + len(found)], found) for start in starts)
