"""Tests of ``datamill.sources``."""
