"""An S3 server for all tests of sharing, a bucket for each, a proxy before it for some."""

import itertools

import pytest

from tests.share.server import Proxy, S3Server
from tests.store.small_cache import create, fill

VIEWS = 2
_NUMBERS = itertools.count()


@pytest.fixture(scope="session")
def server():
    running = S3Server()
    yield running
    running.stop()


@pytest.fixture
def environment(monkeypatch, tmp_path):
    """As on a machine where nothing is set, with retries that end soon."""
    for name in ("AWS_PROFILE", "AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT", "SKD_CACHE_REGISTRY"):
        monkeypatch.delenv(name, raising=False)
    settings = {
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_REGION": "us-east-1",
        "SKD_CACHE_RETRY_SECONDS": "5",
        "SKD_CACHE_HOME": str(tmp_path / "home"),
        "XDG_CONFIG_HOME": str(tmp_path / "config"),
        "HOME": str(tmp_path),
    }
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    return monkeypatch


@pytest.fixture
def bucket(server, environment):
    """The URL of a registry on the server."""
    name = f"team-{next(_NUMBERS)}"
    server.make_bucket(name)
    environment.setenv("AWS_ENDPOINT_URL", server.url)
    return f"s3://{name}/distillation"


@pytest.fixture
def proxy(server, bucket, environment):  # noqa: ARG001
    """What stands between us and the server; faults are set by the test."""
    running = Proxy(server)
    environment.setenv("AWS_ENDPOINT_URL", running.url)
    yield running
    running.stop()


@pytest.fixture
def cache(tmp_path):
    """A cache of two views on this machine."""
    made = create(tmp_path / "made")
    fill(made, VIEWS)
    return made
