"""Where new items come from: a module per kind of source, each with a ``Feed``."""

from datetime import datetime

from datamill.errors import ParamsError
from datamill.monitoring.cursor import Cursor
from datamill.monitoring.feeds.images import ImageFeed
from datamill.monitoring.feeds.packed import IdxFeed, PackedFeed
from datamill.monitoring.feeds.settling import WatchedPlace
from datamill.monitoring.feeds.tables import TableFeed
from datamill.monitoring.feeds.units import Feed, Portion, Schema, Unit
from datamill.monitoring.params import (
    LabelQuery,
    LabelSource,
    LabelTable,
    SourceParams,
    Watched,
    WatchedIdx,
    WatchedImages,
    WatchedPacked,
    WatchedQuery,
    WatchedTable,
)
from datamill.preprocessing import Preprocessor
from datamill.samples import Dataset

__all__ = ["Feed", "Portion", "Schema", "Unit", "open_feed", "open_labels"]


def open_feed(
    params: SourceParams, *, cursor: Cursor, dataset: Dataset, preprocessor: Preprocessor, now: datetime
) -> Feed:
    """The feed of a source, which reads what the cursor does not know.

    Args:
        params: The source. Relative paths start at the working directory.
        cursor: Knows what was judged.
        dataset: What the model was trained on.
        preprocessor: How the model was fed.
        now: The present, which the age of files is counted from.

    Raises:
        ParamsError: The source holds another kind of data than the model was trained on.
    """
    data: Watched = params.data
    modality = "tabular" if isinstance(data, WatchedTable | WatchedQuery) else "image"
    if modality != dataset.modality:
        raise ParamsError(
            f"source.data.kind is {data.kind!r}, which holds {modality} data, and the model was trained on "
            f"{dataset.modality} data; correct watch.yaml"
        )
    if isinstance(data, WatchedQuery):
        from datamill.monitoring.feeds.queries import QueryFeed  # SQLAlchemy is for those who use it

        return QueryFeed(data, cursor=cursor, dataset=dataset, preprocessor=preprocessor)
    place = WatchedPlace(data.path, kind=data.kind, cursor=cursor, now=now, settle_s=params.settle_s)
    if isinstance(data, WatchedTable):
        return TableFeed(data, place=place, dataset=dataset, preprocessor=preprocessor)
    return _images(data, place=place, dataset=dataset, params=params)


def open_labels(data: LabelSource, *, params: SourceParams, cursor: Cursor, dataset: Dataset, now: datetime) -> Feed:
    """The feed of labels that come by themselves; its portions hold ``key`` and ``label`` instead of samples.

    Args:
        data: Where labels come from.
        params: The source they belong to.
        cursor: Knows which were taken.
        dataset: What the model was trained on.
        now: The present.
    """
    from datamill.monitoring.feeds import labels

    if isinstance(data, LabelQuery):
        return labels.QueryLabels(data, cursor=cursor)
    place = WatchedPlace(data.path, kind=f"labels {data.kind}", cursor=cursor, now=now, settle_s=params.settle_s)
    if isinstance(data, LabelTable):
        return labels.TableLabels(data, place=place)
    return labels.ImageLabels(_images(data, place=place, dataset=dataset, params=params))


def _images(
    data: WatchedImages | WatchedIdx | WatchedPacked, *, place: WatchedPlace, dataset: Dataset, params: SourceParams
) -> Feed:
    if isinstance(data, WatchedImages):
        return ImageFeed(data, place=place, params=params)
    if isinstance(data, WatchedIdx):
        return IdxFeed(data, place=place, params=params)
    return PackedFeed(data, place=place, dataset=dataset, params=params)
