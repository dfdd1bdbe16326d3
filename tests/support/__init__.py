"""What the tests share: cases, networks, comparisons, and how things are run apart."""
