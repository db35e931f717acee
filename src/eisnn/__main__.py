"""``python -m eisnn`` is the command line."""

import sys

from eisnn.cli import main

sys.exit(main())
