"""The command line: one file per command, imported only when it is called."""

import importlib
import keyword
import sys
import time
from collections.abc import Sequence
from difflib import get_close_matches
from importlib.metadata import version

import click

from skd_cache.cli.process import wait_briefly
from skd_cache.errors import InputError, PeerLostError, SkdCacheError
from skd_cache.world import World

_COMMANDS = {
    "build": "Run the teacher over every seeded view and store its logits.",
    "distill": "Train a student from a cache; the teacher is not needed.",
    "run": "Build and distill as a pipeline file says.",
    "evaluate": "Measure a trained student on the validation set.",
    "ls": "List the caches on this machine.",
    "info": "Show what a cache holds.",
    "verify": "Check a cache's objects against their commits.",
    "push": "Copy a cache to the team's registry.",
    "pull": "Copy a cache from the team's registry.",
    "config": "Show and change what is set for good.",
    "rm": "Remove a cache, or views of it.",
    "gc": "Remove what nobody needs any more.",
    "doctor": "Check this machine: versions, DALI, GPUs, folders.",
    "export": "Write a cache into one HDF5 file for others.",
    "import": "Make a cache of an exported file.",
    "index": "Index a dataset's images, or find all unreadable ones.",
    "pack": "Pack a dataset into one .h5 file.",
}

_GIVE_WAY = 2.0  # seconds; torchrun ends the others within one

EPILOG = """\b
Examples:
  skd-cache run demo
  skd-cache build --teacher resnet152 --dataset imagenet --data /data/imagenet
  skd-cache distill --loss spherical --data /data/imagenet
"""


class _Commands(click.Group):
    """Names the commands without importing torch for a page of help."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            near = get_close_matches(cmd_name, _COMMANDS, 1)
            hint = f" Did you mean {near[0]}?" if near else ""
            ctx.fail(f"No such command {cmd_name!r}.{hint}")
        name = f"{cmd_name}_" if keyword.iskeyword(cmd_name) else cmd_name
        module = importlib.import_module(f"skd_cache.cli.{name}")
        command: click.Command = module.command
        return command

    def format_commands(
        self,
        ctx: click.Context,  # noqa: ARG002 - click's signature
        formatter: click.HelpFormatter,
    ) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(_COMMANDS.items()))


@click.group(cls=_Commands, epilog=EPILOG, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(version("skd-cache"), prog_name="skd-cache")
def group() -> None:
    """Knowledge distillation without the teacher in memory.

    `build` runs the teacher once over seeded augmentations of a dataset and stores its logits;
    `distill` replays the same augmentations and trains students from what is stored.
    """


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line; failures end in one sentence and their exit code."""
    wait_briefly()
    try:
        status = group.main(arguments, prog_name="skd-cache", standalone_mode=False)
    except click.ClickException as error:
        if _turn(error):
            error.show()
        sys.exit(error.exit_code)
    except (click.Abort, KeyboardInterrupt) as error:
        if _turn(error):
            print("\ninterrupted: the same command again goes on from here", file=sys.stderr)
        sys.exit(1)
    except SkdCacheError as error:
        if _turn(error):
            rank = _rank()
            print(f"rank {rank}: error: {error}" if rank else f"error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    sys.exit(status if isinstance(status, int) else 0)


def _turn(error: BaseException) -> bool:
    """Whether this process says what went wrong, after giving way to those that know it better.

    Of processes that fail alike the first one speaks, and torchrun ends the others while they
    wait. Those that miss another process wait the longest: it has the reason.
    """
    rank = _rank()
    if isinstance(error, PeerLostError):
        time.sleep(_GIVE_WAY + _GIVE_WAY)
    elif rank and getattr(error, "everywhere", False):
        return False
    elif rank:
        time.sleep(_GIVE_WAY)
    return True


def _rank() -> int:
    try:
        return World.here().rank
    except InputError:
        return 0  # whoever this is, it must say what is wrong with the variables
