"""Every pipeline that ships is made of options the commands know."""

import importlib.metadata

import pytest

from skd_cache.cli import run
from skd_cache.cli.build import command as build
from skd_cache.cli.distill import command as distill
from skd_cache.errors import InputError
from skd_cache.losses import combine, parse, parse_schedule
from skd_cache.replay import load_policy
from tests.end_to_end.conftest import Desk

NAMES = {
    "cifar100-resnet56-resnet20-dkd",
    "cifar100-resnet56-resnet20-kd",
    "demo",
    "fashion-mnist",
    "imagenet-resnet152-resnet18-spherical",
    "imagenet-resnet34-resnet18-dist",
    "imagenet-resnet34-resnet18-spherical",
}


def test_the_promised_pipelines_ship():
    assert set(run.shipped()) == NAMES


@pytest.mark.parametrize("name", sorted(NAMES))
def test_a_pipeline_holds_options_the_commands_take(name):
    pipeline = run.load(run.find(name))
    assert pipeline.source
    built = build.make_context("build", list(pipeline.build)).params
    load_policy(built["policy"] or "none")
    params = distill.make_context("distill", list(pipeline.distill)).params
    loss = combine([parse(text) for text in params["losses"]])
    for text in params["loss_schedules"]:
        parse_schedule(text).check(loss)
    assert params["dataset"] == built["dataset"]


def test_a_dry_run_prints_both_commands(tmp_path):
    done = Desk(tmp_path).run("run", "imagenet-resnet34-resnet18-dist", "--dry-run")
    assert done.code == 0
    first, second = done.out.splitlines()
    assert "skd-cache build --teacher resnet34" in first
    assert "skd-cache distill" in second
    assert "--loss dist:beta=2,gamma=2,tau=1" in second


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[build]\nteacher = 'a'", "needs the tables"),
        ("nonsense = 1\n[build]\n[distill]", "unknown keys: nonsense"),
        ("[build]\nviews = {a = 1}\n[distill]", "views is text"),
        ("[build", "cannot be read"),
    ],
)
def test_a_wrong_pipeline_file_is_refused(tmp_path, text, says):
    file = tmp_path / "mine.toml"
    file.write_text(text)
    with pytest.raises(InputError, match=says):
        run.load(run.find(str(file)))


def test_the_command_is_installed():
    scripts = importlib.metadata.entry_points(group="console_scripts", name="skd-cache")
    assert [script.value for script in scripts] == ["skd_cache.cli:main"]
