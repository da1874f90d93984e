"""The commands by name, and what happens to their errors."""

from __future__ import annotations

import errno
import os
import signal
import sys
from collections.abc import Sequence
from typing import NoReturn

from cyclopts import App, CycloptsError, Parameter
from rich.console import Console

from hyenadna import __version__
from hyenadna.errors import InputError

app = App(
    name="hyenadna",
    help="Learn from DNA at single-nucleotide resolution over long distances.",
    version=__version__,
    default_parameter=Parameter(negative=""),
    help_format="markdown",
)
app.command("hyenadna.cli.models:models")
app.command("hyenadna.cli.pretrain:pretrain")
app.command("hyenadna.cli.evaluate:evaluate")
app.command("hyenadna.cli.convert:convert")
app.command("hyenadna.cli.demo:demo")


def main(tokens: Sequence[str] | None = None) -> NoReturn:
    """Run one command and exit: 0 done, 2 bad input (one line on stderr), 130 interrupted."""
    sys.exit(run(sys.argv[1:] if tokens is None else tokens))


def run(tokens: Sequence[str]) -> int:
    """Run one command; returns the exit code. Only defects of ours raise."""
    try:
        result = app(list(tokens), exit_on_error=False, print_error=False)
    except CycloptsError as error:
        return _refuse(" ".join(str(error).split()) + " (see --help)")
    except InputError as error:
        return _refuse(str(error))
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    except BrokenPipeError:  # the reader of our output has gone (`| head`)
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            return _refuse(f"the disk is full ({error.filename or 'while writing'}); make room")
        raise
    return result if isinstance(result, int) else 0


def _refuse(message: str) -> int:
    Console(stderr=True).print(
        f"hyenadna: {message}", markup=False, highlight=False, soft_wrap=True
    )
    return 2
