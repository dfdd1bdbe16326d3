"""Makes a graph of a model's operations."""
