"""Whether `datamill why` names what is behind a difference: twenty planted ones on real data, in the company of decoys.

    python benchmarks/why.py --check            all twenty on 1,797 digits (about three minutes)
    python benchmarks/why.py --quick --check    six of them on 600 digits, under a minute
    python benchmarks/why.py --only "re-split"  one of them, with its page

Every planted run differs from its base in the planted thing and, besides, in three rows removed at random, in the
model card's owner and in how many mistakes evaluate draws. The data are scikit-learn's digits as a folder of images in
six batches, with 3 % wrong labels, 40 exact copies and 40 near ones, as real folders have them. A case is passed when
the cause ranked first is the planted one by kind and by name. The last line names the figures beside their bars; with
``--check`` the exit status is 1 when one is missed.
"""

import argparse
import contextlib
import io
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import yaml
from pipeline import BIN, Figure, conclude

from datamill import config, dvcfile, files, parts
from datamill.execute import execute
from datamill.lineage import versions
from datamill.lineage.causes import Kind
from datamill.lineage.explaining import explain
from datamill.lineage.explanation import Explanation
from datamill.lineage.runs import find_run
from datamill.modalities import image
from datamill.settings import Settings
from flows.graph import needed_by
from flows.workspace import CHECKOUT, create_workspace
from tasks import PIPELINE
from tasks.__main__ import rendered

IMAGES = "images"
NUM_BATCHES = 6
SETTINGS = Settings(tracking="off", num_threads=1, num_workers=1, device="cpu")
STAGES = [stage for stage in PIPELINE if stage.name in needed_by("evaluate")]
BASE_PARAMS = (
    "ingest.source={kind: image_folder, path: images, group_from: none}",
    "validate.limits.classes.allowed=null",
    "validate.max_bad_share=0.2",
    "clean.exact.policy=flag",
    "clean.exact.conflicting=flag",
    "split.strategy=hash",
    "synthesize.method=off",
    "train.epochs=4",
    "evaluate.num_resamples=100",
    "evaluate.baseline.max_rows=200",
)
DECOYS = ("export.card.owner=somebody", "evaluate.num_mistakes=12")
NUM_DECOY_ROWS = 3


@dataclass(frozen=True)
class Case:
    """A planted difference.

    Attributes:
        name: What is planted.
        plant: Changes a copy of the base.
        kind: The kind that must be ranked first.
        said: What its title must say.
        base: Parameters that the base needs besides the usual ones.
        is_quick: Part of ``--quick``.
    """

    name: str
    plant: Callable[["Copy"], None]
    kind: Kind
    said: str
    base: tuple[str, ...] = ()
    is_quick: bool = False


class Copy:
    """A workspace that begins as its base, file for file."""

    def __init__(self, root: Path, *, base: Path) -> None:
        """Link every file of ``base``; whatever is written later replaces a link and leaves the base alone."""
        shutil.copytree(base, root, copy_function=os.link)
        self.root = root
        self.base = base
        self.rng = np.random.default_rng(11)
        self.code: Path | None = None
        self._replace(config.PARAMS_FILE, (base / config.PARAMS_FILE).read_bytes())

    def files(self, pattern: str = "*/*/*") -> list[Path]:
        """Images whose path below the folder fits, in order."""
        return sorted((self.root / IMAGES).glob(pattern))

    def some(self, count: int, pattern: str = "*/*/*") -> list[Path]:
        """That many of them, at random."""
        found = self.files(pattern)
        return [found[row] for row in sorted(self.rng.choice(len(found), min(count, len(found)), replace=False))]

    def set(self, *assignments: str) -> None:
        """Change parameters."""
        config.set_params(assignments, stages=PIPELINE, root=self.root)

    def write(self, path: Path, content: bytes) -> None:
        """Put other bytes in the place of an image."""
        self._replace(str(path.relative_to(self.root)), content)

    def relabel(self, paths: list[Path], *, to: str | None = None) -> None:
        """Move images into another class's folder: ``to``, or any other at random."""
        for path in paths:
            batch, name = path.parent.name, path.name
            others = [label for label in map(str, range(10)) if label != path.parent.parent.name]
            target = self.root / IMAGES / (to or str(self.rng.choice(others))) / batch / name
            target.parent.mkdir(parents=True, exist_ok=True)
            path.rename(target)

    def test_files(self) -> list[Path]:
        """Images that the base tests on."""
        sources = parts.read_table(self.base / "data/ingest/samples", columns=["sample_id", "source"])
        placed = pq.read_table(self.base / "data/shard/ledger.parquet", filters=[("split", "=", "test")])
        tested = set(placed["sample_id"].to_pylist())
        rows = zip(*(column.to_pylist() for column in sources.columns), strict=True)
        return sorted(self.root / IMAGES / source for key, source in rows if key in tested)

    def _replace(self, name: str, content: bytes) -> None:
        with files.atomic_write(self.root / name) as partial:
            partial.write_bytes(content)


def drop(paths: list[Path]) -> None:
    """Delete images."""
    for path in paths:
        path.unlink()


def darken(copy: Copy, paths: list[Path]) -> None:
    """Halve the brightness of images."""
    for path in paths:
        copy.write(path, image.encode_png(image.decode(path.read_bytes()) // 2))


def duplicate(paths: list[Path]) -> None:
    """Put a second copy of images beside them."""
    for path in paths:
        shutil.copyfile(path, path.with_name(f"copy-{path.name}"))


def rename_class(copy: Copy, *, old: str, new: str) -> None:
    """Call a class otherwise."""
    (copy.root / IMAGES / old).rename(copy.root / IMAGES / new)


def truncate(copy: Copy, paths: list[Path]) -> None:
    """Leave only the first half of files."""
    for path in paths:
        content = path.read_bytes()
        copy.write(path, content[: len(content) // 2])


def regroup(copy: Copy) -> None:
    """Move a third of one batch's images of every class into the next batch, which is another group."""
    for path in copy.files("*/batch2/*")[::3]:
        target = path.parents[1] / "batch3" / path.name
        path.rename(target)


def change_code(copy: Copy) -> None:
    """Halve the learning rate in a copy of the code."""
    copy.code = copy.root.with_name(f"{copy.root.name}-code")
    for name in ("datamill", "tasks"):
        shutil.copytree(CHECKOUT / name, copy.code / name, ignore=shutil.ignore_patterns("__pycache__"))
    path = copy.code / "datamill/training/schedule.py"
    text = path.read_text()
    assert "return peak * (step + 1) / warmup" in text
    path.write_text(text.replace("return peak * (step + 1) / warmup", "return peak * (step + 1) / warmup / 4"))


CASES = (
    Case("5 % of one class's labels flipped", lambda c: c.relabel(c.some(9, "3/*/*")), "relabelled", "class 3"),
    Case("200 rows of one folder dropped", lambda c: drop(c.some(200, "*/batch3/*")), "removed", "batch3", (), True),
    Case("a training parameter", lambda c: c.set("train.peak_lr=0.0005"), "parameters", "train.peak_lr", (), True),
    Case("a line of code", change_code, "code", "datamill/training/schedule.py"),
    Case("re-split", lambda c: c.set("split.seed=8"), "parameters", "split.seed", (), True),
    Case("duplicates added", lambda c: duplicate(c.some(150)), "added", "exact copies"),
    Case(
        "a class renamed", lambda c: rename_class(c, old="7", new="seven"), "relabelled", "7 is called seven", (), True
    ),
    Case("images of one folder darkened", lambda c: darken(c, c.files("*/batch4/*")), "content", "batch4", (), True),
    Case(
        "a tenth of the test labels flipped",
        lambda c: c.relabel(c.test_files()[::10]),
        "relabelled",
        "labelled otherwise",
    ),
    Case("exact copies dropped", lambda c: c.set("clean.exact.policy=drop"), "parameters", "clean.exact.policy"),
    Case("audit drops", lambda c: c.set("audit.policy=drop"), "parameters", "audit.policy"),
    Case(
        "an augmentation parameter",
        lambda c: c.set("augment.transforms=[{name: Affine, probability: 0.8, arguments: {rotate: [-45, 45]}}]"),
        "parameters",
        "augment.transforms",
    ),
    Case(
        "a preprocessing parameter",
        lambda c: c.set("preprocess.image.normalise=unit"),
        "parameters",
        "preprocess.image",
    ),
    Case("the training seed", lambda c: c.set("train.seed=8"), "parameters", "train.seed"),
    Case("the network's width", lambda c: c.set("train.network.width=8"), "parameters", "train.network.width"),
    Case(
        "rows of one class given to another", lambda c: c.relabel(c.some(40, "4/*/*"), to="9"), "relabelled", "4 -> 9"
    ),
    Case(
        "rows moved to another group",
        regroup,
        "regrouped",
        "in another group",
        ("ingest.source={kind: image_folder, path: images, group_from: folder}",),
    ),
    Case("files cut short", lambda c: truncate(c, c.some(60)), "rejected", "can no longer be read", (), True),
    Case("near-duplicates dropped", lambda c: c.set("clean.near.policy=drop"), "parameters", "clean.near.policy"),
    Case("the batch size", lambda c: c.set("train.batch_size=16"), "parameters", "train.batch_size"),
)


def write_images(folder: Path, *, limit: int) -> None:
    """Digits as PNG files below ``<class>/<batch>/``, with the flaws that real folders have."""
    from sklearn.datasets import load_digits

    rng = np.random.default_rng(3)
    bunch = load_digits()
    pixels = np.rint(bunch.images[:limit] * (255 / 16)).astype(np.uint8)
    labels = np.where(rng.random(limit) < 0.03, rng.integers(0, 10, limit), bunch.target[:limit])
    rows = [(row, pixels[row], "") for row in range(limit)]
    rows += [(row, pixels[row], "-again") for row in rng.choice(limit, 40, replace=False)]
    noise = rng.integers(0, 3, (40, 8, 8), dtype=np.uint8)
    rows += [
        (row, pixels[row] // 2 * 2 + noise[n] // 2, "-near")
        for n, row in enumerate(rng.choice(limit, 40, replace=False))
    ]
    for row, one, mark in rows:
        path = folder / str(labels[row]) / f"batch{row * NUM_BATCHES // limit}" / f"{row:04d}{mark}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(image.encode_png(one[..., None]))


def make_base(root: Path, *, limit: int, assignments: tuple[str, ...]) -> Path:
    """A workspace on those images, run up to evaluate."""
    create_workspace(root, example="digits")
    write_images(root / IMAGES, limit=limit)
    config.set_params([*BASE_PARAMS, *assignments], stages=PIPELINE, root=root)
    dvcfile.write(rendered(root), root=root)
    run_stages(root, base=None, code=None)
    return root


def run_stages(root: Path, *, base: Path | None, code: Path | None) -> None:
    """Run every stage whose parameters, inputs or code are not those of the base; print only what fails."""
    sections = [yaml.safe_load((one / config.PARAMS_FILE).read_text()) for one in (root, base or root)]
    for stage in STAGES:
        is_other = base is None or sections[0][stage.name] != sections[1][stage.name] or not stage.inputs
        paths = [artifact.path for artifact in stage.inputs.values()]
        if is_other or (base and any(versions.digest_of(root / p) != versions.digest_of(base / p) for p in paths)):
            if code is not None and stage.name == "train":
                run_elsewhere(["train", "evaluate"], root=root, code=code)
                return
            with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
                execute(stage, root=root, pipeline=PIPELINE, settings=SETTINGS)


def run_elsewhere(names: list[str], *, root: Path, code: Path) -> None:
    """Run stages with other code, in a process of its own."""
    program = "import sys; from tasks.__main__ import main; sys.exit(any([main([name]) for name in sys.argv[1:]]))"
    environment = {**os.environ, "PYTHONPATH": str(code), "DATAMILL_TRACKING": "off"}
    command = [str(BIN / "python"), "-c", program, *names]
    done = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True)
    if done.returncode:
        sys.exit(done.stdout[-2000:] + done.stderr[-2000:])


def try_case(case: Case, *, base: Path, root: Path) -> tuple[Explanation, bool]:
    """Plant a difference and the decoys, run, and ask why."""
    copy = Copy(root, base=base)
    case.plant(copy)
    drop(copy.some(NUM_DECOY_ROWS))
    copy.set(*DECOYS)
    run_stages(root, base=base, code=copy.code)
    before, after = (find_run(str(one), stages=PIPELINE, root=one) for one in (base, root))
    found = explain(before, after, metric="accuracy", stages=PIPELINE)
    first = found.ranked[0].cause
    return found, first.kind == case.kind and case.said in f"{first.title} {first.detail}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", help="cases whose name holds this")
    parser.add_argument("--quick", action="store_true", help="six cases on 600 images")
    parser.add_argument("--check", action="store_true", help="exit with status 1 when a bar is missed")
    options = parser.parse_args()
    limit = 600 if options.quick else 1_797
    cases = [case for case in CASES if (not options.quick or case.is_quick) and (options.only or "") in case.name]
    print(
        f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}; {limit} images", flush=True
    )
    passed, worst_gap = 0, 0.0
    with tempfile.TemporaryDirectory(prefix="datamill-benchmark-") as name:
        bases: dict[tuple[str, ...], Path] = {}
        for number, case in enumerate(cases):
            if case.base not in bases:
                bases[case.base] = make_base(Path(name) / f"base{len(bases)}", limit=limit, assignments=case.base)
            start = time.monotonic()
            found, is_first = try_case(case, base=bases[case.base], root=Path(name) / f"case{number}")
            seconds = time.monotonic() - start
            passed += is_first
            first, *others = found.ranked
            worst_gap = max(worst_gap, abs(sum(one.total for one in found.ranked) - found.difference))
            second = f"; then {others[0].cause.title} ({others[0].weight:.2g})" if others else ""
            print(
                f"{'first ' if is_first else 'MISSED'} {case.name}: accuracy {found.value_a:.4f} -> "
                f"{found.value_b:.4f}; {first.cause.title} ({first.weight:.2g}){second}; {seconds:.0f} s",
                flush=True,
            )
            shutil.rmtree(Path(name) / f"case{number}")
    figures = [
        Figure("planted causes ranked first", passed, len(cases), at_most=False),
        Figure("accounts less the difference", worst_gap, 1e-9, at_most=True),
    ]
    return conclude(figures, check=options.check)


if __name__ == "__main__":
    sys.exit(main())
