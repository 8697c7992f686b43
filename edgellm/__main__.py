"""``python -m edgellm``: the command line."""

import sys

from edgellm.cli import main

sys.exit(main())
