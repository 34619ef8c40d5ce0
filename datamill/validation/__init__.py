"""Whether the data is what it should be: a profiled schema, its expectations, and a gate."""
