"""A small conditional variational autoencoder on flat points, one network for all classes.

Source: D. Kingma, M. Welling, "Auto-Encoding Variational Bayes", 2014; conditioned on the class as in K. Sohn et al.,
"Learning Structured Output Representation using Deep Conditional Generative Models", 2015.
"""

# Shapes: B batch, N all points, D features of a point, K classes, L latent dimensions.

import contextlib
from collections.abc import Callable, Iterable, Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from datamill.generators import Rows

MIN_STD = 1e-3  # features that hardly vary are not blown up


class ConditionalVae(nn.Module):
    """Encoder to a Gaussian over the latent space and decoder to standardised points, both told the class."""

    def __init__(self, *, num_features: int, num_classes: int, hidden: int, latent: int) -> None:
        """Random weights from torch's global generator."""
        super().__init__()
        self.encoder = nn.Sequential(
            nn.Linear(num_features + num_classes, hidden), nn.SiLU(), nn.Linear(hidden, 2 * latent)
        )
        self.decoder = nn.Sequential(
            nn.Linear(latent + num_classes, hidden), nn.SiLU(), nn.Linear(hidden, num_features)
        )

    def forward(self, x_BD: Tensor, class_BK: Tensor, noise_BL: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Reconstruction (B, D), and mean and log variance of the latent Gaussian (B, L)."""
        mean_BL, log_variance_BL = self.encoder(torch.cat([x_BD, class_BK], dim=1)).chunk(2, dim=1)
        latent_BL = mean_BL + noise_BL * torch.exp(log_variance_BL / 2)
        return self.decoder(torch.cat([latent_BL, class_BK], dim=1)), mean_BL, log_variance_BL


class VaeGenerator:
    """Decodes draws from the prior, with the spread the decoder leaves unexplained added as noise."""

    def __init__(
        self,
        network: ConditionalVae,
        *,
        classes: tuple[str, ...],
        latent: int,
        mean: NDArray[np.float32],
        std: NDArray[np.float32],
        noise_std: NDArray[np.float32],
    ) -> None:
        """Draw from a fitted network; ``mean``, ``std`` and ``noise_std`` of the points, shape (D,) each."""
        self._network = network.cpu().eval()
        self._classes, self._latent = classes, latent
        self._mean, self._std, self._noise_std = mean, std, noise_std

    def sample(self, label: str, *, count: int, seed: int) -> NDArray[np.float32]:
        """New points of a class, shape (count, D)."""
        rng = np.random.default_rng(seed)
        latent_BL = torch.from_numpy(rng.standard_normal((count, self._latent), dtype=np.float32))
        class_BK = torch.zeros(count, len(self._classes))
        class_BK[:, self._classes.index(label)] = 1
        with torch.inference_mode(), _one_thread():
            decoded = self._network.decoder(torch.cat([latent_BL, class_BK], dim=1)).numpy()
        noise = rng.standard_normal(decoded.shape, dtype=np.float32) * self._noise_std
        return np.asarray(decoded * self._std + self._mean + noise, np.float32)


def fit_vae(
    rows: Rows,
    *,
    hidden: int,
    latent: int,
    epochs: int,
    batch_size: int,
    learning_rate: float,
    noise: float,
    seed: int,
    device: str,
    track: Callable[[Iterable[int]], Iterable[int]],
) -> VaeGenerator:
    """Fit one network to the points of all classes.

    On the CPU it runs in one thread: the sums of several would depend on how many there are. A GPU gives slightly
    other weights than a CPU.

    Args:
        rows: Points of each class.
        hidden: Width of the hidden layers (count).
        latent: Dimensions of the latent space (count).
        epochs: Passes over the points (count).
        batch_size: Points per step (count).
        learning_rate: Of Adam, per step.
        noise: Share of the decoder's residual deviation that samples get back as noise, in [0, 1].
        seed: Seeds weights, order and latent noise.
        device: ``cpu`` or ``cuda``.
        track: Wraps the epochs to show progress.
    """
    classes = tuple(rows)
    points = np.concatenate(list(rows.values()))
    mean, std = points.mean(axis=0), np.maximum(points.std(axis=0), np.float32(MIN_STD))
    x_ND = torch.from_numpy((points - mean) / std)
    class_N = torch.cat([torch.full((len(rows[label]),), place) for place, label in enumerate(classes)])
    with _one_thread(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = ConditionalVae(
            num_features=points.shape[1], num_classes=len(classes), hidden=hidden, latent=latent
        ).to(device)
        optimizer = torch.optim.Adam(network.parameters(), lr=learning_rate)
        for _ in track(range(epochs)):
            for batch in torch.randperm(len(x_ND)).split(batch_size):
                x_BD = x_ND[batch].to(device)
                class_BK = functional.one_hot(class_N[batch], len(classes)).float().to(device)
                noise_BL = torch.randn(len(batch), latent).to(device)
                optimizer.zero_grad()
                _loss(x_BD, *network(x_BD, class_BK, noise_BL)).backward()
                optimizer.step()
        residual = _residual_std(network.cpu(), x_ND, functional.one_hot(class_N, len(classes)).float(), latent=latent)
    noise_std = np.asarray(noise * residual * std, np.float32)
    return VaeGenerator(network, classes=classes, latent=latent, mean=mean, std=std, noise_std=noise_std)


def _loss(x_BD: Tensor, decoded_BD: Tensor, mean_BL: Tensor, log_variance_BL: Tensor) -> Tensor:
    """Negative evidence lower bound per point, with a unit-variance Gaussian decoder."""
    reconstruction = ((decoded_BD - x_BD) ** 2).sum(dim=1) / 2
    divergence = (mean_BL**2 + log_variance_BL.exp() - 1 - log_variance_BL).sum(dim=1) / 2
    return (reconstruction + divergence).mean()


def _residual_std(network: ConditionalVae, x_ND: Tensor, class_NK: Tensor, *, latent: int) -> NDArray[np.float32]:
    """Deviation between points and their reconstruction, per feature, shape (D,)."""
    total = torch.zeros(x_ND.shape[1], dtype=torch.float64)
    with torch.inference_mode():
        for x_BD, class_BK in zip(x_ND.split(4096), class_NK.split(4096), strict=True):
            decoded_BD, _, _ = network(x_BD, class_BK, torch.zeros(len(x_BD), latent))
            total += ((decoded_BD - x_BD) ** 2).double().sum(dim=0)
    return (total / len(x_ND)).sqrt().float().numpy()


@contextlib.contextmanager
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
