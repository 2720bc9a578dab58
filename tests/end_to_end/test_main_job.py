"""The two commands as a person types them, on real files."""

import json
import shutil
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.end_to_end.conftest import COUNT, Desk, Run, picture

# Any import of the teacher's package fails.
NO_TEACHER = "import sys; sys.modules['skd_cache.teacher'] = None"
# The process tells its peak memory as it ends.
PEAK = """
import atexit, resource, sys
said = lambda: print('peak', resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, file=sys.stderr)
atexit.register(said)
"""


def without_teacher(desk: Desk) -> Run:
    return partial(desk.run, prelude=NO_TEACHER)


def test_build_then_distill_without_the_teacher(desk: Desk):
    built = desk.build()
    assert built.code == 0, built.err
    place = Path(built.out)
    assert place.parent == desk.home
    assert "preflight teacher top-1" in built.err

    desk.weights.unlink()
    done = desk.distill(
        *("--loss", "spherical", "--out", desk.folder / "run"), run=without_teacher(desk)
    )
    assert done.code == 0, done.err
    assert "the most recent in" in done.err
    assert "bound by" in done.err
    assert Path(done.out) == desk.folder / "run" / "student.safetensors"

    measured = desk.run("evaluate", desk.folder / "run", "--data", desk.images, "--json")
    assert measured.code == 0, measured.err
    assert json.loads(measured.out)["top1"] > 0.6


def test_a_second_build_finds_everything_there(built: Desk):
    again = built.build("--codec", "float32")
    assert again.code == 0
    assert "6 already there, 0 to build" in again.err
    more = built.build("--codec", "float32", "--views", "0:3", "--plan")
    assert "6 already there, 3 to build" in more.err


def test_a_build_says_which_caches_are_its_kin(built: Desk):
    (place,) = (path.name for path in built.home.iterdir() if len(path.name) == 16)
    plan = built.build("--codec", "int8", "--plan")
    assert plan.code == 0
    assert f"kin       {place}" in plan.err


def test_a_cache_is_listed_described_and_verified(built: Desk):
    listed = json.loads(built.run("ls", "--json").out)["caches"]
    (row,) = listed
    described = json.loads(built.run("info", row["id"][:4], "--json").out)
    assert described["id"] == row["id"]
    assert described["views"] == [0, 1]
    assert set(described["digest"]) == {"0", "1"}
    assert described["kin"] == row["kin"]
    assert described["statistics"]["rows"] == 2 * COUNT
    verified = built.run("verify", row["id"], "--full", "--json")
    assert verified.code == 0
    assert json.loads(verified.out)["problems"] == []


def test_cached_and_online_runs_end_in_the_same_bytes(built: Desk):
    """V < epochs, a short last batch, validation and checkpoints in between."""
    common = ("--loss", "kd:temperature=2", "--checkpoint-every", 7)
    cached = built.distill(*common, "--out", built.folder / "cached", run=without_teacher(built))
    online = built.distill(
        *common, "--out", built.folder / "online", "--online", "--teacher-weights", built.weights
    )
    assert cached.code == online.code == 0, cached.err + online.err
    ours, theirs = (Path(done.out).read_bytes() for done in (cached, online))
    assert ours == theirs


def test_losses_add_up_and_change_with_the_epochs(built: Desk):
    done = built.distill(
        *("--loss", "spherical", "--loss", "dist:beta=1", "--out", built.folder / "both"),
        *("--schedule-loss", "alpha=0.9@0,0.1@2"),
    )
    assert done.code == 0, done.err


def test_a_cached_run_takes_no_more_memory_than_ce(built: Desk):
    peaks = []
    for loss in ("ce", "spherical"):
        out = built.folder / f"memory-{loss}"
        telling = partial(built.run, prelude=PEAK + NO_TEACHER)
        done = built.distill("--loss", loss, "--out", out, run=telling)
        assert done.code == 0, done.err
        peaks.append(int(done.err.rsplit("peak", 1)[1]))
    assert peaks[1] - peaks[0] < 50 * 1024  # kilobytes


def test_odd_images_go_through_both_stages(desk: Desk):
    folder = desk.images / "train" / "bright"
    image = picture(0, 5)
    image.convert("CMYK").save(folder / "cmyk.jpg")
    image.convert("L").save(folder / "grey.jpg")
    image.convert("P").save(folder / "palette.png")
    image.convert("RGBA").save(folder / "alpha.png")
    image.save(folder / "web.webp")
    turned = Image.Exif()
    turned[0x0112] = 6
    image.save(folder / "turned.jpg", exif=turned)
    image.save(folder / "moving.gif")
    deep = np.asarray(image.convert("L")).astype(np.uint16) << 8
    Image.fromarray(deep).save(folder / "deep.png")
    image.save(desk.folder / "real.png")
    shutil.move(desk.folder / "real.png", folder / "misnamed.JPEG")
    built = desk.build()
    assert built.code == 0, built.err
    assert "4 images went through PIL" in built.err  # the GIF and the 16-bit PNG, twice
    done = desk.distill("--loss", "kd", "--out", desk.folder / "run")
    assert done.code == 0, done.err
    assert "images went through PIL" in done.err


def test_a_packed_dataset_serves_the_folders_cache(built: Desk):
    packed = built.folder / "images.h5"
    assert built.run("pack", "imagefolder", "--data", built.images, "--out", packed).code == 0
    done = built.run(
        *("distill", "--dataset", packed, "--loss", "kd", "--size", 32, "--epochs", 1),
        *("--student", "tests.end_to_end.tiny_nets:student", "--batch-size", 16),
        *("--out", built.folder / "packed-run", "--threads", 1),
    )
    assert done.code == 0, done.err


@pytest.mark.parametrize("changed", ["decoder", "size"])
def test_a_tampered_image_stops_the_student_with_exit_code_3(desk: Desk, changed: str):
    assert desk.build().code == 0
    target = next((desk.images / "train" / "dark").iterdir())
    length = target.stat().st_size
    data = bytearray(target.read_bytes())
    if changed == "size":
        data += b"\0" * 10
        expected = 2  # another dataset, by its fingerprint
    else:
        data[length // 2] ^= 0x55
        expected = 3  # the same files by name and length, other contents
    target.write_bytes(data)
    done = desk.distill("--loss", "kd", "--out", desk.folder / "run")
    assert done.code == expected, done.err
    assert "Traceback" not in done.err
    assert not (desk.folder / "run").exists()
