"""The commands of ``snm`` that have a file of their own."""
