from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

from datamill.errors import StageError
from datamill.networks import build, design
from datamill.samples import Dataset
from datamill.shards.native import Shard, memory_shard
from datamill.training import loop
from datamill.training.checkpoint import FILE, load_checkpoint
from datamill.training.loop import Trainer, make_optimizer, repeatable
from datamill.training.recipe import Recipe

RECIPE = Recipe(
    seed=3,
    epochs=4,
    batch_size=16,
    peak_lr=0.01,
    warmup_share=0.1,
    weight_decay=0.05,
    label_smoothing=0.05,
    max_gradient_norm=1.0,
    patience=None,
)
DATASET = Dataset(name="bars", modality="image", classes=("0", "1", "2"))


class Recorder:
    """Leaves rows alone and remembers which epochs asked."""

    is_identity = False

    def __init__(self) -> None:
        self.epochs: set[int] = set()

    def apply(self, x: NDArray[Any], *, sample_ids: NDArray[np.uint8], epoch: int) -> NDArray[Any]:
        assert sample_ids.shape == (len(x), 16)
        self.epochs.add(epoch)
        return x


def bars(count: int, *, seed: int) -> Shard:
    """Noisy 6 x 6 images whose class is the bright third."""
    rng = np.random.default_rng(seed)
    label = (np.arange(count) % 3).astype(np.int32)
    x = rng.integers(0, 120, (count, 6, 6, 1), dtype=np.uint8)
    for row, number in enumerate(label):
        x[row, 2 * number : 2 * number + 2] += 100
    arrays: dict[str, NDArray[Any]] = {
        "x": x,
        "label": label,
        "weight": np.ones(count, np.float32),
        "draw": np.ones(count, np.float32),
        "sample_id": np.zeros((count, 16), np.uint8),
    }
    return memory_shard(arrays, split="train", dataset=DATASET)


def replace(shard: Shard, **arrays: NDArray[Any]) -> Shard:
    """The shard with some of its arrays replaced."""
    kept = {name: np.array(getattr(shard, name)) for name in shard.fields}
    return memory_shard(kept | arrays, split="train", dataset=DATASET)


TRAIN, VALIDATION = bars(48, seed=0), bars(18, seed=1)


@pytest.fixture(autouse=True)
def _repeatable() -> Iterator[None]:
    with repeatable(seed=0, num_threads=1):
        yield


def network() -> nn.Module:
    spec = design(
        "cnn", shape=(6, 6, 1), classes=("0", "1", "2"), width=4, depth=1, dropout=0.2, mean=(0.4,), std=(0.2,)
    )
    torch.manual_seed(0)
    return build(spec)


def trainer(scratch: Path, *, train: Shard = TRAIN, validation: Shard = VALIDATION, **changes: Any) -> Trainer:
    scratch.mkdir(exist_ok=True)
    recipe = RECIPE.model_copy(update=changes)
    return Trainer(
        network(),
        train=train,
        validation=validation,
        augmenter=Recorder(),
        recipe=recipe,
        device="cpu",
        scratch=scratch,
    )


def weights(run: Trainer) -> dict[str, list[float]]:
    return {name: value.flatten().tolist() for name, value in run.state.network.items()}


def test_the_network_learns(tmp_path: Path) -> None:
    history = list(trainer(tmp_path, epochs=12).epochs())
    assert history[-1].validation_accuracy is not None
    assert history[-1].validation_accuracy > 0.9
    assert history[-1].train_loss < history[0].train_loss


def test_equal_runs_are_equal_to_the_last_bit(tmp_path: Path) -> None:
    first, second = trainer(tmp_path / "a"), trainer(tmp_path / "b")
    assert list(first.epochs()) == list(second.epochs())
    assert weights(first) == weights(second)


def test_seeds_change_the_result(tmp_path: Path) -> None:
    assert list(trainer(tmp_path / "a").epochs()) != list(trainer(tmp_path / "b", seed=4).epochs())


@pytest.mark.parametrize("stop_after", [1, 2, 3])
def test_a_killed_run_ends_as_an_uninterrupted_one(tmp_path: Path, stop_after: int) -> None:
    whole = trainer(tmp_path / "whole")
    expected = list(whole.epochs())
    killed = trainer(tmp_path / "killed").epochs()
    for _ in range(stop_after):
        next(killed)
    killed.close()  # type: ignore[attr-defined]
    torch.manual_seed(99)  # another process would have other random numbers
    resumed = trainer(tmp_path / "killed")
    assert list(resumed.epochs()) == expected
    assert weights(resumed) == weights(whole)
    assert all(torch.equal(resumed.state.best[name], value) for name, value in whole.state.best.items())


class KilledError(Exception):
    """Stands for SIGKILL."""


@pytest.mark.parametrize("kill_at", [1, 2, 4, 7, 11])
def test_a_run_killed_within_an_epoch_goes_on_after_its_last_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kill_at: int
) -> None:
    monkeypatch.setattr(loop, "CHECKPOINT_EVERY_S", 0.0)
    whole = trainer(tmp_path / "whole")
    expected = list(whole.epochs())
    killed = trainer(tmp_path / "killed")
    steps = iter(range(100))
    step = killed._step

    def dying(*arguments: Any, **words: Any) -> Any:
        if next(steps) == kill_at:
            raise KilledError
        return step(*arguments, **words)

    monkeypatch.setattr(killed, "_step", dying)
    with pytest.raises(KilledError):
        list(killed.epochs())
    torch.manual_seed(99)  # another process would have other random numbers
    resumed = trainer(tmp_path / "killed")
    done = iter(range(100))
    step_again = resumed._step

    def counting(*arguments: Any, **words: Any) -> Any:
        next(done)
        return step_again(*arguments, **words)

    monkeypatch.setattr(resumed, "_step", counting)
    assert list(resumed.epochs()) == expected
    assert weights(resumed) == weights(whole)
    assert next(done) == 12 - kill_at  # 4 epochs of 3 steps, none done twice


def test_a_checkpoint_within_an_epoch_of_another_order_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "CHECKPOINT_EVERY_S", 0.0)
    run = trainer(tmp_path)
    step = run._step
    steps = iter(range(100))

    def dying(*arguments: Any, **words: Any) -> Any:
        if next(steps) == 2:
            raise KilledError
        return step(*arguments, **words)

    monkeypatch.setattr(run, "_step", dying)
    with pytest.raises(KilledError):
        list(run.epochs())
    with pytest.raises(StageError, match="another seed gives another order"):
        list(trainer(tmp_path, seed=4).epochs())


def test_a_resumed_run_does_not_repeat_finished_epochs(tmp_path: Path) -> None:
    list(trainer(tmp_path, epochs=4).epochs())
    resumed = trainer(tmp_path, epochs=4)
    assert len(list(resumed.epochs())) == 4
    assert resumed._augmenter.epochs == set()  # type: ignore[attr-defined]


def test_the_augmenter_is_told_the_epoch_from_0(tmp_path: Path) -> None:
    run = trainer(tmp_path, epochs=3)
    list(run.epochs())
    assert run._augmenter.epochs == {0, 1, 2}  # type: ignore[attr-defined]


def test_best_weights_are_those_of_the_best_epoch(tmp_path: Path) -> None:
    run = trainer(tmp_path, epochs=8, peak_lr=0.05)
    snapshots = {result.epoch: run.state.network for result in run.epochs()}
    best = max(run.state.history, key=lambda r: (r.validation_accuracy, -r.validation_loss, -r.epoch))  # type: ignore[operator]
    assert all(torch.equal(run.state.best[name], value) for name, value in snapshots[best.epoch].items())


def test_patience_ends_the_run(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).permutation(VALIDATION.label)
    history = list(trainer(tmp_path, validation=replace(VALIDATION, label=noise), epochs=60, patience=3).epochs())
    assert len(history) < 60


def test_an_empty_validation_split_makes_the_last_epoch_best(tmp_path: Path) -> None:
    empty = replace(
        VALIDATION, **{name: getattr(VALIDATION, name)[:0] for name in ("x", "label", "weight", "draw", "sample_id")}
    )
    run = trainer(tmp_path, validation=empty)
    assert [result.validation_loss for result in run.epochs()] == [None] * 4
    assert run.state.best is run.state.network


def test_weights_change_what_is_learnt_but_not_their_scale(tmp_path: Path) -> None:
    plain = list(trainer(tmp_path / "a").epochs())
    doubled = replace(TRAIN, weight=TRAIN.weight * 2)
    assert list(trainer(tmp_path / "b", train=doubled).epochs()) == plain
    uneven = replace(TRAIN, weight=np.where(TRAIN.label == 0, 5, 1).astype(np.float32))
    assert list(trainer(tmp_path / "c", train=uneven).epochs()) != plain


def test_a_loss_that_is_not_finite_stops_and_keeps_the_last_good_checkpoint(tmp_path: Path) -> None:
    run = trainer(tmp_path)
    epochs = run.epochs()
    next(epochs)
    with torch.no_grad():
        next(iter(run._network.parameters())).fill_(float("nan"))
    message = r"the training loss became nan at epoch 2, step 3 with learning rate 0\.00\d+; try a lower train\.peak_lr"
    with pytest.raises(StageError, match=message):
        next(epochs)
    kept = load_checkpoint(tmp_path)
    assert kept is not None
    assert len(kept.history) == 1


def test_an_empty_training_split_is_refused(tmp_path: Path) -> None:
    empty = replace(TRAIN, **{name: getattr(TRAIN, name)[:0] for name in ("x", "label", "weight", "draw", "sample_id")})
    with pytest.raises(StageError, match="the training split is empty"):
        trainer(tmp_path, train=empty)


def test_weights_of_zero_are_refused(tmp_path: Path) -> None:
    with pytest.raises(StageError, match="all 48 training rows have weight 0 or are never drawn"):
        trainer(tmp_path, train=replace(TRAIN, weight=TRAIN.weight * 0))


def test_a_damaged_checkpoint_is_named(tmp_path: Path) -> None:
    (tmp_path / FILE).write_bytes(b"nonsense")
    with pytest.raises(StageError, match=r"checkpoint\.safetensors is damaged \(.*\); delete it"):
        trainer(tmp_path)


def test_biases_and_norms_do_not_decay() -> None:
    decayed, plain = make_optimizer(network(), recipe=RECIPE).param_groups
    assert (decayed["weight_decay"], plain["weight_decay"]) == (0.05, 0.0)
    assert {weight.ndim for weight in decayed["params"]} == {2, 4}
    assert {weight.ndim for weight in plain["params"]} == {1}


def test_repeatable_leaves_torch_as_it_was() -> None:
    torch.manual_seed(1)
    before, threads = torch.get_rng_state(), torch.get_num_threads()
    with repeatable(seed=5, num_threads=threads + 1):
        torch.rand(1)
        assert torch.get_num_threads() == threads + 1
        assert torch.are_deterministic_algorithms_enabled()
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.get_num_threads() == threads
