"""Runs on record, why their numbers differ, and what other tools are told about them."""
