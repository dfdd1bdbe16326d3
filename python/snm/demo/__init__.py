"""A trained network and the images it is shown on, packaged so that the demo needs no download."""

from .data import load_images, load_network
from .vgg import SmallVGG

__all__ = ["SmallVGG", "load_images", "load_network"]
