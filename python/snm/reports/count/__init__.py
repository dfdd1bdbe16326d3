"""Counts what a network sends, and what it computes for that."""
