"""What a user says of new data in ``watch.yaml``: where it comes from and what makes a window."""

from typing import Annotated, Literal, Self

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveInt, field_validator, model_validator

from datamill.sources.params import PackedFiles, TableFiles
from datamill.stage import Params


class WatchedImages(Params):
    """A folder that images are dropped into."""

    kind: Literal["image_folder"]
    """Images as files, one each; told apart by content and never by name."""
    path: str = Field(min_length=1)
    """Folder (absolute, or relative to the workspace) or any fsspec URL, such as s3://bucket/incoming."""
    labels: Literal["folder", "none"]
    """Whether the sub-folder that a file lies in names its class, or nothing does."""


class RowColumns(Params):
    """What the columns of new rows are for."""

    target: str | None
    """Column of the class, where it is known already (cells may be empty); null where it never is."""
    target_kind: Literal["category", "number"]
    """Whether classes are any text, or numbers (1.0 and 1 are then one class)."""
    time: str | None
    """Column with the time of a row, ISO 8601 or seconds since 1970, UTC if it names no zone; null for none."""
    id: str | None
    """Column that names a row for good; null lets a row's content name it, and in a query its cursor and time."""
    exclude: tuple[str, ...]
    """Columns that are known to be there and are no features."""


class LabelColumns(Params):
    """What the columns of labels are for."""

    id: str
    """Column that says which item: its source or its sample_id, as observations.parquet of a window has them."""
    target: str
    """Column of the class; an empty cell is a label that is not known yet."""
    target_kind: Literal["category", "number"]
    """Whether classes are any text, or numbers (1.0 and 1 are then one class)."""


class NewRows(Params):
    """Rows of a database, read on from where the last pass ended."""

    kind: Literal["query"]
    """A table or a query of any database that SQLAlchemy reaches."""
    url: str = Field(min_length=1)
    """SQLAlchemy's address without a password, or the name of the environment variable that holds it, in capitals."""
    query: str = Field(min_length=1)
    """A table's name, or a SELECT; it is only read."""
    cursor: str = Field(min_length=1)
    """Column that grows with every row (a number or a time); reading goes on from its largest value so far."""
    overlap: NonNegativeFloat
    """How far behind that value to look again for rows that came late (unit of the column; seconds for a time)."""

    @field_validator("url")
    @classmethod
    def _holds_no_password(cls, url: str) -> str:
        if "@" in url and ":" in url.partition("://")[2].rpartition("@")[0]:
            raise ValueError("it holds a password; put the address into an environment variable and name that here")
        return url


class WatchedTable(RowColumns, TableFiles):
    """Files of rows, which may be added or grow."""

    kind: Literal["table"]
    """CSV or Parquet files with the columns the model was trained on."""


class WatchedIdx(Params):
    """Images in the IDX format of MNIST, a file per delivery."""

    kind: Literal["idx"]
    """IDX files of images, gzipped or not."""
    path: str = Field(min_length=1)
    """A file, a folder or a glob, or any fsspec URL of these; labels lie beside, with labels for images in the name."""
    class_names: tuple[str, ...] | None
    """Names of classes 0, 1, ... in this order; null names them by their numbers."""


class WatchedPacked(PackedFiles):
    """Images that another tool packed, with their classes."""

    kind: Literal["exchanged"]
    """Files in which many images and their classes lie one after the other."""


class WatchedQuery(RowColumns, NewRows):
    """New rows of a database."""


Watched = Annotated[
    WatchedImages | WatchedTable | WatchedIdx | WatchedPacked | WatchedQuery, Field(discriminator="kind")
]


class LabelTable(LabelColumns, TableFiles):
    """Files of labels, which may be added or grow."""

    kind: Literal["table"]
    """CSV or Parquet files with a row per label."""


class LabelQuery(LabelColumns, NewRows):
    """Labels in a database; the cursor grows with every label, as the time when it was given."""


LabelSource = Annotated[
    WatchedImages | WatchedIdx | WatchedPacked | LabelTable | LabelQuery, Field(discriminator="kind")
]


class LabelParams(Params):
    """Labels that come after their items were judged."""

    wait_days: NonNegativeFloat
    """Days after an item was judged in which its label may come, and the model's answer is kept; 0 waits for none."""
    data: LabelSource | None
    """Where labels come from by themselves; null where only an item that comes again brings its label."""

    @model_validator(mode="after")
    def _folders_name_classes(self) -> Self:
        if isinstance(self.data, WatchedImages) and self.data.labels != "folder":
            raise ValueError("data.labels is none, and a source of labels needs folder: sub-folders that name classes")
        return self


class SourceParams(Params):
    """Section ``source`` of ``watch.yaml``."""

    data: Watched
    """Where new data comes from; its kind decides which fields it has."""
    settle_s: NonNegativeFloat
    """Age (seconds) below which a file may still be being written, so that it waits for the next window."""
    max_items: PositiveInt
    """Items of a window at most (count); the others come with the next."""
    max_reject_share: float = Field(ge=0, le=1)
    """Share of unreadable items that is to be expected; more, if it is no accident, is drift of the data's quality."""
    keep_samples: NonNegativeInt
    """Samples of a window kept with inputs and answers, to show and to compare models on (count)."""
    keep_windows: PositiveInt
    """Newest windows whose inputs are kept (count)."""
    keep_reports: PositiveInt
    """Newest windows whose folders are kept (count); those not told yet or waiting for labels stay as well."""
    remember_days: float | None = Field(ge=30)
    """Days after an item was seen last in which it is known, and not new if it comes again; null: for good."""
    labels: LabelParams
    """Labels that come after their items were judged."""
    max_pixels: int = Field(gt=0, le=64_000_000)
    """Largest image (pixels); a larger one becomes a reject before it is decoded."""
    max_file_bytes: int = Field(gt=0, le=2**30)
    """Largest file of one image (bytes); a larger one becomes a reject before it is read."""
    batch_size: PositiveInt
    """Samples predicted at a time (count); bounds memory, not results."""
