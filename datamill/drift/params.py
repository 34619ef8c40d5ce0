"""Section ``drift`` of ``watch.yaml``: what is tested, how, and how often a false alarm is allowed."""

from typing import Literal, Self

from pydantic import Field, model_validator

from datamill.stage import Params

BackendWish = Literal["auto", "alibi", "native"]
Correction = Literal["bonferroni", "benjamini_hochberg"]
Seasonality = Literal["none", "hour", "weekday", "hour_and_weekday"]
NumberTest = Literal["ks", "cvm", "psi", "tabular"]
CategoryTest = Literal["chi2", "fet", "psi", "tabular"]
JointTest = Literal["mmd", "novelty", "classifier", "lsdd", "online_mmd"]
PredictionTest = Literal["ks", "cvm", "psi", "fet", "uncertainty", "novelty", "mmd", "classifier", "lsdd"]
LabelTest = Literal["chi2", "fet", "psi"]
ConceptTest = Literal["residual"]
Loss = Literal["mae", "rmse"]

ALIBI_ONLY = ("tabular", "lsdd", "online_mmd")


class DetectorParams(Params):
    """Which detectors look at what; an empty list leaves a kind out."""

    numbers: tuple[NumberTest, ...]
    """Each number column by itself: ks (Kolmogorov-Smirnov), cvm (Cramer-von Mises), psi (stability index), tabular."""
    categories: tuple[CategoryTest, ...]
    """Each category column by itself: chi2, fet (Fisher's exact test, two categories), psi, tabular."""
    joint: tuple[JointTest, ...]
    """All columns at once: mmd (mean discrepancy), novelty (rows far from all), classifier, lsdd, online_mmd."""
    embedding: tuple[JointTest, ...]
    """The network's last hidden layer: mmd, novelty, classifier, lsdd, online_mmd."""
    prediction: tuple[PredictionTest, ...]
    """Class probabilities: ks, cvm, psi, and fet (share of the predictions) for each class; uncertainty (entropy),
    novelty, mmd, classifier, lsdd for all at once. A regression's predictions: ks, cvm, psi."""
    label: tuple[LabelTest, ...]
    """Class shares, once labels arrive: chi2, fet (two classes), psi. A regression's targets: the tests of numbers."""
    concept: tuple[ConceptTest, ...]
    """Whether the same confidence is right as often as before, once labels arrive: residual."""


class EffectParams(Params):
    """Sizes below which a difference is not drift, however significant it is."""

    wasserstein: float = Field(ge=0, le=10)
    """Of a number: mean distance moved (standard deviations of the reference); ks, cvm, uncertainty."""
    cramers_v: float = Field(ge=0, le=1)
    """Of a category: association of its value with the window (0 to 1); chi2, fet."""
    psi: float = Field(ge=0, le=10)
    """Population stability index; by custom 0.1 is a moderate and 0.25 a large change; psi."""
    mmd: float = Field(ge=0, le=2)
    """Squared maximum mean discrepancy, or density difference (0 to 2); mmd, lsdd, online_mmd."""
    auc: float = Field(ge=0.5, le=1)
    """How well window is told from reference (area under the ROC curve, 0.5 is chance); classifier, novelty."""
    share: float = Field(ge=0, le=1)
    """Change of a share of rows (0 to 1): missing, non-finite, unseen values; right answers in residual."""


class DriftParams(Params):
    """Section ``drift`` of ``watch.yaml``."""

    backend: BackendWish
    """Whose tests: alibi (alibi-detect, to be installed), native (needs nothing), auto (alibi if it is there)."""
    level: float = Field(gt=0, le=0.2)
    """Chance that a window without drift is called drifted (per window); used where false_alarms_per_month is null."""
    false_alarms_per_month: float | None = Field(gt=0, le=31)
    """Drifted windows allowed in a month without drift (count); null: level holds for every window."""
    windows_per_month: int = Field(ge=1, le=1_000_000)
    """Windows that are planned for a month (count): 30 for daily, 730 for hourly, 2,920 for one every 15 minutes."""
    correction: Correction
    """For many tests in a window: bonferroni (no false test at all), benjamini_hochberg (few among those found)."""
    detectors: DetectorParams
    """Detectors by kind."""
    min_effect: EffectParams
    """Differences too small to matter."""
    seasonality: Seasonality
    """Compare with reference samples of the same hour, weekday, or both (UTC); none: with all."""
    min_matched: int = Field(ge=20)
    """Fewest reference samples of the same season (count); with fewer, all of the reference is taken, with a note."""
    min_samples: int = Field(ge=5)
    """Fewest values on either side for a test (count); with fewer only the schema is checked."""
    max_pairwise_rows: int = Field(ge=50, le=20_000)
    """Rows of each side drawn for tests that compare all pairs: mmd, lsdd, online_mmd (count)."""
    max_classifier_rows: int = Field(ge=100, le=1_000_000)
    """Rows of each side drawn for classifier and novelty (count)."""
    num_permutations: int = Field(ge=100, le=10_000)
    """Permutations of mmd and lsdd (count)."""
    min_labels: int = Field(ge=20)
    """Labels from which performance is measured, and label and concept are tested (count); estimated with fewer."""
    margin: float = Field(ge=0, lt=1)
    """Loss of accuracy that is allowed (0 to 1); beyond it performance is at risk."""
    loss: Loss
    """What a regression's performance is: mae (mean absolute error) or rmse (root of the mean squared error)."""
    loss_margin: float = Field(ge=0, le=10)
    """Rise of a regression's loss that is allowed (share of the reference's); beyond it performance is at risk."""
    confidence: float = Field(ge=0.5, lt=1)
    """Of the interval around the performance (0 to 1)."""
    num_examples: int = Field(ge=0, le=100)
    """Sample ids named as examples of what moved (count)."""
    seed: int = Field(ge=0)
    """Seeds drawing and permuting; equal seeds give equal verdicts."""

    @model_validator(mode="after")
    def _native_has_them(self) -> Self:
        wanted = [name for names in self.detectors.model_dump().values() for name in names]
        missing = sorted(set(wanted) & set(ALIBI_ONLY))
        if self.backend == "native" and missing:
            raise ValueError(f"detectors {missing} are alibi-detect's alone; take them out, or set backend to auto")
        return self
