"""``skd-cache config``: what is set for good on this machine."""

import click

from skd_cache.errors import InputError
from skd_cache.share.settings import (
    KEYS,
    REGISTRY,
    check_registry,
    read_settings,
    settings_file,
    write_settings,
)

_KEY = click.argument("key", type=click.Choice(list(KEYS)))


@click.group(no_args_is_help=True)
def command() -> None:
    """Show and change what is set for good.

    \b
    Examples:
      skd-cache config set registry s3://team/distillation
      skd-cache config list
    """


@command.command("get")
@_KEY
def get(key: str) -> None:
    """Print what KEY is set to."""
    found = read_settings().get(key)
    if found is None:
        raise InputError(f"{key} is not set in {settings_file()}")
    click.echo(found)


@command.command("set")
@_KEY
@click.argument("value")
def set_(key: str, value: str) -> None:
    """Set KEY to VALUE."""
    write_settings(read_settings() | {key: check_registry(value) if key == REGISTRY else value})


@command.command("unset")
@_KEY
def unset(key: str) -> None:
    """Forget what KEY is set to."""
    write_settings({name: value for name, value in read_settings().items() if name != key})


@command.command("list")
def list_() -> None:
    """Print all that is set, and what could be."""
    found = read_settings()
    for key, meaning in KEYS.items():
        click.echo(f"{key} = {found[key]}" if key in found else f"{key} is not set ({meaning})")
