"""Images and their classes, as the commands read them."""
