"""A build that is killed anywhere and run again ends as if nothing had happened."""

import random
import time

import pytest

from tests.build.workshop import Workshop, all_bytes, digests, workshop_in

VIEWS, SHARD = 6, 64
UNITS = 96  # 1,000 samples in 16 shards, six views
KILLED = 137


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory) -> Workshop:
    workshop = workshop_in(tmp_path_factory.mktemp("undisturbed"), VIEWS, SHARD)
    workshop.build()
    assert len(workshop.committed()) == len(workshop.begun()) == UNITS
    return workshop


def assert_equal(ours: Workshop, theirs: Workshop) -> None:
    assert digests(ours.cache()) == digests(theirs.cache())
    folders = (next(workshop.folder.iterdir()) for workshop in (ours, theirs))
    assert all_bytes(next(folders)) == all_bytes(next(folders))


def test_a_kill_between_any_two_puts_costs_the_unit_alone(undisturbed, tmp_path):
    points: list[str] = []
    workshop_in(tmp_path / "points", VIEWS, SHARD).build(units=1, fault=points.append)
    of_unit = len(points) - len(points_of_creation(points))
    assert of_unit >= 24

    workshop = workshop_in(tmp_path, VIEWS, SHARD)
    workshop.build(units=1)
    for fault in range(1, of_unit + 1):
        before, begun = workshop.committed(), len(workshop.begun())
        process = workshop.start(fault)
        process.join()
        assert process.exitcode == KILLED
        assert not before & set(workshop.begun()[begun:]), "a committed unit was computed again"
        assert before <= workshop.committed()
    workshop.build()
    assert_equal(workshop, undisturbed)


def points_of_creation(points: list[str]) -> list[str]:
    first = next(at for at, point in enumerate(points) if "view/00000" in point)
    return points[:first]


def test_twenty_sigkills_at_random_moments_change_nothing(undisturbed, tmp_path):
    workshop = workshop_in(tmp_path, VIEWS, SHARD)
    moments = random.Random(20)
    for _ in range(20):
        before, begun = workshop.committed(), len(workshop.begun())
        process = workshop.start()
        while process.is_alive() and len(workshop.begun()) == begun:
            time.sleep(0.002)
        time.sleep(moments.uniform(0, 0.1))
        process.kill()
        process.join()
        assert process.exitcode == -9, "it must be killed while it is at work"
        assert not before & set(workshop.begun()[begun:]), "a committed unit was computed again"
    workshop.build()
    assert_equal(workshop, undisturbed)
    assert list(workshop.cache().verify(full=True)) == []
