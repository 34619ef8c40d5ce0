"""The works: their samples, who does them, and the bars."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

from benchmarks.loading import ours, peers, tuned
from benchmarks.loading.contender import SOURCE, Contender, Epochs, Role
from benchmarks.loading.peers import NUM_WORKERS, in_one_thread
from benchmarks.loading.tasks import TASKS


@dataclass(frozen=True)
class Work:
    """Samples and what is done to them."""

    name: str
    title: str
    num_rows: int
    quick_rows: int
    batch_size: int


WORKS = {
    work.name: work
    for work in (
        Work("images", "gather, shuffle, normalise 28 x 28 uint8 to float32", 60_000, 60_000, 256),
        Work("jpegs", "decode JPEG, random 224 x 224 crop, flip", 12_000, 1_500, 64),
        Work("sequences", "pad token sequences", 100_000, 20_000, 64),
        Work("audio", "random half second of 16-bit clips to float32", 20_000, 4_000, 64),
    )
}

QUICK = {
    "images": ("torch in memory one core", "torch batches w0", "grain batches t0", "limit t1"),
    "jpegs": ("torch batches w2", "grain batches t2", "limit t2"),
    "sequences": ("torch buckets w0", "grain batches t0"),
    "audio": (),
}
"""Who takes part in ``--quick``, apart from datamill."""


def contenders_of(name: str) -> list[Contender]:
    """Everyone who does a work."""
    everyone = [*ours.ours_and_limits(name), *peers.peers_of(name), *_tuned(name)]
    return [replace(one, is_quick=one.role == "ours" or one.name in QUICK[name]) for one in everyone]


def _tuned(name: str) -> list[Contender]:
    def add(
        peer: str, start: Callable[..., Epochs], *needs: str, reads: str = SOURCE, role: Role = "peer"
    ) -> Contender:
        return Contender(peer, start, needs=("torch", *needs), reads=reads, role=role)

    if name == "images":
        return [
            add("torch in memory", tuned.torch_images),
            add("torch in memory one core", partial(in_one_thread, start=tuned.torch_images)),
            add("torch floats kept", partial(tuned.torch_images, keeps_floats=True), role="aside"),
            add("tf.data", tuned.tf_images, "tensorflow"),
            *(add(f"ffcv t{n}", partial(tuned.ffcv, threads=n), "ffcv", reads="ffcv") for n in (1, NUM_WORKERS)),
        ]
    if name == "jpegs":
        return [add("tf.data", tuned.tf_jpegs, "tensorflow")]
    if name == "audio":
        return [
            add("torch in memory", tuned.torch_audio),
            add("torch in memory one core", partial(in_one_thread, start=tuned.torch_audio)),
            add("tf.data", tuned.tf_audio, "tensorflow"),
        ]
    buckets = [
        add(f"torch buckets w{n}", partial(peers.torch_batches, task=TASKS[name], workers=n, buckets=True))
        for n in (0, NUM_WORKERS)
    ]
    return [
        *buckets,
        add("tf.data", partial(tuned.tf_sequences, buckets=False), "tensorflow"),
        add("tf.data buckets", partial(tuned.tf_sequences, buckets=True), "tensorflow"),
    ]
