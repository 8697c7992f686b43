"""``python -m edgellm``: the command line."""

import sys

from edgellm.cli.app import main

sys.exit(main())
