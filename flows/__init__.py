"""When stages run, in what order, with what retries: Prefect flows, and the ``datamill`` command."""

import os

# Threads that spin long while they wait for each other make torch up to ten times slower wherever another process works
# beside it; threads that do not spin at all, half as fast on an idle machine. Read when OpenMP is loaded.
if "OMP_WAIT_POLICY" not in os.environ:
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")
