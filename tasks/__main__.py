"""``python -m tasks STAGE`` runs one stage in the current workspace; ``dvc.yaml`` calls it.

``all`` runs every stage in order and skips nothing, for places without DVC. ``render`` writes ``dvc.yaml``;
``render --check`` only compares. ``observe`` is the first stage of workspaces outside the checkout: it records the
code and the remote source that DVC cannot hash. ``host`` is what the first stage of a run starts for the later ones
(``datamill.warm``); little is imported at the top, because those do their work there.
"""

import argparse
import os
import sys
from collections.abc import Iterable, Iterator
from itertools import takewhile
from pathlib import Path

from datamill import warm

OTHER_VERBS = ("all", "render", "observe", "host")
TRACKING = "datamill.tracking.server"
# Stages that load torch or Great Expectations.
SLOW = frozenset({"validate", "augment", "synthesize", "train", "evaluate", "export"})


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; returns the exit status: 0, 1 for a clear error, 130 when interrupted."""
    from datamill.errors import DatamillError

    options = _parse(arguments)
    try:
        _act(options)
    except DatamillError as error:
        if options.debug:
            raise
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"{options.verb}: interrupted; the next run goes on from here", file=sys.stderr)
        return 130
    return 0


def rendered(root: Path) -> str:
    """The ``dvc.yaml`` that fits the declared stages and the workspace's parameters."""
    from datamill import config, dvcfile, sources
    from tasks import PIPELINE, ingest

    params = config.load_params([ingest.STAGE], root=root, others=[stage.name for stage in PIPELINE])["ingest"]
    assert isinstance(params, sources.IngestParams)
    return dvcfile.render(PIPELINE, root=root, sources=sources.local_paths(params), remote=sources.is_remote(params))


def _act(options: argparse.Namespace) -> None:
    from datamill import dvcfile, hosting
    from datamill.execute import execute
    from tasks import PIPELINE

    root: Path = options.root
    if options.verb == "render":
        text = rendered(root)
        dvcfile.check(text, root=root) if options.check else dvcfile.write(text, root=root)
    elif options.verb == "observe":
        dvcfile.observe(PIPELINE, root=root, source=_source_fingerprint(root))
    elif options.verb == "host":
        names = [stage.name for stage in PIPELINE]
        first = takewhile(lambda name: name not in SLOW, names)
        hosting.serve(_modules(first), quick=_modules(set(names) - SLOW), slow=_modules(SLOW))
    elif options.verb == "all":
        for stage in PIPELINE:
            execute(stage, root=root, pipeline=PIPELINE)
    else:
        _run(options.verb, root=root)


def _run(name: str, *, root: Path) -> None:
    from datamill import dvcfile
    from datamill.execute import execute
    from tasks import PIPELINE

    stage = next(stage for stage in PIPELINE if stage.name == name)
    if stage is PIPELINE[0]:  # what DVC believes about the source must be true before anything is built on it
        dvcfile.check(rendered(root), root=root)
    execute(stage, root=root, pipeline=PIPELINE)


def _modules(names: Iterable[str]) -> Iterator[str]:
    """What some of the stages import, in their order."""
    from datamill import imports
    from datamill.settings import Settings
    from tasks import PIPELINE

    if Settings.from_environment().tracking == "on":
        yield TRACKING
    wanted = set(names)
    for stage in PIPELINE:
        if stage.name in wanted:
            yield from imports.modules(stage.module)


def _source_fingerprint(root: Path) -> str:
    from datamill import config, sources
    from tasks import PIPELINE

    params = config.load_params(PIPELINE, root=root)["ingest"]
    assert isinstance(params, sources.IngestParams)
    return sources.fingerprint(params)


def _parse(arguments: list[str] | None) -> argparse.Namespace:
    from tasks import PIPELINE

    stages = "\n".join(f"  {stage.name:<12}{stage.summary}" for stage in PIPELINE)
    parser = argparse.ArgumentParser(
        prog="python -m tasks",
        description=f"Run one stage:\n{stages}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "verb", choices=[*(stage.name for stage in PIPELINE), *OTHER_VERBS], metavar="STAGE|all|render|observe"
    )
    parser.add_argument("--root", type=Path, default=Path(), help="the workspace (default: here)")
    parser.add_argument("--check", action="store_true", help="with render: compare, write nothing")
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    # Arrow's own allocator keeps 40 MiB that nobody needs any more; host and stages must agree, so it is said first.
    os.environ.setdefault("ARROW_DEFAULT_MEMORY_POOL", "system")
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", "1000")  # see flows/__init__.py
    ended = warm.hand_over("tasks", sys.argv[1:], host=["host"], is_slow=not SLOW.isdisjoint(sys.argv[1:2]))
    sys.exit(main() if ended is None else ended)
