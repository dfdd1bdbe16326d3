"""``python -m snm`` is the command ``snm``."""

import sys

from .commands.cli import main

sys.exit(main())
