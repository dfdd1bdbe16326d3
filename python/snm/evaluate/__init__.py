"""Evaluation of spiking networks on data sets as they lie on disk, by one process or many."""
