"""Finds labels that are probably wrong, and says what happens to them."""
