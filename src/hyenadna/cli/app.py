"""The commands by name, and what happens to their errors."""

from __future__ import annotations

import errno
import os
import signal
import sys
from collections.abc import Sequence
from typing import NoReturn

from cyclopts import App, CycloptsError, Parameter

from hyenadna import __version__
from hyenadna.cli.console import make_console
from hyenadna.cli.ranks import of_other_rank, rank_text, require_one_process
from hyenadna.errors import InputError

app = App(
    name="hyenadna",
    help="Learn from DNA at single-nucleotide resolution over long distances.",
    version=__version__,
    default_parameter=Parameter(negative_iterable=""),
    help_format="markdown",
    result_action="return_value",
    suppress_keyboard_interrupt=False,
)
# The help of each command stands here too, so that the overview imports none of them.
COMMANDS = {
    "pretrain": "Train a model to predict the next nucleotide of one or more genomes.",
    "evaluate": "Measure how well a model predicts held-out bases, beside Markov models.",
    "embed": "Turn sequences or a genome into embeddings: hidden states of a layer, pooled.",
    "project": "Draw embeddings in two dimensions, and measure how well they tell classes apart.",
    "score": "Score the variants of a VCF: how likely a model finds each allele beside REF.",
    "mutate": "Score every substitution of every base: which ones a model finds unlikely.",
    "track": "Write tracks for a genome browser: how surprised a model is at every base.",
    "generate": "Write new DNA: bases that the model draws after a prompt, one at a time.",
    "finetune": "Fit a model to labelled sequences, and measure it beside baselines.",
    "fewshot": "Ask a model for classes behind demonstrations; say whether it learns from them.",
    "predict": "Say what a fine-tuned model makes of sequences: classes, labels or values.",
    "merge": "Make the output of all shards: what one process would have written.",
    "prompt-tune": "Adapt a frozen model to labelled sequences by soft tokens before them.",
    "benchmark": "Run a published benchmark suite: models beside baselines and published figures.",
    "report": "Show what a run was and what came out, on one page: pictures, figures, caveats.",
    "plan": "Say what a model takes on a machine: memory, time, network, price.",
    "models": "List the models: those of this package, and the published shapes.",
    "convert": "Rewrite a checkpoint, or a soft prompt, in another layout.",
    "demo": "Train a small model in about a minute and show what it learned.",
}
ON_RANKS = ("pretrain", "finetune", "evaluate")
"""Commands that several processes of torchrun do together."""
for _name, _help in COMMANDS.items():
    _module = _name.replace("-", "_")
    app.command(f"hyenadna.cli.{_module}:{_module}", name=_name, help=_help)


def main(tokens: Sequence[str] | None = None) -> NoReturn:
    """Run one command and exit: 0 done, 2 bad input (one line on stderr), 130 interrupted."""
    sys.exit(run(sys.argv[1:] if tokens is None else tokens))


def run(tokens: Sequence[str]) -> int:
    """Run one command; returns the exit code. Only defects of ours raise."""
    try:
        if tokens and tokens[0] in COMMANDS and tokens[0] not in ON_RANKS:
            require_one_process(tokens[0], ON_RANKS)
        result = app(list(tokens), exit_on_error=False, print_error=False)
    except CycloptsError as error:
        return _refuse(" ".join(str(error).split()) + " (see --help)")
    except RuntimeError as error:
        if not of_other_rank(error):
            raise
        first = str(error).strip().splitlines()[0]
        return _refuse(f"another rank is gone or does not answer; see what it says ({first})")
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    except BrokenPipeError:  # the reader of our output has gone (`| head`)
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except (InputError, OSError) as error:
        return _refuse(explain(error) or str(error))
    return result if isinstance(result, int) else 0


def explain(error: Exception) -> str | None:
    """What the user can mend, in a line; None for a defect of ours."""
    if isinstance(error, OSError):
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            return f"the disk is full ({error.filename or 'while writing'}); make room"
        return f"{error.filename or 'a file'}: {error.strerror or error}"
    return str(error) if isinstance(error, InputError) else None


def _refuse(message: str) -> int:
    make_console(stderr=True).print(f"hyenadna{rank_text()}: {' '.join(message.split())}")
    return 2
