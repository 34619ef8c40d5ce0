"""The first layer of every network: raw values in, normalised values out."""

import torch
from torch import Tensor, nn

PIXEL_MAX = 255.0


class Normalise(nn.Module):
    """Subtracts each channel's mean and divides by its standard deviation; without them, changes nothing.

    The numbers are buffers outside the state dict: the network's specification owns them.
    """

    offset: Tensor
    scale: Tensor

    def __init__(self, mean: tuple[float, ...], *, std: tuple[float, ...]) -> None:
        """Means and deviations of pixel / 255 by channel; a channel that never varies is only centred."""
        super().__init__()
        shape = (1, len(mean), 1, 1)
        deviation = torch.tensor([value if value > 0 else 1.0 for value in std]).reshape(shape)
        self.is_identity = not mean
        self.register_buffer("offset", torch.tensor(mean).reshape(shape) * PIXEL_MAX, persistent=False)
        self.register_buffer("scale", 1 / (deviation * PIXEL_MAX), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Images (N, C, H, W) from 0 to 255, or tables (N, D), at about zero mean and unit deviation."""
        return x if self.is_identity else (x - self.offset) * self.scale
