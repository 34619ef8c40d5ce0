"""Training shards: the native memory-mapped format, and exports to other formats.

``native`` is what training reads; its byte layout is specified in the README beside it. ``webdataset`` writes tar
files. ``joining`` fills both.
"""

SPLITS = ("train", "validation", "test")
"""One shard each, in this order, in a folder of this name."""
