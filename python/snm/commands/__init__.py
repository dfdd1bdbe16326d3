"""The command ``snm`` and its commands, a file each."""
