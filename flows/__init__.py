"""When stages run, in what order, with what retries: Prefect flows, and the ``datamill`` command."""

import os

# Threads that spin while they wait for each other make torch ten times slower wherever another process works beside
# it. OpenMP reads this when a library that uses it is loaded.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
