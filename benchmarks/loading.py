"""The command of the package ``loading`` beside it: ``python benchmarks/loading.py --help``."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.loading.__main__ import main

if __name__ == "__main__":
    sys.exit(main())
