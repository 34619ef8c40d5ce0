"""A workspace of one's own: a Git and DVC repository for a project, apart from datamill's code."""

import shutil
import subprocess
import sys
from pathlib import Path

from datamill import config, dvcfile
from datamill.errors import ParamsError
from datamill.watchfile import WATCH_FILE
from tasks import PIPELINE
from tasks.__main__ import rendered

CHECKOUT = Path(__file__).resolve().parent.parent
EXAMPLES = Path(__file__).with_name("examples")
SKELETON = Path(__file__).with_name("skeleton")  # without dots: Git and DVC would heed them in the checkout
DEFAULT = "digits"
NEUTRAL_HEADER = "# Everything that changes a result. Begin with ingest.source: where your data is.\n\n"
ANY_DATA = (  # what the default example says of images, of its classes, of its cleanliness
    "validate.max_bad_share=0.05",
    "validate.limits.classes.allowed=null",
    "validate.expectations=[]",
    "augment.transforms=[]",
    "synthesize.method=off",
)
COPIED = {
    ".gitignore": "gitignore",
    ".dvcignore": "dvcignore",
    ".dvc/config": "dvc/config",
    ".dvc/.gitignore": "dvc/gitignore",
}
README = """# {name}

A datamill workspace, begun from the example `{example}`. `params.yaml` says where the data is and how it is treated;
everything else follows from it.

```sh
datamill run                              # bring everything up to date; a second call does only what changed
datamill run --set train.epochs=3         # change a parameter, then run
datamill report                           # what came out
datamill watch                            # does new data still look like what the model was measured on?
datamill trace SAMPLE_ID                  # what happened to one sample, and why
datamill ui                               # MLflow and Prefect in the browser
dvc repro                                 # the same through DVC alone, with datamill's environment active
```

Point `ingest.source` in `params.yaml` at your data. One folder of images per class:

```yaml
ingest:
  source:
    kind: image_folder
    path: images          # below this folder, absolute, or an fsspec address such as s3://bucket/images
    group_from: none      # folder: files of one sub-folder below the class (one patient, one plant) share a split
```

or a table:

```yaml
ingest:
  source:
    kind: table
    path: rows.csv        # a file, a folder or a glob
    format: csv           # or parquet
    delimiter: ","
    encoding: utf-8
    target: label         # the column of the class
    target_kind: category # number: 1.0 and 1 are one class
    group: null           # column whose equal values share a split
    time: null            # column with the time of a row
    id: null              # column that names a row for good
    exclude: []
    kinds: {{}}             # {{zip: category}} where a column's kind is misread
```

Further kinds are `query` (a database), `exchanged` (WebDataset, TFRecord, Parquet of images, MDS), `idx` (MNIST files)
and `bundled`.

`watch.yaml` says where new data comes from, once there is a model, and whom to tell. Commit `params.yaml`,
`watch.yaml`, `dvc.yaml`, `dvc.lock` and `reports/` to Git; `dvc push` stores data and models at the remote named in
`.dvc/config`. To version raw data that lies in this folder as well, `dvc add` it.
"""


def example_names() -> list[str]:
    """The examples a workspace can begin from."""
    return sorted(path.parent.name for path in EXAMPLES.glob("*/params.yaml"))


def create_workspace(folder: Path, *, example: str | None) -> list[str]:
    """Make ``folder`` a workspace; what is already there stays.

    Args:
        folder: Made where it does not exist.
        example: Whose ``params.yaml`` it begins with, to the letter. ``None`` begins with the default example less what
            that says of its own data.

    Returns:
        Names of the files that were written.

    Raises:
        ParamsError: There is no such example, or ``folder`` is datamill's checkout or inside of it.
    """
    if example is not None and example not in example_names():
        raise ParamsError(f"no example is called {example!r}; there are {', '.join(example_names())}")
    folder = folder.resolve()
    if folder.is_relative_to(CHECKOUT):
        raise ParamsError(f"{folder} lies inside datamill's checkout {CHECKOUT}; choose a folder outside of it")
    folder.mkdir(parents=True, exist_ok=True)
    written = [name for name, source in COPIED.items() if _copy(SKELETON / source, folder / name)]
    if _copy(EXAMPLES / (example or DEFAULT) / config.PARAMS_FILE, folder / config.PARAMS_FILE):
        written.append(config.PARAMS_FILE)
        if example is None:
            _forget_the_example(folder)
    if _copy(EXAMPLES / (example or DEFAULT) / WATCH_FILE, folder / WATCH_FILE):
        written.append(WATCH_FILE)
    if not (folder / "README.md").exists():
        (folder / "README.md").write_text(README.format(name=folder.name, example=example or DEFAULT), encoding="utf-8")
        written.append("README.md")
    if not (folder / ".git").exists():
        _run("git", "init", "--quiet", str(folder))
    if not (folder / ".dvc" / "tmp").exists():
        _run(sys.executable, "-m", "dvc", "--cd", str(folder), "config", "--local", "core.analytics", "false")
    if dvcfile.write(rendered(folder), root=folder):
        written.append(dvcfile.DVC_FILE)
    return written


def _forget_the_example(folder: Path) -> None:
    """Leave open what only the owner of the data can say."""
    path = folder / config.PARAMS_FILE
    _, _, rest = path.read_text(encoding="utf-8").partition("\n\n")  # the header speaks of the example
    path.write_text(NEUTRAL_HEADER + rest, encoding="utf-8")
    open_questions = [f"export.card.{name}=''" for name in ("owner", "licence", "intended_use", "limitations")]
    config.set_params(
        [f"export.card.title={folder.name}", *ANY_DATA, *open_questions],
        stages=PIPELINE,
        root=folder,
    )


def _copy(source: Path, target: Path) -> bool:
    if target.exists():
        return False
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)
    return True


def _run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise ParamsError(f"`{' '.join(command)}` failed: {done.stderr.strip() or done.stdout.strip()}")
