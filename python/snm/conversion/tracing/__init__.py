"""From a model to a graph of its operations."""
