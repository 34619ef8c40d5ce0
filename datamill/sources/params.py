"""What a user says of a source in ``params.yaml``."""

import io
from typing import Annotated, Literal, Self

from pydantic import Field, field_validator, model_validator

from datamill.stage import Params


class BundledSource(Params):
    """A small real data set that comes with scikit-learn."""

    kind: Literal["bundled"]
    """Data sets bundled with scikit-learn."""
    name: Literal["digits", "breast_cancer", "wine", "iris"]
    """Which one: digits are grey images of 8 x 8 px, the others are tables of numbers."""


class ImageFolderSource(Params):
    """A folder with one sub-folder of images per class."""

    kind: Literal["image_folder"]
    """One sub-folder per class; PNG, JPEG, BMP and WebP, told apart by content and never by name."""
    path: str = Field(min_length=1)
    """Folder (absolute, or relative to the workspace) or any fsspec URL, such as s3://bucket/folder."""
    group_from: Literal["none", "folder"]
    """Samples that must share a split: none, or those of one folder below the class (cat/patient7/1.png)."""


class IdxSource(Params):
    """Images and labels in the IDX format of MNIST."""

    kind: Literal["idx"]
    """IDX files as MNIST and Fashion-MNIST use them, gzipped or not."""
    images: tuple[str, ...] = Field(min_length=1)
    """Image files, read one after the other (train and test, say): paths or fsspec URLs."""
    labels: tuple[str, ...] = Field(min_length=1)
    """Label files, one for each image file, in the same order."""
    class_names: tuple[str, ...] | None
    """Names of classes 0, 1, ... in this order; null names them by their numbers."""

    @model_validator(mode="after")
    def _files_pair_up(self) -> Self:
        if len(self.images) != len(self.labels):
            raise ValueError(f"images names {len(self.images)} files and labels {len(self.labels)}; they go in pairs")
        names = [path.rpartition("/")[2] for path in self.images]
        if len(set(names)) != len(names):
            raise ValueError(f"image files {names} share a name, so their samples would share an identity; rename one")
        if self.class_names is not None and len(set(self.class_names)) != len(self.class_names):
            raise ValueError(f"class_names {list(self.class_names)} holds a name twice")
        return self


class PackedFiles(Params):
    """Images that another tool, or an export of ours, packed for training."""

    kind: str
    """Which kind of source."""
    format: Literal["webdataset", "tfrecord", "parquet", "mds"]
    """WebDataset tar files, TFRecords of Examples, Parquet as the Hugging Face hub has it, or MosaicML's MDS."""
    path: str = Field(min_length=1)
    """A file, a folder or a glob (absolute, or relative to the workspace), or any fsspec URL of these."""
    image: str | None
    """Ending, feature or column of the encoded image (jpg, image/encoded, image); null takes the usual ones."""
    label: str | None
    """The same for the class (cls, image/class/label, label); null takes the usual ones."""
    class_names: tuple[str, ...] | None
    """Names of classes 0, 1, ...; null takes those the files come with, or else the numbers."""

    @field_validator("class_names")
    @classmethod
    def _names_differ(cls, class_names: tuple[str, ...] | None) -> tuple[str, ...] | None:
        if class_names is not None and len(set(class_names)) != len(class_names):
            raise ValueError(f"class_names {list(class_names)} holds a name twice")
        return class_names


class ExchangedSource(PackedFiles):
    """Packed images to learn from."""

    kind: Literal["exchanged"]
    """Files in which many images and their classes lie one after the other."""


class TableFiles(Params):
    """Files of rows."""

    kind: str
    """Which kind of source."""
    path: str = Field(min_length=1)
    """A file, a folder or a glob (absolute, or relative to the workspace), or any fsspec URL of these."""
    format: Literal["csv", "parquet"]
    """How the files are written; CSV may be gzipped and starts with a row of column names."""
    delimiter: str = Field(min_length=1, max_length=1)
    """What separates the cells of a CSV row; Parquet ignores it."""
    encoding: str
    """How a CSV file writes characters: utf-8, latin-1, utf-16, ...; Parquet ignores it."""

    @field_validator("encoding")
    @classmethod
    def _encoding_exists(cls, encoding: str) -> str:
        try:
            io.TextIOWrapper(io.BytesIO(), encoding=encoding)
        except LookupError as error:
            raise ValueError(
                f"encoding {encoding!r} is unknown, or not one of text; common ones are utf-8, latin-1, utf-16"
            ) from error
        return encoding


class RowSource(Params):
    """Rows, one column of which is the class; every column without a role is a feature."""

    target: str
    """Column of the class; a row without a value there becomes a reject."""
    target_kind: Literal["category", "number"]
    """Whether classes are any text, or numbers (1.0 and 1 are then one class, and text becomes a reject)."""
    group: str | None
    """Column whose equal values must share a split (a patient, a session); null for none."""
    time: str | None
    """Column with the time of a row, ISO 8601 or seconds since 1970, UTC if it names no zone; null for none."""
    id: str | None
    """Column that names a row for good; null lets a row's content name it."""
    exclude: tuple[str, ...]
    """Columns to leave out."""
    kinds: dict[str, Literal["number", "category"]]
    """Kind of the features whose values mislead (a post code is a category); the others are inferred."""

    @model_validator(mode="after")
    def _one_role_per_column(self) -> Self:
        roles = [
            column for column in (self.target, self.group, self.time, self.id, *self.exclude) if column is not None
        ]
        twice = sorted({column for column in roles if roles.count(column) > 1} | (set(roles) & set(self.kinds)))
        if twice:
            raise ValueError(f"columns {twice} have two roles among target, group, time, id, exclude and kinds")
        return self


class TableSource(RowSource, TableFiles):
    """Rows of CSV or Parquet files."""

    kind: Literal["table"]
    """CSV or Parquet files; every column without a role below is a feature."""


class Database(Params):
    """Rows that a database answers with."""

    kind: str
    """Which kind of source."""
    url_variable: str = Field(pattern=r"^[A-Z][A-Z0-9_]*$")
    """Environment variable that holds SQLAlchemy's address (postgresql+psycopg2://..., sqlite:///rows.db)."""
    query: str = Field(min_length=1)
    """A table's name, or a SELECT; it is only read."""
    version: str | None
    """SELECT of one value that changes when the rows do, max(updated_at) say; null takes the number of rows."""


class QuerySource(RowSource, Database):
    """Rows of a database."""

    kind: Literal["query"]
    """A table or a query of any database that SQLAlchemy reaches; every column without a role below is a feature."""


Source = Annotated[
    BundledSource | ImageFolderSource | IdxSource | TableSource | ExchangedSource | QuerySource,
    Field(discriminator="kind"),
]


class IngestParams(Params):
    """Section ``ingest`` of ``params.yaml``."""

    source: Source
    """Where samples come from; its kind decides which fields it has."""
    max_pixels: int = Field(gt=0, le=64_000_000)
    """Largest image (pixels); a larger one becomes a reject before it is decoded."""
    max_file_bytes: int = Field(gt=0, le=2**30)
    """Largest file of one image (bytes); a larger one becomes a reject before it is read."""
