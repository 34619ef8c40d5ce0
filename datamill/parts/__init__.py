"""Samples on disk: a folder of Parquet parts and a manifest that is written last.

Layout of a parts folder::

    <key>.parquet   at most 50,000 rows and about 64 MiB, in sample order; the key begins the SHA-256 of the file
    manifest.json   data set, rows, and key, rows, bytes and SHA-256 of every part, in order

``writing`` says where a part ends, ``parquet`` how its bytes follow from its rows, ``manifest`` whether a folder is
whole, ``reading`` streams it.
"""

from datamill.parts.manifest import MANIFEST, MAX_ROWS, Manifest, Part, is_whole, known_parts, read_manifest, verify
from datamill.parts.parquet import READ_ROWS, RowGroups, write_parquet
from datamill.parts.reading import SCAN_ROWS, iter_blocks, iter_part, iter_rows, iter_tables, read_table, regrouped
from datamill.parts.writing import PartsWriter, conform

__all__ = [
    "MANIFEST",
    "MAX_ROWS",
    "READ_ROWS",
    "SCAN_ROWS",
    "Manifest",
    "Part",
    "PartsWriter",
    "RowGroups",
    "conform",
    "is_whole",
    "iter_blocks",
    "iter_part",
    "iter_rows",
    "iter_tables",
    "known_parts",
    "read_manifest",
    "read_table",
    "regrouped",
    "verify",
    "write_parquet",
]
