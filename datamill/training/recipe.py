"""How a network is fitted, as a section of ``params.yaml`` states it; light enough for the command line to import."""

from typing import Annotated

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt

from datamill.stage import Params

Share = Annotated[float, Field(ge=0, lt=1)]


class Recipe(Params):
    """Everything about fitting that changes the result, except the network and the data."""

    seed: NonNegativeInt
    """Seeds the weights, the order of batches and dropout."""
    epochs: PositiveInt
    """Passes over the training shard at most (count); the learning rate's course spans them."""
    batch_size: PositiveInt
    """Rows per optimizer step at most."""
    peak_lr: PositiveFloat
    """Learning rate after the warm-up (AdamW, per step)."""
    warmup_share: Share
    """Share of all steps over which the learning rate rises to its peak, before it falls along a cosine to zero."""
    weight_decay: NonNegativeFloat
    """AdamW's decoupled weight decay; biases and normalisation layers have none."""
    label_smoothing: Share
    """Share of the target spread evenly over all classes."""
    max_gradient_norm: PositiveFloat | None
    """Gradients with a larger Euclidean norm are scaled down to it; null leaves them."""
    patience: PositiveInt | None
    """Stops after this many epochs without a new lowest validation loss; null never stops early."""
