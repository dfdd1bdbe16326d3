"""From a graph to the layers and the program of a spiking network."""
