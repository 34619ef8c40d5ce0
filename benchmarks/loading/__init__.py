"""datamill's loader beside its peers: the same work, taking turns in one run; ``python benchmarks/loading.py``."""
