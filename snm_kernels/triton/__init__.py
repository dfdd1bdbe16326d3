"""The neuron as a Triton kernel."""
