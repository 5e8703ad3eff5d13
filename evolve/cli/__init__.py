"""The command line: verbs, their options and exit statuses; no logic.

Every verb imports what it needs when it runs, so that ``--help`` answers at once.
"""

from __future__ import annotations

import errno
import os
import sys

import click

from evolve import __version__
from evolve.cli.allocating import allocate
from evolve.cli.benchmarking import bench
from evolve.cli.catalogue import datasets, heuristics
from evolve.cli.exporting import export
from evolve.cli.networks import apply, check_network
from evolve.cli.profiling import profile
from evolve.cli.running import report, resume, run, verify
from evolve.cli.scoring import evaluate, lineage, optimum
from evolve.errors import EvolveError, InputError

#: Exit status after Ctrl-C, as shells have it.
INTERRUPTED = 130


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="evolve")
def evolve() -> None:
    """Discover readable rules that allocate number formats to a network's layers.

    Start with 'evolve run', then read reports/. Exit status: 0 good, 2 the input is wrong,
    130 interrupted, 1 anything else.
    """


for _verb in (run, resume, report, verify, evaluate, optimum, lineage, bench, heuristics, datasets, profile):
    evolve.add_command(_verb)
evolve.add_command(allocate)
evolve.add_command(export)
evolve.add_command(apply)
evolve.add_command(check_network)


def main() -> None:
    """Run the command line; every way out ends in one message and an exit status."""
    try:
        status = evolve.main(standalone_mode=False, prog_name="evolve")
    except click.exceptions.Exit as leaving:
        status = leaving.exit_code
    except click.ClickException as error:
        error.show()
        status = 2
    except (KeyboardInterrupt, click.Abort):
        click.echo("interrupted", err=True)
        status = INTERRUPTED
    except EvolveError as error:
        click.echo(f"error: {error}", err=True)
        status = error.exit_status
    except BrokenPipeError:
        # The reader of our output has gone (| head); Python must not complain at exit either.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        status = 1
    except Exception as error:
        if os.environ.get("EVOLVE_TRACEBACK"):
            raise
        status = _say(error)
    sys.exit(status if isinstance(status, int) else 0)


def _say(error: Exception) -> int:
    """Say what nothing else expected, and return the exit status."""
    # Files are named in many places, and which names are too long only the file system knows.
    if isinstance(error, OSError) and error.errno == errno.ENAMETOOLONG:
        fault = InputError("name of a file too long", found=error.filename, cure="Give a shorter one.")
        click.echo(f"error: {fault}", err=True)
        return fault.exit_status
    click.echo(
        f"internal error: {type(error).__name__}: {error}. Set EVOLVE_TRACEBACK=1 to see where.", err=True
    )
    return 1
