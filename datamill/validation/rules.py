"""What is expected of the data, as plain values: limits from ``params.yaml`` and the rules made from them."""

from dataclasses import asdict, dataclass
from typing import Annotated, Any, Literal

from pydantic import Field, JsonValue, PositiveFloat, PositiveInt

from datamill.stage import Params

Severity = Literal["critical", "warning", "info"]
Policy = Literal["critical", "warning", "info", "off"]
Share = Annotated[float, Field(ge=0, le=1)]

SEVERITIES: tuple[Severity, ...] = ("critical", "warning", "info")  # heaviest first
COLUMN_ARGUMENTS = ("column", "column_A", "column_B")
LABEL = "label"
CLASS_SIZE = "class_size"  # derived column: how many samples share the sample's label


class ClassLimits(Params):
    """Which labels may occur."""

    severity: Policy
    """What a label outside the list, or a single class, means (critical, warning, info, off)."""
    allowed: list[str] | None
    """Class names that may occur; null accepts every name and asks only for two classes or more."""


class ClassSizeLimits(Params):
    """How small a class may be."""

    severity: Policy
    """What a smaller class means for its samples (critical, warning, info, off)."""
    min_samples: PositiveInt
    """Samples that each class should have at least (count)."""


class NullLimits(Params):
    """How much of a column may be missing."""

    severity: Policy
    """What more missing values mean for the rows that miss one (critical, warning, info, off)."""
    max_share: Share
    """Share of a column's values that may be missing (0 to 1)."""


class RangeLimits(Params):
    """How far from the bulk a number may lie."""

    severity: Policy
    """What a number outside the profiled range means (critical, warning, info, off)."""
    max_iqr: PositiveFloat
    """Distance allowed beyond the quartiles (interquartile ranges); 10 catches wrong units and sentinels like -999."""


class IdentifierLimits(Params):
    """When a category column is an identifier rather than a feature."""

    severity: Policy
    """What such a column means (critical, warning, info, off)."""
    max_unique_share: Share
    """Distinct values per value of a category column (0 to 1); names and keys come close to 1."""


class ImageLimits(Params):
    """How images should look; used for images only."""

    severity: Policy
    """What a smaller image means (critical, warning, info, off)."""
    min_height: PositiveInt
    """Smallest height (px)."""
    min_width: PositiveInt
    """Smallest width (px)."""
    odd_severity: Policy
    """What an image of unusual height, width or channels means (critical, warning, info, off)."""
    usual_share: Share
    """Share of images that must agree on a height, width or channel count before others count as unusual (0 to 1)."""


class UserExpectation(Params):
    """One expectation of the user's own, in Great Expectations' words."""

    type: str
    """Its name, such as expect_column_values_to_be_between."""
    kwargs: dict[str, JsonValue]
    """Its arguments; columns are the modality's properties, ``label`` and ``class_size``."""
    severity: Severity
    """What a failure means (critical, warning, info)."""


class Limits(Params):
    """All limits of the profiled rules; see each."""

    classes: ClassLimits
    """Allowed labels."""
    class_size: ClassSizeLimits
    """Smallest class."""
    nulls: NullLimits
    """Missing values of a table's columns."""
    non_finite: Policy
    """What an infinite number in a table means (critical, warning, info, off)."""
    constant: Policy
    """What a table's column with a single value means (critical, warning, info, off)."""
    range: RangeLimits
    """Numbers far from the bulk."""
    identifier: IdentifierLimits
    """Category columns that hardly repeat a value."""
    image: ImageLimits
    """Size of images."""


@dataclass(frozen=True)
class Rule:
    """One expectation and what its failure means.

    Attributes:
        name: Reason code in the ledger, such as ``odd_image``.
        type: Great Expectations' name of the expectation.
        kwargs: Its arguments, JSON values only.
        severity: ``critical`` quarantines the failing samples (or stops the run where the rule is about the data set
            as a whole), ``warning`` keeps them with the reason in the ledger, ``info`` is for the Data Docs only.
        claim: What is expected, for messages, such as ``at least 8``.
    """

    name: str
    type: str
    kwargs: dict[str, Any]
    severity: Severity
    claim: str

    @property
    def columns(self) -> tuple[str, ...]:
        """Columns the rule looks at."""
        listed = self.kwargs.get("column_list") or []
        return (*(str(self.kwargs[key]) for key in COLUMN_ARGUMENTS if key in self.kwargs), *map(str, listed))

    def as_json(self) -> dict[str, Any]:
        """The rule as JSON values."""
        return asdict(self)


def user_rule(expectation: UserExpectation) -> Rule:
    """The rule a user asked for; its name is the type without ``expect_`` and ``column_``."""
    asked = {key: value for key, value in expectation.kwargs.items() if key not in (*COLUMN_ARGUMENTS, "column_list")}
    return Rule(
        name=expectation.type.removeprefix("expect_").removeprefix("column_"),
        type=expectation.type,
        kwargs=dict(expectation.kwargs),
        severity=expectation.severity,
        claim=", ".join(f"{key} {value}" for key, value in asked.items()) or "to hold",
    )
