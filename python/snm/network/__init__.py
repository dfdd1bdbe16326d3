"""Runs a converted network through time, and watches, records and stops what runs."""
