"""`python -m cairn.framework.cli`: the command line of exactly this interpreter, whatever PATH says."""

import sys

from cairn.framework.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
