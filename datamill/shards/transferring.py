"""Batches on their way to a GPU: copied and normalised on a stream of their own, while the network works on another."""

from collections import deque
from collections.abc import Iterable, Iterator, Mapping

import torch
from torch import Tensor

from datamill.shards.assembling import Batch, Layout, finished
from datamill.shards.batching import Place
from datamill.shards.gathering import Normaliser

AHEAD = 2  # batches on the device: one that is used, one that is being copied


def transferred(
    batches: Iterable[tuple[Batch, Place]],
    *,
    device: torch.device,
    normalisers: Mapping[str, Normaliser],
    layout: Layout,
) -> Iterator[tuple[Batch, Place]]:
    """The same batches on ``device``; their memory is theirs as long as anybody holds them.

    The next batch is copied while this one is used. The host's memory of a batch is free for reuse when ``AHEAD``
    further ones were taken.

    Args:
        batches: On the host; a copy overlaps with work when they lie in pinned memory.
        device: A GPU.
        normalisers: Applied on the device, where it costs less, by field: a fourth of the bytes travels.
        layout: Of images.
    """
    stream = torch.cuda.Stream(device)
    moved_normalisers = {name: one.to(device) for name, one in normalisers.items()}
    under_way: deque[tuple[Batch, Place, torch.cuda.Event]] = deque()
    for batch, place in batches:
        with torch.cuda.stream(stream), torch.inference_mode(False), torch.no_grad():
            moved = {name: _moved(value, device=device) for name, value in batch.items()}
            ready = {
                name: finished(value, normaliser=moved_normalisers.get(name), layout=layout)
                if isinstance(value, Tensor)
                else value
                for name, value in moved.items()
            }
            under_way.append((ready, place, stream.record_event()))
        if len(under_way) == AHEAD:
            yield _received(*under_way.popleft(), device=device)
    while under_way:
        yield _received(*under_way.popleft(), device=device)


def _moved(value: object, *, device: torch.device) -> object:
    return value.to(device, non_blocking=True) if isinstance(value, Tensor) else value


def _received(batch: Batch, place: Place, done: torch.cuda.Event, *, device: torch.device) -> tuple[Batch, Place]:
    """Hand over a batch: whatever the network does with it waits for the copy, and its memory for the network."""
    current = torch.cuda.current_stream(device)
    current.wait_event(done)
    for value in batch.values():
        if isinstance(value, Tensor):
            value.record_stream(current)
    done.synchronize()
    return batch, place
