"""One team builds once: the commands, against a folder and an S3 server."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from tests.end_to_end.conftest import Desk, Finished
from tests.end_to_end.test_bad_input import refused
from tests.share.server import S3Server


@pytest.fixture
def team(desk: Desk) -> Desk:
    """A desk whose registry is a folder."""
    folder = desk.folder / "team"
    folder.mkdir()
    return replace(desk, extra={"SKD_CACHE_REGISTRY": str(folder)})


@pytest.fixture
def bucket(desk: Desk):
    server = S3Server()
    server.make_bucket("team")
    extra = {
        "SKD_CACHE_REGISTRY": "s3://team/distillation",
        "AWS_ENDPOINT_URL": server.url,
        "AWS_ACCESS_KEY_ID": "a",
        "AWS_SECRET_ACCESS_KEY": "b",
        "AWS_REGION": "us-east-1",
    }
    yield replace(desk, extra=extra)
    server.stop()


def build(desk: Desk, *more: object) -> Finished:
    return desk.build("--codec", "float32", "--views", "2", *more, run=desk.call)


def told(desk: Desk, *arguments: object) -> dict:
    done = desk.call("info", *arguments, "--json")
    assert done.code == 0, done.err
    return json.loads(done.out)


def test_a_teams_day(bucket: Desk):
    """One builds and pushes, another's same command computes nothing, a third pulls by pin."""
    done = build(bucket, "--push")
    assert done.code == 0, done.err
    mine = told(bucket, Path(done.out).name)
    there = told(bucket, mine["id"], "--registry", "s3://team/distillation")
    assert there["digest"] == mine["digest"]
    assert there["location"].startswith("s3://")
    listed = json.loads(bucket.call("ls", "--registry", "--json").out)
    assert [row["id"] for row in listed["caches"]] == [mine["id"]]

    shutil.rmtree(bucket.home)
    assert told(bucket, mine["id"][:6])["pins"] == mine["pins"], "asked without downloading"
    assert not bucket.home.exists() or not (bucket.home / mine["id"]).exists()
    again = build(bucket)
    assert again.code == 0, again.err
    assert "pulled" in again.err
    assert "computed" not in again.err
    assert "preflight" not in again.err
    assert told(bucket, mine["id"])["digest"] == mine["digest"]

    shutil.rmtree(bucket.home)
    (pin,) = mine["pins"]
    pulled = bucket.call("pull", pin)
    assert pulled.code == 0, pulled.err
    assert told(bucket, pulled.out)["digest"] == mine["digest"]
    shutil.rmtree(bucket.home)
    refused(bucket.call("pull", pin.replace("0:2", "0:1")), "other data than the pin", code=3)
    assert not (bucket.home / mine["id"]).exists()


def test_a_build_straight_into_a_bucket(bucket: Desk):
    done = build(bucket, "--out", "s3://team/elsewhere")
    assert done.code == 0, done.err
    alone = build(bucket, "--registry", "none")
    assert told(bucket, done.out)["digest"] == told(bucket, alone.out)["digest"]
    again = build(bucket, "--out", "s3://team/elsewhere")
    assert "0 to build" in again.err


def test_build_pulls_what_exists_and_builds_the_rest(team: Desk):
    first = build(team)
    cache = Path(first.out).name
    assert team.call("push", cache, "--views", "0:1").code == 0
    whole = told(team, cache)["digest"]
    shutil.rmtree(team.home)
    plan = build(team, "--plan")
    assert plan.code == 0, plan.err
    assert "of the units to build" in plan.err
    assert not (team.home / cache).exists()
    done = build(team, "--push")
    assert "pulled" in done.err
    assert told(team, cache)["digest"] == whole
    there = told(team, cache, "--registry", team.extra["SKD_CACHE_REGISTRY"])
    assert there["digest"] == whole


def test_kin_in_the_registry_is_named(team: Desk):
    first = build(team, "--push")
    done = team.build("--codec", "float16", "--views", "1", "--plan", run=team.call)
    assert f"{Path(first.out).name} in the registry" in done.err


def test_what_was_created_apart_is_refused_and_new_gives_it_a_name(team: Desk):
    """Another basis under the same id: here, another last layer's bytes in the same place."""
    first = build(team, "--push")
    cache = Path(first.out).name
    spoil_basis(Path(team.extra["SKD_CACHE_REGISTRY"]) / cache)
    refused(build(team, "--push"), "were created apart", "--new")
    refused(team.call("push", cache), "were created apart", "--new")
    own = build(team, "--push", "--new")
    assert own.code == 0, own.err
    assert Path(own.out).name != cache
    assert told(team, own.out)["recipe"]["variant"] == 1
    assert build(team, "--push", "--new").out == own.out, "the same command goes on"


def spoil_basis(folder: Path) -> None:
    """Have the cache at a folder hold other contents, and no views."""
    import numpy as np

    from skd_cache.store import create_cache, open_cache

    cache = open_cache(folder)
    recipe, labels, weight = cache.recipe, cache.labels, cache.class_weight
    contents = cache.contents + np.uint64(1)
    shutil.rmtree(folder)
    create_cache(
        folder, recipe, labels=labels, contents=contents, class_weight=weight, provenance={}
    )


def test_the_registry_is_named_by_option_variable_and_setting(desk: Desk):
    bare = {"XDG_CONFIG_HOME": str(desk.folder / "config")}
    desk = replace(desk, extra=bare)

    def where(extra: dict, *more: str) -> str:
        other = replace(desk, extra={**bare, **extra})
        environment = other.environment()
        if "SKD_CACHE_REGISTRY" not in extra:
            environment.pop("SKD_CACHE_REGISTRY")
        object.__setattr__(other, "environment", lambda: environment)
        done = other.call("ls", "--json", "--registry", *more)
        return json.loads(done.out)["folder"] if done.code == 0 else done.err

    for name in ("option", "variable", "setting"):
        (desk.folder / name).mkdir()
    assert "no registry is named" in where({})
    assert desk.call("config", "set", "registry", desk.folder / "setting").code == 0
    assert desk.call("config", "get", "registry").out == str(desk.folder / "setting")
    assert where({}) == str(desk.folder / "setting")
    variable = {"SKD_CACHE_REGISTRY": str(desk.folder / "variable")}
    assert where(variable) == str(desk.folder / "variable")
    assert where(variable, str(desk.folder / "option")) == str(desk.folder / "option")
    assert "no registry is named" in where({"SKD_CACHE_REGISTRY": "none"})
    assert "setting" in desk.call("config", "list").out
    assert desk.call("config", "unset", "registry").code == 0
    refused(desk.call("config", "get", "registry"), "is not set")
    refused(desk.call("config", "set", "registry", "ftp://x"), "ftp")


@pytest.mark.parametrize(
    ("line", "says"),
    [
        (("pull", "3f9a@0:10:sha256:short"), "is no pin"),
        (("pull", "../../etc"), "there is no cache"),
        (("pull", "0" * 16), "there is no cache"),
        (("push", "0" * 16), "there is no cache"),
        (("ls", "/tmp", "--registry"), "either"),
        (("push", "3f9a", "--registry", "s3:/x"), "there is no cache"),
    ],
)
def test_wrong_input_is_one_sentence(team: Desk, line: tuple, says: str):
    refused(team.call(*line), says)
