import numpy as np
import pytest
import torch

from datamill.errors import ParamsError
from datamill.shards import gathering
from datamill.shards.gathering import ArrayColumn, NormalisedColumn, Normaliser, Statistics
from datamill.shards.native import memory_shard

RNG = np.random.default_rng(0)


def normalised(values: torch.Tensor, statistics: Statistics) -> torch.Tensor:
    shape = tuple(values.shape[1:])
    out = torch.empty_like(values, dtype=torch.float32)
    Normaliser(statistics, dtype=values.dtype, shape=shape, name="x").apply(values, out=out)
    return out


def test_bytes_are_scaled_to_one_and_standardised() -> None:
    values = torch.tensor([[0, 51, 255]], dtype=torch.uint8)
    torch.testing.assert_close(normalised(values, (0.2, 0.4)), torch.tensor([[-0.5, 0.0, 2.0]]))


def test_sound_is_scaled_to_one() -> None:
    values = torch.tensor([[-32768, 0, 16384]], dtype=torch.int16)
    assert normalised(values, (0, 1)).tolist() == [[-1.0, 0.0, 0.5]]


def test_floats_are_not_scaled() -> None:
    assert normalised(torch.tensor([[1.0, 3.0]]), (1.0, 2.0)).tolist() == [[0.0, 1.0]]


def test_pixels_from_0_to_255_come_out_exactly() -> None:
    values = torch.arange(256).to(torch.uint8).reshape(1, 256)
    assert normalised(values, (0.0, 1 / 255)).tolist() == [list(range(256))]


def test_every_channel_has_its_own_numbers() -> None:
    image = torch.full((1, 2, 2, 3), 255, dtype=torch.uint8)
    result = normalised(image, ((0.0, 0.5, 1.0), (1.0, 0.5, 0.0)))
    torch.testing.assert_close(result, torch.tensor([1.0, 1.0, 0.0]).expand(1, 2, 2, 3))


@pytest.mark.parametrize("statistics", [((0.1, 0.2), 1.0), (0.0, -1.0), (float("nan"), 1.0)])
def test_numbers_that_fit_no_channels_are_refused(statistics: Statistics) -> None:
    with pytest.raises(ParamsError, match=r"normalise\['x'\] is .* for rows of shape \(2, 2, 3\); give a mean"):
        normalised(torch.zeros(1, 2, 2, 3), statistics)


@pytest.mark.parametrize("chunk_bytes", [1, 100, 2**20])
def test_chunks_change_nothing(chunk_bytes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gathering, "CHUNK_BYTES", chunk_bytes)
    x = RNG.integers(0, 256, (50, 4, 3, 1), dtype=np.uint8)
    field = memory_shard({"x": x}, split="train").fields["x"]
    column = ArrayColumn(field)  # type: ignore[arg-type]
    normaliser = Normaliser((0.0, 1 / 255), dtype=torch.uint8, shape=(4, 3, 1), name="x")
    rows = RNG.permutation(50)[:33]
    out = torch.empty(33, 4, 3, 1)
    NormalisedColumn(column, normaliser=normaliser).load(rows, out=out, epoch=0)
    np.testing.assert_array_equal(out.numpy(), x[rows])
