"""Peers with operations of their own: tf.data, FFCV, and torch by hand."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from benchmarks.loading.batches import BucketOrder, Order
from benchmarks.loading.checks import AUDIO_SCALE
from benchmarks.loading.contender import Batch, Data, Epochs
from benchmarks.loading.peers import NUM_WORKERS
from benchmarks.loading.stored import Ragged
from benchmarks.loading.tasks import CROP, OFFSET, SCALE, TASKS, WINDOW


def torch_images(data: Data, *, keeps_floats: bool = False) -> Epochs:
    """All images in one tensor, gathered and normalised in place in buffers that are reused: no loader at all."""
    import torch

    images = torch.from_numpy(np.load(data.source / "x.npy")).flatten(1)
    gathered = torch.empty(data.batch_size, images.shape[1], dtype=torch.uint8)
    normalised = torch.empty(data.batch_size, images.shape[1])
    floats = images.float().mul_(SCALE).add_(OFFSET) if keeps_floats else None

    def epochs(epoch: int) -> Iterator[Batch]:
        for rows in torch.randperm(data.num_rows).split(data.batch_size):
            x = normalised[: len(rows)]
            if floats is not None:
                torch.index_select(floats, 0, rows, out=x)
            else:
                raw = torch.index_select(images, 0, rows, out=gathered[: len(rows)])
                x.copy_(raw).mul_(SCALE).add_(OFFSET)
            yield Batch(x.view(-1, 1, 28, 28), rows)

    return epochs


def torch_audio(data: Data) -> Epochs:
    """All clips in memory; a batch is one gather over a view of every window."""
    import torch

    clips = torch.from_numpy(np.load(data.source / "x.npy"))
    windows = clips.unfold(1, WINDOW, 1)

    def epochs(epoch: int) -> Iterator[Batch]:
        for rows in torch.randperm(data.num_rows).split(data.batch_size):
            starts = torch.randint(windows.shape[1], (len(rows),))
            yield Batch(windows[rows, starts].float().mul_(AUDIO_SCALE), rows)

    return epochs


def ffcv(data: Data, *, threads: int) -> Epochs:
    from ffcv.fields.basics import IntDecoder
    from ffcv.fields.ndarray import NDArrayDecoder
    from ffcv.loader import Loader, OrderOption
    from ffcv.transforms import ToTensor

    task = TASKS["images"]
    loader = Loader(
        str(data.built("ffcv") / "x.beton"),
        batch_size=data.batch_size,
        num_workers=threads,
        order=OrderOption.RANDOM,
        drop_last=False,
        os_cache=True,
        pipelines={"x": [NDArrayDecoder(), ToTensor()], "id": [IntDecoder(), ToTensor()]},
    )
    return lambda epoch: (task.many(x, ids.flatten().clone()) for x, ids in loader)  # its buffers are used again


def tf_images(data: Data) -> Epochs:
    import tensorflow as tf

    images = tf.constant(np.load(data.source / "x.npy"))

    def read(rows: Any) -> tuple[Any, Any]:
        return tf.cast(tf.gather(images, rows), tf.float32) * SCALE + OFFSET, rows

    return _tf_epochs(
        _tf_batches(Order(data.num_rows, batch_size=data.batch_size)).map(read, num_parallel_calls=NUM_WORKERS)
    )


def tf_jpegs(data: Data) -> Epochs:
    import tensorflow as tf

    source = Ragged(data.source)
    files = tf.constant([source[row].tobytes() for row in range(len(source))])

    def read(row: Any) -> tuple[Any, Any]:
        file = files[row]
        size = tf.io.extract_jpeg_shape(file)
        top = tf.random.uniform((), 0, size[0] - CROP + 1, tf.int32)
        left = tf.random.uniform((), 0, size[1] - CROP + 1, tf.int32)
        window = tf.stack([top, left, CROP, CROP])
        image = tf.image.decode_and_crop_jpeg(file, window, channels=3, dct_method="INTEGER_ACCURATE")
        return tf.image.random_flip_left_right(image), row

    rows = tf.data.Dataset.range(data.num_rows).shuffle(data.num_rows, reshuffle_each_iteration=True)
    rows = rows.map(read, num_parallel_calls=NUM_WORKERS, deterministic=False)
    return _tf_epochs(rows.batch(data.batch_size))


def tf_sequences(data: Data, *, buckets: bool) -> Epochs:
    import tensorflow as tf

    source = Ragged(data.source)
    tokens = tf.RaggedTensor.from_row_lengths(tf.constant(source.values), tf.constant(source.lengths))

    def read(rows: Any) -> tuple[Any, Any]:
        return tf.gather(tokens, rows).to_tensor(), rows

    size = data.batch_size
    order = BucketOrder(source.lengths, batch_size=size) if buckets else Order(data.num_rows, batch_size=size)
    return _tf_epochs(_tf_batches(order).map(read, num_parallel_calls=NUM_WORKERS))


def tf_audio(data: Data) -> Epochs:
    import tensorflow as tf

    clips = tf.constant(np.load(data.source / "x.npy"))

    def read(rows: Any) -> tuple[Any, Any]:
        starts = tf.random.uniform(tf.shape(rows), 0, clips.shape[1] - WINDOW + 1, tf.int64)
        windows = tf.gather(clips, rows[:, None], axis=0)[:, 0]
        at = starts[:, None] + tf.range(WINDOW, dtype=tf.int64)
        return tf.cast(tf.gather(windows, at, batch_dims=1), tf.float32) * AUDIO_SCALE, rows

    order = Order(data.num_rows, batch_size=data.batch_size)
    return _tf_epochs(_tf_batches(order).map(read, num_parallel_calls=NUM_WORKERS))


def _tf_batches(order: Order) -> Any:
    """Row numbers by the batch: a shuffle buffer of single rows costs more than gathering them."""
    import tensorflow as tf

    kind = tf.TensorSpec((None,), tf.int64)
    return tf.data.Dataset.from_generator(lambda: iter(order), output_signature=kind)


def _tf_epochs(dataset: Any) -> Epochs:
    import tensorflow as tf
    import torch

    dataset = dataset.prefetch(tf.data.AUTOTUNE)

    def epochs(epoch: int) -> Iterator[Batch]:
        for x, ids in dataset.as_numpy_iterator():
            yield Batch(torch.from_numpy(x), ids)

    return epochs
