"""``python -m snm`` is the command ``snm``."""

import sys

from .cli import main

sys.exit(main())
