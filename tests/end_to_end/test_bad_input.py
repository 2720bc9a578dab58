"""Wrong input gets one sentence and exit code 2; nothing is half-written."""

import os
from pathlib import Path

import pytest

from tests.end_to_end.conftest import Desk, Finished, write_teacher


def refused(done: Finished, *says: str, code: int = 2) -> None:
    assert done.code == code, done.err
    assert "Traceback" not in done.err
    (sentence,) = [line for line in done.err.splitlines() if line.lower().startswith("error: ")]
    for part in says:
        assert part in sentence, sentence


def test_a_missing_folder_says_where_it_looked_and_what_it_wants(desk: Desk):
    refused(desk.build("--data", desk.folder / "nowhere", run=desk.call), "nowhere")
    assert not desk.home.exists() or not list(desk.home.glob("?" * 16))


def test_an_empty_folder(desk: Desk):
    (desk.folder / "empty").mkdir()
    refused(desk.build("--data", desk.folder / "empty", run=desk.call), "empty")


def test_a_flat_val_folder(desk: Desk):
    for file in list((desk.images / "val").rglob("*.jpg")):
        file.rename(desk.images / "val" / f"{file.parent.name}-{file.name}")
    for folder in (desk.images / "val").iterdir():
        if folder.is_dir():
            folder.rmdir()
    refused(desk.build("--dataset", "imagenet", run=desk.call), "val")


def test_an_unreadable_image_is_named_and_all_of_them_by_check(desk: Desk):
    bright = sorted((desk.images / "train" / "bright").iterdir())
    bright[3].write_bytes(b"no image at all")
    bright[5].write_bytes(b"")
    refused(desk.build(run=desk.call), str(bright[3]), "--check")
    done = desk.call("index", "imagefolder", "--data", desk.images, "--check")
    assert done.code == 3
    assert bright[3].name in done.out
    assert bright[5].name in done.out


def test_an_image_that_fails_in_mid_build_is_named_and_what_was_committed_stays(desk: Desk):
    whole = desk.build("--plan", run=desk.call)
    assert whole.code == 0
    target = desk.images / "train" / "striped" / "149.jpg"
    data = target.read_bytes()
    target.write_bytes(data[:400])  # the header is whole, the picture is not
    first = desk.build("--policy", "none", run=desk.call)
    refused(first, "149.jpg")
    target.write_bytes(data)
    again = desk.build("--policy", "none", run=desk.call)
    assert again.code == 0, again.err


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--teacher", "resnet512"], ["resnet512", "nearest"]),
        (["--teacher", "tests.end_to_end.tiny_nets:techer"], ["techer", "teacher"]),
        (["--policy", "rrc-flop"], ["rrc-flop", "rrc-flip"]),
        (["--codec", "int7"], ["int7", "int8"]),
        (["--device", "cuda:7"], ["cuda:7", "cpu"]),
        (["--teacher-weights", "missing.pt"], ["missing.pt"]),
        (["--shard", "100", "--batch-size", "7"], ["100", "7"]),
        (["--shard", "80", "--batch-size", "16"], ["80", "64"]),
        (["--out", "/sys/skd-cache" if os.geteuid() == 0 else "/skd-cache"], ["skd-cache"]),
        (["--dataset", "imagenette"], ["imagenette", "imagenet"]),
    ],
)
def test_a_wrong_option_of_build(desk: Desk, options: list[str], says: list[str]):
    refused(desk.build(*options, run=desk.call), *says)
    assert not list(desk.home.glob("*/recipe.json"))


def test_a_teacher_of_other_classes_or_weights_that_do_not_fit(desk: Desk):
    write_teacher(desk.weights, classes=5)
    refused(desk.build(run=desk.call), "5", "3")
    desk.weights.write_bytes(b"these are no weights")
    refused(desk.build(run=desk.call), "teacher.safetensors")


def test_a_disk_too_small_is_said_before_the_first_unit(desk: Desk):
    small = (
        "import shutil\nreal = shutil.disk_usage\n"
        "shutil.disk_usage = lambda path: real(path)._replace(free=1000)"
    )
    done = desk.run(
        *("build", "--teacher", "tests.end_to_end.tiny_nets:teacher", "--dataset", "imagefolder"),
        *("--teacher-weights", desk.weights, "--data", desk.images, "--size", 32, "--views", 2),
        *("--batch-size", 16, "--shard", 64),
        prelude=small,
    )
    refused(done, "more and its disk has", "free")
    assert not list(desk.home.glob("*/recipe.json"))


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--loss", "sperical"], ["sperical", "spherical"]),
        (["--loss", "kd:temprature=4"], ["temprature", "temperature"]),
        (["--loss", "kd", "--schedule-loss", "gamma=1@0"], ["gamma"]),
        (["--loss", "kd", "--student", "resnet19"], ["resnet19", "resnet18"]),
        (["--loss", "kd", "--views", "5:7"], ["view 5", "0 to 1"]),
        (["--loss", "kd", "--cache", "pyproject.toml"], ["pyproject.toml"]),
        (["--loss", "kd", "--cache", "feedfeedfeed"], ["feedfeedfeed"]),
        (["--loss", "kd", "--device", "cuda:9"], ["cuda:9", "cpu"]),
        (["--loss", "kd", "--batch-size", "100000"], ["100,000"]),
        (["--loss", "kd", "--milestones", "a,b"], ["milestones"]),
    ],
)
def test_a_wrong_option_of_distill(built: Desk, options: list[str], says: list[str]):
    out = built.folder / "refused"
    refused(built.distill(*options, "--out", out, run=built.call), *says)
    assert not out.exists()


def test_a_cache_for_another_dataset_names_the_field(built: Desk, desk: Desk):
    (place,) = (path for path in built.home.iterdir() if len(path.name) == 16)
    next((desk.images / "train" / "dark").iterdir()).unlink()
    done = desk.distill(
        "--loss", "kd", "--cache", place, "--out", desk.folder / "run", run=desk.call
    )
    refused(done, "samples", "150", "149")


def test_a_damaged_cache_is_exit_code_3(desk: Desk):
    built = desk.build(run=desk.call)
    assert built.code == 0, built.err
    shard = next(Path(built.out).glob("logits.zarr/view/00000/code/c/0/*"))
    data = bytearray(shard.read_bytes())
    data[len(data) // 2] ^= 1
    shard.write_bytes(data)
    refused(
        desk.distill("--loss", "kd", "--out", desk.folder / "run", run=desk.call), "view 0", code=3
    )
    assert desk.call("verify", built.out).code == 0  # sizes are right
    assert desk.call("verify", built.out, "--full").code == 3


def test_no_cache_at_all_says_what_to_do(desk: Desk):
    refused(desk.distill("--loss", "kd", run=desk.call), "skd-cache build")


def test_a_path_that_is_no_cache(desk: Desk):
    for command in ("info", "verify"):
        refused(desk.call(command, desk.images), "images")
