"""Spiking neurons as modules."""

from .neuron import SNMNeuron

__all__ = ["SNMNeuron"]
