"""`python -m mrcnn`: the command line, where the `mrcnn` script is not on the path."""

import sys

from mrcnn.cli import main

sys.exit(main())
