"""The stage that fits a network."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field, NonNegativeInt, PositiveInt

from datamill import catalog
from datamill.stage import Context, Metrics, Params, Stage
from datamill.training.recipe import Recipe

if TYPE_CHECKING:
    from datamill.training.history import EpochResult


class NetworkParams(Params):
    """The network's architecture."""

    kind: Literal["auto", "cnn", "mlp"]
    """auto takes a residual CNN for images and an MLP for tables."""
    width: PositiveInt
    """Channels of the CNN's stem, doubled at each halving of the image up to eightfold; units of an MLP's layer."""
    depth: NonNegativeInt
    """Residual convolutions per stage of a CNN; hidden layers of an MLP (count)."""
    dropout: Annotated[float, Field(ge=0, lt=1)]
    """Share of features zeroed while training."""


class TrainParams(Recipe):
    """How the network is fitted, and which one."""

    network: NetworkParams
    """The network's architecture."""


def train(
    *,
    shards: Path,
    policy: Path,
    preprocessor: Path,
    network: Path,
    best: Path,
    last: Path,
    history: Path,
    times: Path,
    params: TrainParams,
    context: Context,
) -> Metrics:
    """Fit a network to the training shard and keep its best and its last weights.

    A killed run goes on after its last finished epoch and ends with the same bytes.
    """
    from datamill import files
    from datamill.augmentation import load_policy
    from datamill.networks import build, count_parameters, design
    from datamill.preprocessing import load_preprocessor
    from datamill.shards.native import open_shard
    from datamill.training.checkpoint import save_tensors
    from datamill.training.history import best_epoch, write_history
    from datamill.training.loop import Trainer, repeatable
    from datamill.training.times import summarise

    learned, judged = open_shard(shards / "train"), open_shard(shards / "validation")
    fitted = load_preprocessor(preprocessor)
    spec = design(
        shape=learned.shape,
        classes=learned.classes,
        mean=fitted.mean,
        std=fitted.std,
        **params.network.model_dump(),
    )

    with repeatable(seed=params.seed, num_threads=context.num_threads):
        fresh = build(spec)
        trainer = Trainer(
            fresh,
            train=learned,
            validation=judged,
            augmenter=load_policy(policy, rows=learned.x),
            recipe=params,
            device=context.device,
            scratch=context.scratch,
        )
        for result in trainer.epochs():
            context.tracker.log_metrics(result.numbers(), step=result.epoch)
            print(result.line(num_epochs=params.epochs), flush=True)

    files.write_json(network, spec.model_dump(mode="json"))
    save_tensors(best, trainer.state.best)
    save_tensors(last, trainer.state.network)
    write_history(history, trainer.state.history)
    files.write_json(times, summarise(trainer.state.times))
    epochs = trainer.state.history
    return {
        "epochs": len(epochs),
        "stopped_early": int(len(epochs) < params.epochs),
        "num_parameters": count_parameters(fresh),
        "rows": {"train": learned.num_rows, "validation": judged.num_rows},
        "best": _numbers(epochs[best_epoch(epochs) - 1]),
    }


def _numbers(result: "EpochResult") -> Metrics:
    """The best epoch; without a validation split it is the last one, and ``is_validated`` is 0."""
    return {"epoch": result.epoch, "is_validated": int(result.validation_loss is not None), **result.numbers()}


STAGE = Stage(
    run=train,
    params=TrainParams,
    inputs={
        "shards": catalog.SHARD_SHARDS,
        "policy": catalog.AUGMENT_POLICY,
        "preprocessor": catalog.PREPROCESS_STATE,
    },
    outputs={
        "network": catalog.TRAIN_NETWORK,
        "best": catalog.TRAIN_BEST,
        "last": catalog.TRAIN_LAST,
        "history": catalog.TRAIN_HISTORY,
        "times": catalog.TRAIN_TIMES,
    },
)
