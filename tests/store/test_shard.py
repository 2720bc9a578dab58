"""Our reader of shards against zarr-python's, and against bytes that nobody should trust."""

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
import torch
import zarr
from numcodecs import zstd
from pcodec import ChunkConfig, standalone

from skd_cache.errors import DataError
from skd_cache.store import open_cache, reader, source
from tests.store.small_cache import create, fill, make_recipe

CODECS = ["float32", "float16", "int8", "topk:3", "klt", "klt:step=1,refine=20/4"]
CRC_BYTES = 4


def crc32c(data):
    """Bit by bit, after the polynomial of RFC 3720."""
    value = 0xFFFFFFFF
    for byte in data:
        value ^= byte
        for _ in range(8):
            value = value >> 1 ^ (0x82F63B78 if value & 1 else 0)
    return (value ^ 0xFFFFFFFF).to_bytes(4, "little")


@pytest.fixture(scope="module")
def caches(tmp_path_factory):
    home = tmp_path_factory.mktemp("shards")
    caches = {text: create(home, make_recipe(classes=45, codec=text)) for text in CODECS}
    for cache in caches.values():
        fill(cache)
    return caches


@pytest.mark.parametrize("whole", [0, 2**24])
@pytest.mark.parametrize("text", CODECS)
def test_every_array_reads_as_zarr_reads_it(caches, text, whole, monkeypatch):
    monkeypatch.setattr(source, "WHOLE_BYTES", whole)
    cache = open_cache(caches[text].location)
    plain = zarr.open_group(f"{cache.location}/logits.zarr", mode="r")["view/00000"]
    rows = cache.read(0, 0, 300)
    assert rows.teacher.norm.numpy().tobytes() == plain["norm"][:].tobytes()
    assert (rows.probes.numpy() == plain["probe"][:]).all()
    for name, spec in cache.codec.arrays.items():
        stored = np.moveaxis(plain[name][:], spec.axis, 0)
        assert rows.teacher.code[name].numpy().tobytes() == stored.tobytes()


def replace_shard(cache, name, data):
    """Write other bytes for shard 0 of an array, and a commit that vouches for them."""
    folder = Path(cache.location)
    commit = folder / "commit/00000/00000.json"
    document = json.loads(commit.read_bytes())
    document["objects"][name] = {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    options = {"sort_keys": True, "separators": (",", ":"), "ensure_ascii": False}
    commit.write_text(json.dumps(document, **options))
    (folder / f"logits.zarr/view/00000/{name}/c/0/0").write_bytes(data)


def with_index(chunks):
    """A shard of these inner chunks, with a right index and right checksums."""
    body, index = b"", b""
    for chunk in chunks:
        whole = chunk + crc32c(chunk)
        index += len(body).to_bytes(8, "little") + len(whole).to_bytes(8, "little")
        body += whole
    return body + index + crc32c(index)


def hostile_shards():
    bomb = zstd.compress(np.zeros(2**26, np.uint8), 3)
    rows = zstd.compress(np.zeros(32 * 45, np.uint8), 3)
    far = b"".join(n.to_bytes(8, "little") for n in (2**63, 100) * 4)
    nothing = b"\xff" * 64
    return {
        "sixty megabytes in a chunk": with_index([bomb, rows, rows, rows]),
        "no zstd": with_index([b"no zstd at all", rows, rows, rows]),
        "a chunk cut off": with_index([rows[:-3], rows, rows, rows]),
        "an empty chunk": with_index([b"", rows, rows, rows]),
        "an index that points beyond": far + crc32c(far),
        "chunks that are not there": nothing + crc32c(nothing),
        "an index without its checksum": b"\0" * 68,
        "too short for an index": b"\0" * 30,
    }


@pytest.mark.parametrize("what", hostile_shards())
def test_bytes_that_a_wrong_commit_vouches_for_are_refused(tmp_path, what):
    cache = create(tmp_path, make_recipe(classes=45, codec="int8"))
    fill(cache)
    replace_shard(cache, "code", hostile_shards()[what])
    with pytest.raises(DataError, match=r"view 0, shard 0 .* code cannot be decoded: ") as caught:
        open_cache(cache.location).read(0, 0, 32)
    assert "\n" not in str(caught.value)


def test_a_shard_made_by_hand_is_read(tmp_path):
    cache = create(tmp_path, make_recipe(classes=45, codec="int8"))
    fill(cache)
    rows = (np.arange(128 * 45) % 127).astype(np.int8).reshape(4, -1)
    replace_shard(cache, "code", with_index([zstd.compress(part, 3) for part in rows]))
    code = open_cache(cache.location).read(0, 0, 128).teacher.code["code"]
    assert (code.numpy().reshape(4, -1) == rows).all()


def test_pcodec_of_too_few_numbers_is_refused(tmp_path):
    cache = create(tmp_path, make_recipe(classes=45, codec="klt"))
    fill(cache)
    blocks = cache.codec.arrays["code"].row[0] // 32
    short = standalone.simple_compress(np.zeros(31 * 32, np.int16), ChunkConfig())
    replace_shard(cache, "code", with_index([short] * 4 * blocks))
    with pytest.raises(DataError, match="too few numbers"):
        open_cache(cache.location).read(0, 0, 32)


def test_batches_of_a_stream_are_the_same_whatever_was_kept(caches, monkeypatch):
    cache = open_cache(caches["klt"].location)
    wanted = cache.read(0, 0, 300).teacher.logits()
    monkeypatch.setattr(reader, "KEPT_SHARDS", 1)
    monkeypatch.setattr(reader, "KEPT_MARGINS", 1)
    for ahead in (1, 2, 7):
        batches = open_cache(cache.location).stream(0, 0, 300, 50, ahead)
        assert torch.equal(torch.cat([rows.teacher.logits() for rows in batches]), wanted)
