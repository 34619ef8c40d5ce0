"""Which stages a run has to do with, and the checks before any of them; without Prefect, so that it answers at once."""

from pathlib import Path

from datamill import config, dvcfile
from datamill.errors import ParamsError
from datamill.stage import topological
from tasks import PIPELINE
from tasks.__main__ import rendered


def prepare(root: Path) -> None:
    """Check every parameter and bring ``dvc.yaml`` up to date before any work.

    Raises:
        ParamsError: A parameter is wrong, or ``root`` is no workspace.
    """
    config.load_params(PIPELINE, root=root)
    if not (root / ".dvc").is_dir():
        raise ParamsError(f"{root} is no DVC repository; `datamill init {root}` makes it a workspace")
    if dvcfile.write(rendered(root), root=root):
        print("dvc.yaml: rendered anew for the present stages and source", flush=True)


def needed_by(target: str | None) -> dict[str, tuple[str, ...]]:
    """The stages to run and what each needs: all, or ``target`` and its ancestors.

    Raises:
        ParamsError: There is no such stage.
    """
    needs = topological(PIPELINE)
    if target is None:
        return needs
    if target not in needs:
        raise ParamsError(f"no stage is called {target!r}; there are {', '.join(needs)}")
    wanted = {target}
    for name in reversed(needs):
        if name in wanted:
            wanted |= set(needs[name])
    return {name: needs[name] for name in needs if name in wanted}
