"""The command line: parse, call one verb, write.

No module of this package imports torch at the top, so that `--help` answers at once.
"""

from hyenadna.cli.app import main

__all__ = ["main"]
