"""A multilayer perceptron for tables."""

# Shapes: N samples, D features, K classes.

from itertools import pairwise

from torch import Tensor, nn

from datamill.networks.normalise import Normalise


class MultilayerPerceptron(nn.Module):
    """Hidden layers with layer normalisation, GELU and dropout, then a linear head.

    Layer normalisation knows no batch: a table of few rows, or a last batch of one row, trains like any other.
    """

    def __init__(
        self,
        *,
        num_features: int,
        num_classes: int,
        widths: tuple[int, ...],
        dropout: float,
        mean: tuple[float, ...],
        std: tuple[float, ...],
    ) -> None:
        """Fresh weights; ``widths`` are the units of the hidden layers."""
        super().__init__()
        self.normalise = Normalise(mean, std=std)
        layers: list[nn.Module] = [nn.Flatten()]
        for before, after in pairwise((num_features, *widths)):
            layers += [nn.Linear(before, after), nn.LayerNorm(after), nn.GELU(), nn.Dropout(dropout)]
        self.trunk = nn.Sequential(*layers)
        self.head = nn.Linear(widths[-1], num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Class logits, shape (N, K), for tables (N, D) or images (N, C, H, W)."""
        logits_NK: Tensor = self.head(self.trunk(self.normalise(x)))
        return logits_NK
