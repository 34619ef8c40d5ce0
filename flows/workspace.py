"""A workspace of one's own: a Git and DVC repository for a project, apart from datamill's code."""

import shutil
import subprocess
import sys
from pathlib import Path

from datamill import config, dvcfile
from datamill.errors import ParamsError
from tasks.__main__ import rendered

CHECKOUT = Path(__file__).resolve().parent.parent
EXAMPLES = CHECKOUT / "examples"
COPIED = (".gitignore", ".dvcignore", ".dvc/config", ".dvc/.gitignore")
README = """# {name}

A datamill workspace, begun from the example `{example}`. `params.yaml` says where the data is and how it is treated;
everything else follows from it.

```sh
datamill run                              # bring everything up to date; a second call does only what changed
datamill run --set train.epochs=3         # change a parameter, then run
datamill report                           # what came out
datamill trace SAMPLE_ID                  # what happened to one sample, and why
datamill ui                               # MLflow and Prefect in the browser
dvc repro                                 # the same through DVC alone, with datamill's environment active
```

Point `ingest.source` in `params.yaml` at your data: `image_folder` (one folder per class), `table` (CSV or Parquet with
a target column), `idx` (MNIST files) or `bundled`. Commit `params.yaml`, `dvc.yaml`, `dvc.lock` and `reports/` to Git;
`dvc push` stores data and models at the remote named in `.dvc/config`.
"""


def example_names() -> list[str]:
    """The examples a workspace can begin from."""
    return sorted(path.parent.name for path in EXAMPLES.glob("*/params.yaml"))


def create_workspace(folder: Path, *, example: str) -> list[str]:
    """Make ``folder`` a workspace that begins with the example's parameters; what is already there stays.

    Returns:
        Names of the files that were written.

    Raises:
        ParamsError: There is no such example, or ``folder`` is datamill's checkout or inside of it.
    """
    if example not in example_names():
        raise ParamsError(f"no example is called {example!r}; there are {', '.join(example_names())}")
    folder = folder.resolve()
    if folder.is_relative_to(CHECKOUT):
        raise ParamsError(f"{folder} lies inside datamill's checkout {CHECKOUT}; choose a folder outside of it")
    folder.mkdir(parents=True, exist_ok=True)
    written = [name for name in COPIED if _copy(CHECKOUT / name, folder / name)]
    if _copy(EXAMPLES / example / config.PARAMS_FILE, folder / config.PARAMS_FILE):
        written.append(config.PARAMS_FILE)
    if not (folder / "README.md").exists():
        (folder / "README.md").write_text(README.format(name=folder.name, example=example), encoding="utf-8")
        written.append("README.md")
    if not (folder / ".git").exists():
        _run("git", "init", "--quiet", str(folder))
    if not (folder / ".dvc" / "tmp").exists():
        _run(sys.executable, "-m", "dvc", "--cd", str(folder), "config", "--local", "core.analytics", "false")
    if dvcfile.write(rendered(folder), root=folder):
        written.append(dvcfile.DVC_FILE)
    return written


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
