"""Makes the layers and the program of a spiking network from a graph."""
