"""What runs a converted network through time."""
