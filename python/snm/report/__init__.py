"""What people publish about a converted network, from one simulation."""
