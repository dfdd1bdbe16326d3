"""Data sets as they lie on disk: pictures with their classes, and images made of them."""
