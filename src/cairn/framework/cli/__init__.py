"""The command line. `main` is the `cairn` command; one file per verb, each imported only when its verb runs."""

from cairn.framework.cli.main import main

__all__ = ["main"]
