"""A small residual convolutional network whose number of stages follows the size of the image."""

# Shapes: N samples, C channels, H height (px), W width (px), D features, K classes.

from itertools import pairwise

from torch import Tensor, nn
from torch.nn import functional

from datamill.networks.normalise import Normalise

SMALLEST_SIDE = 4  # px; stages halve the image until its longer side is no more than this
WIDEST = 8  # times the stem's width


def stage_widths(*, height: int, width: int, base: int) -> tuple[int, ...]:
    """Channels of the stem, then of each stage that halves the image until it is at most 4 px; doubling up to 8 times.

    An image that is already small gets the stem and no stage.
    """
    widths = [base]
    side = max(height, width)
    while side > SMALLEST_SIDE:
        side = (side + 1) // 2
        widths.append(min(2 * widths[-1], WIDEST * base))
    return tuple(widths)


class ConvNet(nn.Module):
    """Stem, stages that halve the image and widen it, mean over the image, linear head.

    Every convolution is followed by batch normalisation, which ONNX Runtime folds into it: normalisation costs nothing
    where the model is used.

    Source: K. He et al., "Deep Residual Learning for Image Recognition", CVPR 2016 (with one convolution per block).
    """

    def __init__(
        self,
        *,
        in_channels: int,
        num_classes: int,
        widths: tuple[int, ...],
        depth: int,
        dropout: float,
        mean: tuple[float, ...],
        std: tuple[float, ...],
    ) -> None:
        """Fresh weights; ``widths`` are the channels of the stem and of each stage, ``depth`` its residual blocks."""
        super().__init__()
        self.normalise = Normalise(mean, std=std)
        stages: list[nn.Module] = [_convolution(in_channels, widths[0])]
        for before, after in pairwise(widths):
            stages += [_convolution(before, after, stride=2), *(Residual(after) for _ in range(depth))]
        if len(widths) == 1:  # too small to be halved: depth stays, at the stem's size
            stages += [Residual(widths[0]) for _ in range(depth)]
        self.trunk = nn.Sequential(*stages)
        self.head = nn.Sequential(nn.Dropout(dropout), nn.Linear(widths[-1], num_classes))

    def forward(self, image_NCHW: Tensor) -> Tensor:
        """Class logits, shape (N, K), for images from 0 to 255, shape (N, C, H, W)."""
        features_ND = self.trunk(self.normalise(image_NCHW)).mean(dim=(2, 3))
        logits_NK: Tensor = self.head(features_ND)
        return logits_NK


class Residual(nn.Module):
    """Adds a convolution's result to its input; starts as the identity, so that depth never hurts at first."""

    def __init__(self, width: int) -> None:
        """Keep ``width`` channels."""
        super().__init__()
        self.convolution = nn.Conv2d(width, width, kernel_size=3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(width)
        nn.init.zeros_(self.norm.weight)

    def forward(self, x_NCHW: Tensor) -> Tensor:
        """The same shape; the input must not be negative, as nothing after a rectifier is."""
        return functional.relu(x_NCHW + self.norm(self.convolution(x_NCHW)))


def _convolution(before: int, after: int, *, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(before, after, kernel_size=3, stride=stride, padding=1, bias=False),
        nn.BatchNorm2d(after),
        nn.ReLU(inplace=True),
    )
