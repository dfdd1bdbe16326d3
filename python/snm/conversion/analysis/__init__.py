"""Finds out what the operations of a graph are, and which cannot be converted."""
