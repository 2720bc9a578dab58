"""``skd-cache run``: both stages as a pipeline file says."""

import importlib.resources
import shlex
import subprocess
import sys
import tomllib
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import click

from skd_cache.errors import InputError, SkdCacheError
from skd_cache.world import World

_SAYINGS = ("about", "source", "published")


@dataclass(frozen=True)
class Pipeline:
    """A run of both stages: what it is for, and the options of its two commands."""

    about: str
    source: str
    published: str | None
    build: list[str]
    distill: list[str]


def shipped() -> dict[str, Path]:
    """The pipelines that come with the package, by name."""
    folder = Path(str(importlib.resources.files("skd_cache.pipelines")))
    return {path.stem: path for path in sorted(folder.glob("*.toml"))}


def find(name_or_file: str) -> Path:
    """The file of a pipeline.

    Raises:
        InputError: if there is neither such a pipeline nor such a file.
    """
    named = shipped()
    if name_or_file in named:
        return named[name_or_file]
    path = Path(name_or_file)
    if path.is_file():
        return path
    near = get_close_matches(name_or_file, named, 1)
    hint = f"did you mean {near[0]}? known" if near else "known"
    raise InputError(f"no pipeline {name_or_file!r} ({hint}: {', '.join(named)}, or a .toml file)")


def load(path: Path) -> Pipeline:
    """Read a pipeline; relative policy files are looked up beside it.

    Raises:
        InputError: if the file is not TOML, or not of a pipeline's form.
    """
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise InputError(f"the pipeline {path} cannot be read: {error}") from error
    stages = {key: values.pop(key, None) for key in ("build", "distill")}
    if not all(isinstance(stage, dict) for stage in stages.values()):
        raise InputError(f"the pipeline {path} needs the tables [build] and [distill]")
    if unknown := set(values) - set(_SAYINGS):
        raise InputError(f"the pipeline {path} has unknown keys: {', '.join(sorted(unknown))}")
    beside = stages["build"].get("policy")
    if isinstance(beside, str) and (path.parent / beside).is_file():
        stages["build"]["policy"] = str(path.parent / beside)
    said = (values.get(key) for key in _SAYINGS)
    about, source, published = (None if text is None else str(text) for text in said)
    arguments = {stage: _arguments(path, options) for stage, options in stages.items()}
    return Pipeline(about or path.stem, source or "", published, **arguments)


def _arguments(path: Path, options: dict[str, Any]) -> list[str]:
    arguments = []
    for key, value in options.items():
        if value is True:
            arguments.append(f"--{key}")
            continue
        for one in value if isinstance(value, list) else [value]:
            if isinstance(one, dict | bool):
                raise InputError(f"the pipeline {path}: {key} is text, a number, a list or true")
            arguments += [f"--{key}", str(one)]
    return arguments


@click.command(no_args_is_help=True)
@click.argument("pipeline")
@click.option("--data", help="Where the dataset lies, for both stages.")
@click.option("--device", help="cpu, cuda or cuda:N, for both stages.")
@click.option("--out", help="The run's folder.")
@click.option("--dry-run", is_flag=True, help="Print both commands and stop.")
def command(
    pipeline: str, data: str | None, device: str | None, out: str | None, dry_run: bool
) -> None:
    """Build and distill as PIPELINE says: a name from the list below, or a .toml file.

    Both stages resume: the same command again goes on where it stopped.

    \b
    Examples:
      skd-cache run demo
      skd-cache run imagenet-resnet34-resnet18-dist --data /data/imagenet --dry-run
    """
    chosen = load(find(pipeline))
    both = [f"--{key}={value}" for key, value in (("data", data), ("device", device)) if value]
    build = ["build", *chosen.build, *both]
    distill = ["distill", *chosen.distill, *both, "--out", out or f"runs/{Path(pipeline).stem}"]
    for text in (chosen.about, f"settings from: {chosen.source}"):
        click.echo(f"# {text}", err=True)
    if chosen.published:
        click.echo(f"# published top-1 %: {chosen.published}", err=True)
    if dry_run:
        click.echo(f"CACHE=$(skd-cache {shlex.join(build)})")
        click.echo(f'skd-cache {shlex.join(distill)} --cache "$CACHE"')
        return
    if World.here().size > 1:
        raise InputError(
            "run starts one process per stage: --dry-run prints both commands, and torchrun "
            "starts each of them as `torchrun … -m skd_cache build …`"
        )
    cache = _stage(build, capture=True)
    _stage([*distill, "--cache", cache], capture=False)


def _stage(arguments: list[str], *, capture: bool) -> str:
    """Run one stage as a process of its own, so that nothing of it stays in memory."""
    click.echo(f"$ skd-cache {shlex.join(arguments)}", err=True)
    # The user's own words, run without a shell.
    line = [sys.executable, "-m", "skd_cache", *arguments]
    done = subprocess.run(line, stdout=subprocess.PIPE if capture else None, text=True, check=False)  # noqa: S603
    if done.returncode:
        raise _StageError(done.returncode, arguments[0])
    return done.stdout.strip() if capture else ""


class _StageError(SkdCacheError):
    """A stage failed and has said why; its exit code is handed on."""

    def __init__(self, exit_code: int, stage: str) -> None:
        super().__init__(f"the {stage} stage failed (see above)")
        self.exit_code = exit_code if exit_code in (2, 3) else 1


command.epilog = "\b\nPipelines:\n" + "\n".join(f"  {name}" for name in shipped())
