"""The conditional VAE learns where classes are, and gives equal samples for equal seeds."""

from typing import Any

import numpy as np
import torch

from datamill.generators.vae import VaeGenerator, fit_vae

RNG = np.random.default_rng(0)
ROWS = {
    "left": (RNG.normal(size=(120, 5)) * 0.5 - 4).astype(np.float32),
    "right": (RNG.normal(size=(80, 5)) * 0.5 + 4).astype(np.float32),
}


def _fit(**changes: Any) -> VaeGenerator:
    settings: dict[str, Any] = {
        "hidden": 16, "latent": 2, "epochs": 40, "batch_size": 32, "learning_rate": 0.01, "noise": 0.0, "seed": 1,
        "device": "cpu", "track": lambda epochs: epochs,
    }  # fmt: skip
    return fit_vae(ROWS, **settings | changes)


def test_each_class_is_generated_where_it_lies() -> None:
    generator = _fit()
    assert np.abs(generator.sample("left", count=200, seed=1).mean(axis=0) + 4).max() < 0.5
    assert np.abs(generator.sample("right", count=200, seed=1).mean(axis=0) - 4).max() < 0.5


def test_noise_gives_samples_the_spread_the_decoder_leaves_out() -> None:
    smooth = _fit().sample("left", count=500, seed=1).std(axis=0).mean()
    noisy = _fit(noise=1.0).sample("left", count=500, seed=1).std(axis=0).mean()
    assert smooth < noisy < 1.0


def test_equal_seeds_give_equal_samples_whatever_the_threads() -> None:
    before = torch.get_num_threads()
    one = _fit(epochs=3).sample("left", count=9, seed=2)
    torch.set_num_threads(2)
    two = _fit(epochs=3).sample("left", count=9, seed=2)
    assert torch.get_num_threads() == 2
    torch.set_num_threads(before)
    assert np.array_equal(one, two)


def test_fitting_leaves_torchs_global_generator_alone() -> None:
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    _fit(epochs=1)
    assert torch.equal(torch.rand(1), expected)
