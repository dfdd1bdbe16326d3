"""Helpers that tests share: cases, networks, comparisons, and runs in other processes."""
