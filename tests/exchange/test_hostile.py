"""Nothing in an exported file is trusted: one sentence, exit code 2 or 3, nothing half-imported."""

import json
import os
import random
import shutil
import zlib

import h5py
import numpy as np
import pytest

from skd_cache.errors import DataError, InputError
from skd_cache.exchange import Dense, Top, export_views, restore
from tests.store.small_cache import CLASSES, SAMPLES, create, fill, make_recipe


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    folder = tmp_path_factory.mktemp("exported")
    cache = create(folder)
    fill(cache)
    export_views(cache, Dense(CLASSES), folder / "hdf5.h5", [0])
    export_views(cache, Top(CLASSES, 3), folder / "topk.h5", [0])
    return folder


@pytest.fixture
def file(exported, tmp_path):
    return shutil.copy(exported / "hdf5.h5", tmp_path / "out.h5")


def refused(file, says, kind=DataError, *, before_writing=True):
    home = file.parent / "home"
    with pytest.raises(kind, match=says) as caught:
        restore(file, str(home))
    assert "\n" not in str(caught.value)
    if before_writing:
        assert not home.exists()
    assert not list(home.glob("*/commit/00000/00001.json"))


def replace(file, name, **made):
    """Put another array in the place of one."""
    with h5py.File(file, "r+") as h5:
        del h5[name]
        h5.create_dataset(name, **made)


def test_what_is_no_export_is_wrong_input(tmp_path):
    (tmp_path / "text.h5").write_text("no HDF5")
    refused(tmp_path / "text.h5", "not a readable HDF5 file", InputError)
    with h5py.File(tmp_path / "other.h5", "w") as h5:
        h5["data"] = np.arange(3)
    refused(tmp_path / "other.h5", "not made by skd-cache export", InputError)
    refused(tmp_path / "missing.h5", "there is no file", InputError)
    refused(tmp_path, "there is no file", InputError)
    os.mkfifo(tmp_path / "pipe.h5")
    refused(tmp_path / "pipe.h5", "there is no file", InputError)


def test_another_version_is_wrong_input(file):
    with h5py.File(file, "r+") as h5:
        h5.attrs["version"] = 2
    refused(file, "version 2", InputError)


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9, 0.999])
def test_a_file_that_is_cut_off(file, share):
    os.truncate(file, int(file.stat().st_size * share))
    refused(file, "HDF5|damaged", (InputError, DataError))


@pytest.mark.parametrize(
    "recipe",
    [
        b"{}",
        b"not json",
        b"",
        b"[" * 60_000,
        json.dumps({"format": 1, "shard": 2**40}).encode(),
    ],
)
def test_a_recipe_that_is_none(file, recipe):
    with h5py.File(file, "r+") as h5:
        h5.attrs["recipe"] = np.bytes_(recipe)
    refused(file, "recipe")


@pytest.mark.parametrize("changed", [{"samples": 2**31}, {"samples": 301}, {"classes": 2**14}])
def test_a_recipe_that_claims_more_than_there_is(file, changed):
    recipe = make_recipe()
    dataset = recipe.dataset.model_copy(update=changed)
    larger = recipe.model_copy(update={"dataset": dataset})
    with h5py.File(file, "r+") as h5:
        h5.attrs["recipe"] = np.bytes_(larger.canonical())
    refused(file, "the recipe says|more than 100,000 shards")


def test_a_recipe_that_is_a_text_of_any_length(file):
    with h5py.File(file, "r+") as h5:
        del h5.attrs["recipe"]
        h5.attrs["recipe"] = make_recipe().canonical().decode()
    refused(file, "attribute recipe")


@pytest.mark.parametrize("codec", ["int8", "float32", "klt", "topk:7", "topk:0", "topk:x", "", "ü"])
def test_a_codec_that_no_export_has(file, codec):
    with h5py.File(file, "r+") as h5:
        h5.attrs["codec"] = np.bytes_(codec.encode() or b" ")
    refused(file, "damaged")


LOGITS = "view/00000/logits"


def test_links_to_other_places(file):
    other = file.with_name("other.h5")
    with h5py.File(other, "w") as h5:
        h5["label"] = np.zeros(SAMPLES, np.int32)
    for link in (h5py.ExternalLink(str(other), "/label"), h5py.SoftLink("/content")):
        with h5py.File(file, "r+") as h5:
            del h5["label"]
            h5["label"] = link
        refused(file, "label is a link")


def test_rows_that_lie_in_another_file(file):
    secret = file.with_name("secret")
    secret.write_bytes(b"x" * SAMPLES * 4)
    outside = [(str(secret), 0, SAMPLES * 4)]
    replace(file, "label", shape=(SAMPLES,), dtype="i4", external=outside)
    refused(file, "stored in another file")


def test_a_virtual_array(file):
    layout = h5py.VirtualLayout((SAMPLES,), "i4")
    layout[:] = h5py.VirtualSource(str(file), "label", (SAMPLES,))
    with h5py.File(file, "r+") as h5:
        del h5["label"]
        h5.create_virtual_dataset("label", layout)
    refused(file, "stored in another file")


@pytest.mark.parametrize(
    "made",
    [
        {"shape": (2**40, CLASSES), "dtype": "f2", "chunks": (1024, CLASSES)},
        {"shape": (SAMPLES, CLASSES), "dtype": "f4"},
        {"shape": (SAMPLES, CLASSES), "dtype": ">f2"},
        {"shape": (SAMPLES,), "dtype": "f2"},
        {"shape": (SAMPLES, CLASSES), "dtype": h5py.string_dtype()},
        {"shape": (SAMPLES, CLASSES), "dtype": h5py.ref_dtype},
    ],
)
def test_an_array_of_another_shape_or_type(file, made):
    replace(file, LOGITS, **made)
    refused(file, "the recipe says")


def test_an_array_without_its_bytes(file):
    replace(file, LOGITS, shape=(SAMPLES, CLASSES), dtype="f2")
    refused(file, "cut off")


@pytest.mark.parametrize(
    "packing",
    [
        {"compression": "gzip"},
        {"compression": "lzf"},
        {"shuffle": True},
        {"scaleoffset": 0},
        {"fletcher32": True},
    ],
)
def test_filters_that_export_never_uses(file, packing):
    replace(file, "view/00000/sample", data=np.arange(SAMPLES, dtype=np.int32), **packing)
    refused(file, "compressed or filtered")


def test_a_compressed_array_in_one_large_chunk(file):
    cache = create(file.parent / "large", make_recipe(classes=1000))
    fill(cache)
    large, name, shape = file.with_name("large.h5"), "view/00000/correction", (SAMPLES, 1000)
    export_views(cache, Dense(1000), large, [0])
    replace(large, name, shape=shape, dtype="i2", chunks=shape, compression=4)
    refused(large, "chunks that export never makes")


@pytest.mark.parametrize("length", [0, 10, 10**9])
def test_a_chunk_that_unpacks_to_another_size(file, length):
    with h5py.File(file, "r+") as h5:
        packer = zlib.compressobj()
        bomb = b"".join(packer.compress(bytes(10**6)) for _ in range(length // 10**6))
        bomb += packer.compress(bytes(length % 10**6)) + packer.flush()
        h5["view/00000/correction"].id.write_direct_chunk((0, 0), bomb)
    refused(file, "chunk", before_writing=False)


@pytest.mark.parametrize(
    ("name", "row", "value", "says"),
    [
        ("norm", 3, np.nan, "no length"),
        ("norm", 3, -1, "no length"),
        ("norm", 3, 2, "sha256 differs"),
        ("sample", 3, 5, "not in the order"),
        ("logits", 3, 1, "sha256 differs"),
        ("logits", 3, np.nan, "NaN|sha256"),
        ("correction", 3, 1, "sha256 differs"),
        ("correction", 3, 2**15 - 1, "NaN|sha256"),
        ("probe", 1, 0, "sha256 differs"),
        ("unit", 0, b"{}", "params"),
        ("unit", 0, b"", "JSON"),
    ],
)
def test_a_wrong_value_is_found(file, name, row, value, says):
    with h5py.File(file, "r+") as h5:
        h5[f"view/00000/{name}"][row] = value
    refused(file, says, before_writing=False)


@pytest.mark.parametrize(
    ("name", "row", "value", "says"),
    [
        ("probability", 3, np.nan, "no probability"),
        ("probability", 3, -1, "no probability"),
        ("probability", 3, [0.1, 0.2, 0.1], "descending"),
        ("probability", 3, [0.9, 0.9, 0.9], "more than 1"),
        ("index", 3, [0, 1, CLASSES], "beyond"),
        ("index", 3, [0, 1, -1], "beyond"),
        ("index", 3, [0, 1, 0], "twice"),
    ],
)
def test_what_is_no_ranking_is_refused(exported, tmp_path, name, row, value, says):
    file = shutil.copy(exported / "topk.h5", tmp_path / "out.h5")
    with h5py.File(file, "r+") as h5:
        h5[f"view/00000/{name}"][row] = value
    refused(file, says, before_writing=False)


@pytest.mark.parametrize(("label", "value"), [(0, -1), (7, CLASSES)])
def test_a_label_that_is_no_class(file, label, value):
    with h5py.File(file, "r+") as h5:
        h5["label"][label] = value
    refused(file, "no class")


def test_a_last_layer_that_cannot_be(file):
    with h5py.File(file, "r+") as h5:
        h5["class_weight"][0, 0] = np.inf
    refused(file, "NaN or an infinity")
    replace(file, "class_weight", data=np.zeros((CLASSES, 0), np.float32))
    refused(file, "class_weight has the shape")
    replace(file, "class_weight", data=np.zeros(3, np.float32))
    refused(file, "class_weight has the shape")


@pytest.mark.parametrize("told", [b"[1]", b"{", b"[" * 100_000, b'{"a":NaN}', b'{"a":"\\ud800"}'])
def test_a_provenance_that_is_none(file, told):
    replace(file, "provenance", data=np.bytes_(told))
    refused(file, "damaged")


def test_statistics_that_do_not_follow_from_the_norms(file):
    with h5py.File(file, "r+") as h5:
        record = json.loads(h5["view/00000/unit"][0])
        record["statistics"]["norm_sum"] += 1.0
        text = json.dumps(record, sort_keys=True, separators=(",", ":"))
        h5["view/00000/unit"][0] = text.encode()
    refused(file, "norm_sum", before_writing=False)


@pytest.mark.parametrize("name", ["view/1", "view/00000a", "view/000000"])
def test_things_among_the_views_that_are_none(file, name):
    with h5py.File(file, "r+") as h5:
        h5.create_group(name)
    refused(file, "things that are none")


@pytest.mark.parametrize("missing", ["view", LOGITS, "label", "origin"])
def test_something_missing(file, missing):
    with h5py.File(file, "r+") as h5:
        del h5[missing]
    refused(file, f"it has no {missing}")


def test_a_group_in_the_place_of_an_array(file):
    with h5py.File(file, "r+") as h5:
        del h5["label"]
        h5.create_group("label")
    refused(file, "label is not an array")


@pytest.mark.parametrize("form", ["hdf5", "topk"])
def test_flipped_bytes_end_in_a_sentence_or_change_nothing_that_counts(exported, tmp_path, form):
    whole = restore(exported / f"{form}.h5", str(tmp_path / "whole"))
    wanted = [whole.commits[unit].objects for unit in sorted(whole.commits)]
    original = (exported / f"{form}.h5").read_bytes()
    draws = random.Random(1)
    metadata, messages = 4096, []
    for attempt in range(40):
        data = bytearray(original)
        for _ in range(draws.choice([1, 1, 20])):
            end = metadata if attempt % 2 else len(data)
            data[draws.randrange(end)] ^= 1 << draws.randrange(8)
        (tmp_path / "bad.h5").write_bytes(data)
        try:
            cache = restore(tmp_path / "bad.h5", str(tmp_path / f"home{attempt}"))
        except (InputError, DataError) as error:
            messages.append(str(error))
            continue
        assert [cache.commits[unit].objects for unit in sorted(cache.commits)] == wanted
    assert messages
    assert not any("\n" in message for message in messages)
