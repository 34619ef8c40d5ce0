"""The model card and the data card: what was made, of what, and how good it is."""
