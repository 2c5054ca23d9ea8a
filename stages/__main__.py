"""`python -m stages`: the command line."""

import sys

from stages.cli import main

if __name__ == "__main__":
    sys.exit(main())
