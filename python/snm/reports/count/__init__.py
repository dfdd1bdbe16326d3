"""Counts of what a network sends and computes."""
