"""How good a classifier is, on samples it has never seen."""
