"""What a network says of samples, and what its last hidden layer says of them."""

# Shapes: N samples, D features, K classes.

from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from datamill.networks import to_input


class Answers(NamedTuple):
    """Answers about the same samples, row by row.

    Attributes:
        embeddings: Input of the network's head, float32, shape ``(N, D)``.
        probabilities: Probability of every class, float32, shape ``(N, K)``.
    """

    embeddings: NDArray[np.float32]
    probabilities: NDArray[np.float32]


def answer(network: nn.Module, *, rows: NDArray[Any], batch_size: int, device: str) -> Answers:
    """Embeddings and class probabilities of rows as shards store them, in their order.

    Args:
        network: One that ``build`` made: its ``head`` takes what its last hidden layer gives.
        rows: Images uint8 (N, H, W, C) or tables float32 (N, D); at least one.
        batch_size: Rows at a time; bounds memory.
        device: Where to compute.
    """
    network = network.to(device).eval()
    caught: list[Tensor] = []
    head = network.get_submodule("head")
    hook = head.register_forward_pre_hook(lambda _module, inputs: caught.append(inputs[0]))
    embeddings, probabilities = [], []
    try:
        with torch.inference_mode():
            for start in range(0, len(rows), batch_size):
                logits_NK = network(to_input(rows[start : start + batch_size], device=device))
                embeddings.append(caught.pop().cpu().numpy())
                probabilities.append(torch.softmax(logits_NK, dim=1).cpu().numpy())
    finally:
        hook.remove()
    return Answers(np.concatenate(embeddings), np.concatenate(probabilities))
