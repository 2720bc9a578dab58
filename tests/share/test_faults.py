"""What networks and servers do to us: it is tried again, or said, and never becomes wrong data."""

import random
import re
from contextlib import suppress

import pytest

from skd_cache.errors import DataError, InputError, SkdCacheError
from skd_cache.share import Registry, push
from skd_cache.store import open_cache
from skd_cache.store.claim import Builder, Claims
from skd_cache.store.objects import Objects
from tests.share.test_team import digests, pull_all, quiet

DATA = re.compile(r"/c/\d|/stage/.*/[0-9a-f]{64}$")


def sometimes(fault, seed=1, share=0.2):
    """This fault for some of the requests, never twice in a row for the same."""
    draw, spared = random.Random(seed), set()

    def choose(seen):
        key = (seen.method, seen.path)
        if key in spared or draw.random() > share:
            spared.discard(key)
            return ""
        spared.add(key)
        return fault

    return choose


def of_data(fault):
    return lambda seen: fault if DATA.search(seen.path) else ""


@pytest.mark.parametrize("fault", ["reset", "lost", "503", "slow", "truncated"])
def test_what_passes_is_tried_again(cache, proxy, bucket, tmp_path, fault):
    proxy.fault = sometimes(fault)
    push(cache.location, Registry(bucket), None, quiet)
    pull_all(cache, bucket, tmp_path / "home")
    proxy.fault = lambda _seen: ""
    for place in (tmp_path / "home" / cache.id, Registry(bucket).objects(cache.id)):
        found = open_cache(place)
        assert digests(found) == digests(cache)
        assert list(found.verify(full=True)) == []


@pytest.mark.parametrize("fault", ["flipped", "cut"])
def test_a_damaged_answer_is_asked_for_again(cache, proxy, bucket, tmp_path, fault):
    push(cache.location, Registry(bucket), None, quiet)
    some = sometimes(fault, share=0.5)
    proxy.fault = lambda seen: some(seen) if DATA.search(seen.path) else ""
    found = open_cache(pull_all(cache, bucket, tmp_path / "home").location)
    assert digests(found) == digests(cache)
    assert list(found.verify(full=True)) == []


@pytest.mark.parametrize("fault", ["flipped", "cut"])
def test_a_store_that_only_gives_damaged_data_is_exit_code_3(cache, proxy, bucket, tmp_path, fault):
    push(cache.location, Registry(bucket), None, quiet)
    proxy.fault = of_data(fault)
    with pytest.raises(DataError, match="is not what was committed"):
        pull_all(cache, bucket, tmp_path / "home")
    commits = list((tmp_path / "home").rglob("commit/0*/*.json"))
    assert commits == []


@pytest.mark.parametrize("seed", range(6))
def test_any_answer_may_be_damaged(cache, proxy, bucket, tmp_path, seed):
    """Documents too: no pull ends well with anything but what was pushed."""
    push(cache.location, Registry(bucket), None, quiet)
    draw = random.Random(seed)
    proxy.fault = lambda _seen: draw.choice(["", "", "", "flipped", "cut", "truncated"])
    with suppress(SkdCacheError):
        pull_all(cache, bucket, tmp_path / "home")
    proxy.fault = lambda _seen: ""
    pull_all(cache, bucket, tmp_path / "home")
    found = open_cache(tmp_path / "home" / cache.id)
    assert digests(found) == digests(cache)
    assert list(found.verify(full=True)) == []


def test_what_is_damaged_on_its_way_there_is_not_committed(cache, proxy, bucket):
    proxy.fault = lambda seen: "flipped-up" if DATA.search(seen.path) else ""
    with pytest.raises(DataError, match="does not read back as written"):
        push(cache.location, Registry(bucket), None, quiet)
    objects = Registry(bucket).objects(cache.id)
    assert [one.name for one in objects.list("commit")] == []
    proxy.fault = lambda _seen: ""
    push(cache.location, Registry(bucket), None, quiet)
    assert list(open_cache(objects).verify(full=True)) == []


def test_what_the_server_proves_to_have_is_not_read_back(cache, proxy, bucket):
    push(cache.location, Registry(bucket), None, quiet)
    read = [one for one in proxy.seen if one.method == "GET" and DATA.search(one.path)]
    assert read == []


@pytest.mark.parametrize(
    ("denied", "action"),
    [("PUT", "s3:PutObject"), ("GET", "s3:GetObject"), ("POST", "s3:DeleteObject")],
)
def test_a_denied_action_is_named_in_one_sentence(cache, proxy, bucket, denied, action):
    proxy.fault = lambda seen: "403" if seen.method == denied else ""
    with pytest.raises(InputError, match=f"not allowed to .* lack {action}$"):
        push(cache.location, Registry(bucket), None, quiet)


def test_a_reader_needs_no_more_than_get_and_list(cache, proxy, bucket, tmp_path):
    push(cache.location, Registry(bucket), None, quiet)
    proxy.fault = lambda seen: "" if seen.method in ("GET", "HEAD") else "403"
    pull_all(cache, bucket, tmp_path / "home")


def test_a_server_that_ignores_create_if_absent_is_found_out(cache, proxy, bucket, tmp_path):
    push(cache.location, Registry(bucket), range(1), quiet)
    proxy.fault = lambda _seen: "unconditional"
    with pytest.raises(InputError, match="If-None-Match is ignored"):
        push(cache.location, Registry(bucket), None, quiet)
    pull_all(cache, bucket, tmp_path / "home")
    assert Objects(bucket).folders() == [cache.id], "the canary was left behind"


def test_a_claim_whose_answer_was_lost_is_still_ours(proxy, bucket):
    objects = Objects(f"{bucket}/{'0' * 16}")
    lost = []

    def lose_first(seen):
        if seen.method == "PUT" and "/claim/00000" in seen.path and not lost:
            lost.append(seen)
            return "lost"
        return ""

    proxy.fault = lose_first
    with Claims(objects) as ours, Claims(objects, Builder.here()) as theirs:
        assert ours.take("00000/00000")
        assert lost
        assert not theirs.take("00000/00000")


def test_plain_http_is_for_this_machine_only(environment):
    environment.setenv("AWS_ENDPOINT_URL", "http://minio.example.com:9000")
    with pytest.raises(InputError, match="unencrypted to another machine"):
        Registry("s3://team/x").caches()
    with pytest.raises(InputError, match="unencrypted to another machine"):
        Registry("http://minio.example.com/x").caches()


def test_a_server_that_is_not_there_is_one_sentence(environment):
    environment.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    environment.setenv("SKD_CACHE_RETRY_SECONDS", "0.5")
    with pytest.raises(SkdCacheError, match=r"^could not list s3://team/x: [^\n]*$"):
        Registry("s3://team/x").caches()


def test_a_profile_is_read_by_boto3(environment, bucket, tmp_path):
    environment.delenv("AWS_ACCESS_KEY_ID")
    environment.delenv("AWS_SECRET_ACCESS_KEY")
    environment.setenv("AWS_PROFILE", "team")
    with pytest.raises(InputError, match="AWS_PROFILE=team gives no credentials"):
        Registry(bucket).caches()
    (tmp_path / ".aws").mkdir()
    told = "[team]\naws_access_key_id = a\naws_secret_access_key = b\n"
    (tmp_path / ".aws" / "credentials").write_text(told)
    assert Registry(bucket).caches() == []
