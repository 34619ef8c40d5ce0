"""datamill's loader beside its peers: the same work, taking turns in one run.

    python benchmarks/loading.py --check
    python benchmarks/loading.py --only images --peers torch,grain --rounds 3
    python benchmarks/loading.py --quick --check            (under a minute)

Every contender runs in a process of its own, once a round; every row of every epoch must come exactly once. Peers that
are not installed are listed as absent: ``pip install -e '.[peers]'``, best in an environment of its own. The last lines
name each figure beside its bar; with ``--check`` the exit status is 1 when one is missed.
"""

import argparse
import json
import os
import platform
import signal
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path

from benchmarks.loading.report import verdict
from benchmarks.loading.rounds import ACTS, Run
from benchmarks.pipeline import Figure

QUICK_WORKS = ("images", "jpegs", "sequences", "start")


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="benchmarks/loading.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", choices=list(ACTS), action="append", help="this work; may be given again")
    parser.add_argument("--peers", default="", help="only peers whose names begin with one of these, comma between")
    parser.add_argument("--rounds", type=int, default=5, help="turns of each contender")
    parser.add_argument("--folder", type=Path, help="keep the samples and their formats here, for the next run")
    parser.add_argument("--idx", type=Path, help="IDX folder of 28 x 28 images; Fashion-MNIST as Debian installs it")
    parser.add_argument("--quick", action="store_true", help="fewer samples, one round, the peers that matter most")
    parser.add_argument("--check", action="store_true", help="exit with status 1 when a bar is missed")
    parser.add_argument("--json", type=Path, help="write every number here")
    return parser.parse_args(arguments)


def close(figures: list[Figure], *, check: bool) -> int:
    """Print each figure beside its bar; the exit status."""
    print("\n" + "\n".join(map(verdict, figures)))
    return 1 if check and not all(figure.holds for figure in figures) else 0


def main() -> int:
    options = parse()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # so that no child outlives this process
    print(f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}", flush=True)
    results, figures = {}, []
    with tempfile.TemporaryDirectory(prefix="datamill-loading-") as name:
        folder = (options.folder or Path(name)).resolve()
        peers = tuple(filter(None, options.peers.split(",")))
        rounds = 1 if options.quick else options.rounds
        run = Run(folder, rounds, is_quick=options.quick, peers=peers, idx=options.idx)
        for work in options.only or (QUICK_WORKS if options.quick else ACTS):
            print(f"== {work}", flush=True)
            results[work], found = ACTS[work](run)
            figures += found
    if options.json:
        numbers = {work: [asdict(one) for one in found] for work, found in results.items()}
        bars = [asdict(figure) | {"holds": figure.holds} for figure in figures]
        options.json.write_text(json.dumps({"results": numbers, "figures": bars}, indent=2))
    return close(figures, check=options.check)


if __name__ == "__main__":
    sys.exit(main())
