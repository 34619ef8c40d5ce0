"""The training loop: one class that owns a run's state, a generator over its epochs, and nothing that logs."""

# Shapes: N rows of a shard, B rows of a batch, K classes.

import contextlib
import math
import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from datamill.augmentation.policy import Augmenter, DeviceAugmenter
from datamill.errors import StageError
from datamill.networks import as_input, to_input
from datamill.shards.assembling import Batch
from datamill.shards.loader import ShardLoader
from datamill.shards.native import Shard
from datamill.training import checkpoint as checkpoints
from datamill.training.checkpoint import Checkpoint, Progress
from datamill.training.history import EpochResult, best_epoch, should_stop
from datamill.training.recipe import Recipe
from datamill.training.schedule import learning_rate
from datamill.training.times import Times

DROPOUT_STREAM = 0xD20  # keeps an epoch's dropout apart from its order, which comes from the same seed
CHECKPOINT_EVERY_S = 60.0  # of work that a kill may cost; changes no result
FIELDS = ("x", "label", "weight", "sample_id")


class Trainer:
    """A network on its way through the epochs; goes on where a killed run with the same scratch folder stopped."""

    def __init__(
        self,
        network: nn.Module,
        *,
        train: Shard,
        validation: Shard,
        augmenter: Augmenter,
        recipe: Recipe,
        device: str,
        scratch: Path,
    ) -> None:
        """Take over a fresh network.

        Args:
            network: Maps ``networks.to_input`` to logits (B, K); trained in place.
            train: Rows to learn from.
            validation: Rows to judge epochs by; may be empty.
            augmenter: Applied to every training batch.
            recipe: How to fit.
            device: ``cpu``, ``cuda`` or ``cuda:N``.
            scratch: Folder of the checkpoint; one that is found there is continued.

        Raises:
            StageError: There is no row to learn from, or every row has weight 0 or is never drawn; the checkpoint is
                damaged or belongs to another network.
        """
        _require_rows(train)
        self._train = train
        self._validation = validation
        self._augmenter = augmenter
        self._recipe = recipe
        self._device = torch.device(device)
        self._scratch = scratch
        self._weight_scale = 1 / float(train.weight.mean(dtype=np.float64))
        self._network = network.to(self._device)
        if len(train.shape) == 3:  # convolutions are faster in this layout
            self._network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._optimizer = make_optimizer(network, recipe=recipe)
        self._state = self._resume()
        self._loader = ShardLoader(
            train,
            fields=FIELDS,
            batch_size=min(recipe.batch_size, train.num_rows),
            seed=recipe.seed,
            epoch=len(self._state.history),
            draw=train.draw[:],
            even=True,
            transform=None if augmenter.is_identity or isinstance(augmenter, DeviceAugmenter) else self._augmented,
            device=device,
        )

    @property
    def state(self) -> Checkpoint:
        """The run after its latest epoch: weights, best weights, history, durations."""
        return self._state

    def epochs(self) -> Iterator[EpochResult]:
        """The numbers of every epoch, first of those a killed run had finished, then of each one trained now.

        The checkpoint is on disk before an epoch is yielded.

        Raises:
            StageError: The loss or the gradient is no longer finite.
        """
        yield from tuple(self._state.history)
        while len(self._state.history) < self._recipe.epochs and not self._is_over():
            self._state = self._advance(epoch=len(self._state.history) + 1)
            checkpoints.save_checkpoint(self._scratch, self._state)
            yield self._state.history[-1]

    def _is_over(self) -> bool:
        return should_stop(self._state.history, patience=self._recipe.patience)

    def _resume(self) -> Checkpoint:
        found = checkpoints.load_checkpoint(self._scratch)
        if found is None:
            return Checkpoint(network={}, best={}, optimizer={}, history=[], times=[])
        try:
            self._network.load_state_dict(found.network)
        except RuntimeError as error:
            raise StageError(
                f"the checkpoint in {self._scratch} belongs to another network; delete the folder"
            ) from error
        checkpoints.restore_optimizer(self._optimizer, found.optimizer)
        return found

    def _advance(self, *, epoch: int) -> Checkpoint:
        start = time.perf_counter()
        result, times = self._fit_epoch(epoch)
        loss, accuracy = self._judge(epoch)
        result = replace(result, validation_loss=loss, validation_accuracy=accuracy)
        history = [*self._state.history, result]
        network = checkpoints.snapshot(self._network)
        seconds = times.seconds + time.perf_counter() - start
        return Checkpoint(
            network=network,
            best=network if best_epoch(history) == epoch else self._state.best,
            optimizer=checkpoints.optimizer_tensors(self._optimizer),
            history=history,
            times=[*self._state.times, replace(times, seconds=seconds)],
        )

    def _fit_epoch(self, epoch: int) -> tuple[EpochResult, Times]:
        recipe, num_rows, num_steps = self._recipe, self._train.num_rows, len(self._loader)
        progress = self._begin(epoch)
        totals = torch.tensor(progress.totals, dtype=torch.float64)  # loss and hits over rows, gradient norm over steps
        loading_s, step_s, earlier = 0.0, [], progress.times
        rate = 0.0
        self._network.train()
        saved = began = time.perf_counter()
        batches = iter(self._loader)
        for number in range(progress.num_steps, num_steps):
            start = time.perf_counter()
            step = (epoch - 1) * num_steps + number
            rate = learning_rate(
                step, num_steps=recipe.epochs * num_steps, peak=recipe.peak_lr, warmup_share=recipe.warmup_share
            )
            x, label, weight = self._load(next(batches), epoch=epoch)
            loading_s += time.perf_counter() - start
            totals += self._step(x, label=label, weight=weight, rate=rate, where=f"epoch {epoch}, step {step}")
            now = time.perf_counter()
            step_s.append(now - start)
            if now - saved >= CHECKPOINT_EVERY_S and number + 1 < num_steps:
                times = _times(earlier, seconds=now - began, steps=step_s, loading_s=loading_s, num_rows=num_rows)
                self._save_progress(number + 1, totals=totals, times=times)
                saved = time.perf_counter()
        loss, hits, norm = totals.tolist()
        result = EpochResult(
            epoch=epoch,
            train_loss=loss / num_rows,
            validation_loss=None,
            train_accuracy=hits / num_rows,
            validation_accuracy=None,
            learning_rate=rate,
            gradient_norm=norm / num_steps,
        )
        return result, _times(earlier, seconds=0.0, steps=step_s, loading_s=loading_s, num_rows=num_rows)

    def _begin(self, epoch: int) -> Progress:
        """Where the epoch goes on: at its first step, or after the last one that a killed run saved."""
        progress, self._state = self._state.progress, replace(self._state, progress=None)
        if progress is None:
            torch.manual_seed(
                int(np.random.SeedSequence([self._recipe.seed, epoch, DROPOUT_STREAM]).generate_state(1)[0])
            )
            return Progress()
        checkpoints.restore_random(progress.random)
        self._loader.load_state_dict(progress.loader)
        return progress

    def _save_progress(self, num_steps: int, *, totals: Tensor, times: Times) -> None:
        progress = Progress(
            loader=self._loader.state_dict(),
            num_steps=num_steps,
            totals=tuple(totals.tolist()),
            times=times,
            random=checkpoints.random_tensors(),
        )
        state = replace(
            self._state,
            network=checkpoints.snapshot(self._network),
            optimizer=checkpoints.optimizer_tensors(self._optimizer),
            progress=progress,
        )
        checkpoints.save_checkpoint(self._scratch, state)

    def _load(self, batch: Batch, *, epoch: int) -> tuple[Tensor, Tensor, Tensor]:
        x = batch["x"]
        if isinstance(self._augmenter, DeviceAugmenter) and not self._augmenter.is_identity:
            x = self._augmenter.augment(x, sample_ids=batch["sample_id"].cpu().numpy(), epoch=epoch - 1)
        return as_input(x), batch["label"].to(torch.int64), batch["weight"] * self._weight_scale

    def _augmented(
        self, arrays: dict[str, NDArray[Any]], *, sample_ids: NDArray[np.uint8], epoch: int
    ) -> dict[str, NDArray[Any]]:
        return arrays | {"x": self._augmenter.apply(arrays["x"], sample_ids=sample_ids, epoch=epoch)}

    def _step(self, x: Tensor, *, label: Tensor, weight: Tensor, rate: float, where: str) -> Tensor:
        """One optimizer step; the batch's summed loss and hits, and the gradient's norm."""
        for group in self._optimizer.param_groups:
            group["lr"] = rate
        with _mixed_precision(self._device):
            logits_BK = self._network(x)
        logits_BK = logits_BK.float()
        smoothing = self._recipe.label_smoothing
        objective_B = functional.cross_entropy(logits_BK, label, reduction="none", label_smoothing=smoothing)
        self._optimizer.zero_grad()
        (objective_B * weight).mean().backward()
        limit = self._recipe.max_gradient_norm or math.inf
        norm = nn.utils.clip_grad_norm_(self._network.parameters(), limit)
        with torch.no_grad():
            loss = functional.cross_entropy(logits_BK, label, reduction="sum")
            hits = (logits_BK.argmax(dim=1) == label).sum()
            numbers = torch.stack([loss.double(), hits.double(), norm.double()]).cpu()
        _require_finite(float(numbers[0]), name="the training loss", where=where, rate=rate)
        _require_finite(float(numbers[2]), name="the gradient's norm", where=where, rate=rate)
        self._optimizer.step()
        return numbers

    def _judge(self, epoch: int) -> tuple[float | None, float | None]:
        """Mean cross-entropy and accuracy on the validation split; ``None`` when it is empty."""
        shard = self._validation
        if shard.num_rows == 0:
            return None, None
        totals = torch.zeros(2, dtype=torch.float64)
        self._network.eval()
        with torch.inference_mode(), _mixed_precision(self._device):
            for start in range(0, shard.num_rows, self._recipe.batch_size):
                rows = slice(start, start + self._recipe.batch_size)
                label = torch.from_numpy(shard.label[rows].astype(np.int64)).to(self._device)
                logits_BK = self._network(to_input(shard.x[rows], device=self._device)).float()
                loss = functional.cross_entropy(logits_BK, label, reduction="sum")
                totals += torch.stack([loss.double(), (logits_BK.argmax(dim=1) == label).sum().double()]).cpu()
        loss, accuracy = (totals / shard.num_rows).tolist()
        _require_finite(loss, name="the validation loss", where=f"epoch {epoch}", rate=self._recipe.peak_lr)
        return loss, accuracy


@contextlib.contextmanager
def repeatable(*, seed: int, num_threads: int) -> Iterator[None]:
    """Torch seeded, on deterministic algorithms and a fixed number of threads; as it was before when the block ends."""
    threads, was_deterministic = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # CUDA's matrix products refuse determinism without it
    torch.set_num_threads(num_threads)
    torch.use_deterministic_algorithms(True)
    try:
        with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
            torch.manual_seed(seed)
            yield
    finally:
        torch.set_num_threads(threads)
        torch.use_deterministic_algorithms(was_deterministic)


def make_optimizer(network: nn.Module, *, recipe: Recipe) -> torch.optim.Optimizer:
    """AdamW that decays matrices and kernels; biases and normalisation layers, which are vectors, it does not."""
    parameters = list(network.parameters())
    groups = [
        {"params": [one for one in parameters if one.ndim > 1], "weight_decay": recipe.weight_decay},
        {"params": [one for one in parameters if one.ndim <= 1], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=recipe.peak_lr)


def _times(earlier: Times, *, seconds: float, steps: Sequence[float], loading_s: float, num_rows: int) -> Times:
    """Durations of an epoch so far, those before a kill included."""
    return Times(
        seconds=earlier.seconds + seconds,
        training_s=earlier.training_s + sum(steps),
        loading_s=earlier.loading_s + loading_s,
        num_rows=num_rows,
        step_ms=1000 * float(np.median(steps)) if steps else earlier.step_ms,
    )


def _mixed_precision(device: torch.device) -> torch.autocast:
    """bfloat16 on a GPU that has it, else full precision; bfloat16 has float32's range and needs no loss scaling."""
    is_on = device.type == "cuda" and torch.cuda.is_bf16_supported()
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=is_on)


def _require_rows(train: Shard) -> None:
    if train.num_rows == 0:
        raise StageError("train: the training split is empty; check what clean and audit dropped, and split.fractions")
    if not train.weight.any() or not train.draw.any():
        raise StageError(
            f"train: all {train.num_rows} training rows have weight 0 or are never drawn; check audit and balance"
        )


def _require_finite(value: float, *, name: str, where: str, rate: float) -> None:
    if not math.isfinite(value):
        raise StageError(
            f"train: {name} became {value} at {where} with learning rate {rate:.3g}; try a lower train.peak_lr, a "
            f"longer train.warmup_share or a smaller train.max_gradient_norm, and check the features for extreme values"
        )
