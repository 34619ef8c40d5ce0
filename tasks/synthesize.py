"""Stage synthesize: synthetic training samples of each class, and the gate that keeps bad ones out."""

from pathlib import Path
from typing import TYPE_CHECKING, Literal, Self

from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from datamill import catalog
from datamill.stage import Context, Metrics, Params, Stage

if TYPE_CHECKING:
    from datamill.generators import Generator, Rows


class PcaParams(Params):
    """Class-conditional PCA."""

    variance: float = Field(gt=0, lt=1)
    """Share of a class's variance that its components explain."""
    max_components: PositiveInt
    """Most components of a class (count)."""


class VaeParams(Params):
    """Conditional variational autoencoder."""

    hidden: int = Field(ge=1, le=4096)
    """Width of the hidden layers (count)."""
    latent: int = Field(ge=1, le=512)
    """Dimensions of the latent space (count)."""
    epochs: int = Field(ge=1, le=1000)
    """Passes over the rows it is fitted on (count)."""
    batch_size: PositiveInt
    """Rows per step (count)."""
    learning_rate: PositiveFloat
    """Of Adam, per step."""
    noise: float = Field(ge=0, le=1)
    """Share of the decoder's residual deviation added to samples; 0 for smooth images, 1 for tables."""


class GateParams(Params):
    """What candidates must reach to be admitted."""

    num_neighbors: PositiveInt
    """Neighbours that span the ball around a real sample (count, k in density and coverage)."""
    min_density: float = Field(ge=0)
    """Least density of a class's candidates; real samples reach about 1."""
    min_coverage: float = Field(ge=0, le=1)
    """Least coverage of a class's candidates, as a share of what as many real samples would reach."""
    near_copy_ratio: float = Field(ge=0, le=1)
    """Nearer to a training sample than this share of the typical distance between neighbours is a near copy."""
    reject_outside: bool
    """Whether a candidate in no real sample's ball is rejected by itself."""
    held_out_share: float = Field(gt=0, le=0.5)
    """Share of a class's training samples kept from the generator, to judge by."""


class SynthesizeParams(Params):
    """Section ``synthesize``."""

    method: Literal["off", "pca", "vae"]
    """Generator: off, pca (class-conditional PCA) or vae (conditional variational autoencoder)."""
    samples_per_class: PositiveInt | None
    """Candidates per class (count); null where share is given."""
    share: float | None = Field(gt=0, le=10)
    """Candidates per class as a share of its training samples; null where samples_per_class is given."""
    max_rows_per_class: PositiveInt
    """Training samples of a class that are read, chosen at random (count); bounds memory and time."""
    seed: NonNegativeInt
    """Seeds the choice of rows, the generator and the draws."""
    pca: PcaParams
    """Class-conditional PCA."""
    vae: VaeParams
    """Conditional variational autoencoder."""
    gate: GateParams
    """Admission."""

    @model_validator(mode="after")
    def _has_one_amount(self) -> Self:
        if (self.samples_per_class is None) == (self.share is None):
            raise ValueError(
                f"give either samples_per_class or share and set the other to null; "
                f"they were {self.samples_per_class} and {self.share}"
            )
        return self


def synthesize(
    *,
    samples: Path,
    repairs: Path,
    audited: Path,
    preprocessor: Path,
    synthetic: Path,
    admissions: Path,
    sheet: Path,
    params: SynthesizeParams,
    context: Context,
) -> Metrics:
    """Generate training samples of each class and admit those that pass the gate.

    Candidates are new, so the ledger answers for them alone: one row each, admitted or dropped with a reason.
    """
    import numpy as np

    from datamill import derived, parts
    from datamill.generators import admission, gate, synthesis
    from datamill.preprocessing import load_preprocessor
    from datamill.samples import LIGHT_COLUMNS

    dataset = parts.read_manifest(samples).dataset
    space = load_preprocessor(preprocessor)
    rules = gate.Rules(**params.gate.model_dump(exclude={"held_out_share"}))
    min_rows = gate.min_rows(num_neighbors=rules.num_neighbors)
    members: dict[str, derived.TrainClass] = {}
    if params.method != "off":
        max_rows = max(params.max_rows_per_class, min_rows)
        key = f"synthesize {params.seed}"
        members = derived.choose_by_class(audited, classes=dataset.classes, size=max_rows, key=key)
    chosen = {label: its.ids for label, its in members.items() if len(its.ids) >= min_rows}
    wanted = [key for ids in chosen.values() for key in ids]
    payload = [name for name in dataset.arrow_schema().names if name not in LIGHT_COLUMNS]
    tables = derived.iter_chosen(samples, wanted=wanted, repairs=repairs, columns=["sample_id", *payload])
    real = synthesis.read_real(
        context.progress(tables, total=None, label="reading"),
        chosen=chosen,
        preprocessor=space,
        held_out_share=params.gate.held_out_share,
        num_neighbors=rules.num_neighbors,
    )

    judged = []
    generator = _fit(synthesis.fitting_rows(real), params=params, context=context) if real else None
    for label in context.progress(real, total=len(real), label="generating"):
        assert generator is not None
        seeds = np.random.SeedSequence([params.seed, 1, dataset.classes.index(label)])
        candidates = synthesis.generate(
            label,
            generator=generator,
            real=real[label],
            preprocessor=space,
            rules=rules,
            method=params.method,
            count=params.samples_per_class or max(1, round((params.share or 0) * members[label].size)),
            seed=int(seeds.generate_state(1)[0]),
        )
        judged.append(candidates)

    admission.write_admitted(synthetic, judged=judged, dataset=dataset)
    admission.write_admissions(admissions, judged=judged)
    admission.check_admissions(synthetic, admissions)
    admission.write_sheet(
        sheet, judged=judged, real=real, folder=samples, repairs=repairs, dataset=dataset, method=params.method
    )
    skipped = {label: its.size for label, its in members.items() if label not in real}
    return {"method": params.method, **admission.report(judged, skipped=skipped, real=real)}


def _fit(rows: "Rows", *, params: SynthesizeParams, context: Context) -> "Generator":
    """The configured generator, fitted."""
    if params.method == "pca":
        from datamill.generators.pca import fit_pca

        return fit_pca(rows, **params.pca.model_dump())
    from datamill.generators.vae import fit_vae

    return fit_vae(
        rows,
        **params.vae.model_dump(),
        seed=params.seed,
        device=context.device,
        track=lambda epochs: context.progress(epochs, total=params.vae.epochs, label="fitting the VAE"),
    )


STAGE = Stage(
    run=synthesize,
    params=SynthesizeParams,
    inputs={
        "samples": catalog.INGEST_SAMPLES,
        "repairs": catalog.CLEAN_REPAIRS,
        "audited": catalog.AUDIT_LEDGER,
        "preprocessor": catalog.PREPROCESS_STATE,
    },
    outputs={
        "synthetic": catalog.SYNTHESIZE_SAMPLES,
        "admissions": catalog.SYNTHESIZE_ADMISSIONS,
        "sheet": catalog.SYNTHESIZE_SHEET,
    },
)
