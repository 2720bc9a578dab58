"""A reader written after docs/format.md alone: zarr-python, json, hashlib, and nothing of ours.

What it reads is then compared with what the cache was built from.
"""

import hashlib
import json
import re
from pathlib import Path

import numpy as np
import pytest
import zarr

from tests.store.small_cache import create, fill, logits_of, make_recipe, probes_of, side_arrays

DOCUMENT = Path(__file__).parents[2] / "docs" / "format.md"
MASK = 0xFFFFFFFF


def philox(counter, key):
    (c0, c1, c2, c3), (k0, k1) = counter, key
    for _ in range(10):
        p0, p1 = c0 * 0xD2511F53, c2 * 0xCD9E8D57
        c0, c1, c2, c3 = (p1 >> 32) ^ c1 ^ k0, p1 & MASK, (p0 >> 32) ^ c3 ^ k1, p0 & MASK
        k0, k1 = (k0 + 0x9E3779B9) & MASK, (k1 + 0xBB67AE85) & MASK
    return c0, c1, c2, c3


def sample_at(position, seed, group, count):
    bits = max(count - 1, 1).bit_length()
    half = max(1, -(-bits // 2))
    value = position
    while True:
        left, right = value >> half, value % 2**half
        for turn in range(8):
            word = philox((right, group, 0, turn), (seed % 2**32, seed >> 32))[0]
            left, right = right, left ^ (word % 2**half)
        value = left << half | right
        if value < count:
            return value


class Reader:
    def __init__(self, folder):
        self.folder = folder
        data = (folder / "recipe.json").read_bytes()
        assert hashlib.sha256(data).hexdigest()[:16] == folder.name
        self.recipe = json.loads(data)
        self.zarr = zarr.open_group(str(folder / "logits.zarr"), mode="r")
        self.check("cache.json", {"label": "sample/label/c/0", "content": "sample/content/c/0"})

    def check(self, commit, places):
        """Compare objects with a commit; the commit."""
        document = json.loads((self.folder / "commit" / commit).read_bytes())
        assert document["cache"] == self.folder.name
        for name, place in places.items():
            data = (self.folder / "logits.zarr" / place).read_bytes()
            assert document["objects"][name]["size"] == len(data)
            assert document["objects"][name]["sha256"] == hashlib.sha256(data).hexdigest()
        return document

    def digest(self, view):
        folder = self.folder / "commit"
        places = [folder / "cache.json", *(folder / f"{view:05d}").iterdir()]
        named = {place.relative_to(self.folder).as_posix(): place.read_bytes() for place in places}
        lines = [f"{name} {hashlib.sha256(named[name]).hexdigest()}\n" for name in sorted(named)]
        return "sha256:" + hashlib.sha256("".join(lines).encode()).hexdigest()

    def logits(self, view):
        """Sample to row of logits, of a whole view."""
        count, shard = self.recipe["dataset"]["samples"], self.recipe["shard"]
        base = f"view/{view:05d}"
        rows = 0
        topk = self.recipe["codec"]["name"] == "topk"
        for index in range(-(-count // shard)):
            tails = {"norm": f"{index}", "code": f"{index}/0", "probe": f"{index}/0/0/0"}
            if self.recipe["codec"]["name"] == "klt":
                along = f"0/{index}"
                tails |= {"code": along, "refine": along, "guard": f"{index}"}
            tails |= {"index": f"{index}/0"} if topk else {}
            places = {name: f"{base}/{name}/c/{tail}" for name, tail in tails.items()}
            commit = self.check(f"{view:05d}/{index:05d}.json", places)
            rows += commit["statistics"]["count"]
        assert rows == count
        norm, code = self.zarr[f"{base}/norm"][:], self.zarr[f"{base}/code"][:]
        assert np.isfinite(norm).all()
        if self.recipe["codec"]["name"] == "klt":
            code = self.klt(base, norm, code)
        elif topk:
            code = self.log_probabilities(code, self.zarr[f"{base}/index"][:])
        elif self.recipe["codec"]["name"] != "float32":
            code = code.astype(np.float64)
            code -= code.mean(axis=1, keepdims=True)
            code *= (norm / np.sqrt((code**2).sum(axis=1)))[:, None]
        return self.by_sample(view, code)

    def klt(self, base, norm, code):
        chosen = self.recipe["codec"]
        basis, offset = (self.zarr[f"codec/{name}"][:].astype("f8") for name in ("basis", "offset"))
        classes, guard = len(basis), self.zarr[f"{base}/guard"][:].astype(int)
        divisors = [d for ranks, d in chosen["refine"] for _ in range(ranks)][: classes // 2]
        refine = self.zarr[f"{base}/refine"][:].T / np.array(divisors)
        rows, ranks = np.empty((len(norm), classes)), len(divisors)
        for p, q in enumerate(code.T.astype("f8")):
            unit = chosen["step"] * 4.0 ** (guard[p] >> 2)
            b, n = basis @ q + offset, norm[p] / unit
            order = sorted(range(classes), key=lambda i, b=b: (-b[i], i))
            first, others = order[:ranks], order[ranks:]
            mixed = [(i + 1) * (2 * k + 1) * 0x9E3779B1 % 2**32 for k, i in enumerate(first)]
            assert sum(mixed) % 2**32 >> 30 == guard[p] & 3
            t = n / np.linalg.norm(b - b.mean()) * (b[first] - b.mean()) + refine[p]
            rest = b[others] - b[others].mean()
            left = n**2 - (t**2).sum() - t.sum() ** 2 / len(others)
            rows[p, first] = t * unit
            stretched = np.sqrt(left / (rest**2).sum()) * rest - t.sum() / len(others)
            rows[p, others] = stretched * unit
        return rows

    def by_sample(self, view, code):
        count = self.recipe["dataset"]["samples"]
        group = view // self.recipe["views_per_decode"]
        seed = self.recipe["seed"]
        return {sample_at(p, seed, group, count): code[p] for p in range(count)}

    def log_probabilities(self, code, index):
        classes, k = self.recipe["dataset"]["classes"], self.recipe["codec"]["k"]
        assert index.dtype == ("int16" if classes <= 32768 else "int32")
        rows = np.empty((len(code), classes))
        for row, kept, places in zip(rows, code.astype(np.float64), index, strict=True):
            rest = max(1 - kept.sum(), 2**-25)
            kept = np.maximum(kept, 2**-25)
            row[:] = min(kept.min(), rest / (classes - k))
            row[places] = kept
        return np.log(rows)


@pytest.mark.parametrize("codec", ["float32", "float16", "int8"])
def test_the_document_is_enough_to_read_a_cache(tmp_path, codec):
    cache = create(tmp_path, make_recipe(codec=codec))
    fill(cache, views=2)
    reader = Reader(Path(cache.location))
    for view in (0, 1):
        found = reader.logits(view)
        assert sorted(found) == list(range(300))
        wanted = logits_of(cache.recipe, view, range(300))
        if codec == "float32":
            assert all((found[sample] == wanted[sample]).all() for sample in range(300))
        wanted -= wanted.mean(axis=1, keepdims=True)
        for sample in range(300):
            row = found[sample] - found[sample].mean()
            np.testing.assert_allclose(row, wanted[sample], atol=0.15)
        probes = reader.zarr[f"view/{view:05d}/probe"][:]
        assert (probes == probes_of(view, np.arange(0, 300, 64))).all()
        assert reader.digest(view) == cache.digest(view)
    sides = side_arrays(cache.recipe)
    assert (reader.zarr["sample/label"][:] == sides["labels"]).all()
    assert (reader.zarr["sample/content"][:] == sides["contents"]).all()
    assert (reader.zarr["teacher/class_weight"][:] == sides["class_weight"]).all()
    assert reader.zarr.attrs["recipe"] == reader.recipe
    assert "provenance" in reader.zarr.attrs


def test_the_document_is_enough_to_read_klt_to_a_few_bits(tmp_path):
    cache = create(tmp_path, make_recipe(classes=40, codec="klt"))
    fill(cache)
    found = Reader(Path(cache.location)).logits(0)
    ours = cache.lookup(0, np.arange(300)).logits().numpy()
    for sample in range(300):
        np.testing.assert_allclose(ours[sample], found[sample], rtol=1e-5, atol=1e-5)


def test_the_document_is_enough_to_read_the_largest_probabilities(tmp_path):
    cache = create(tmp_path, make_recipe(codec="topk:3"))
    fill(cache)
    found = Reader(Path(cache.location)).logits(0)
    logits = logits_of(cache.recipe, 0, range(300)).astype(np.float64)
    wanted = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    ours = cache.lookup(0, np.arange(300)).logits().numpy()
    for sample in range(300):
        np.testing.assert_allclose(ours[sample], found[sample], rtol=1e-6, atol=1e-6)
        largest = np.argsort(-logits[sample])[:3]
        kept = np.exp(found[sample][largest])
        np.testing.assert_allclose(kept, wanted[sample][largest], 6e-4, 2**-24)


def test_the_documents_own_examples_hold():
    text = DOCUMENT.read_text()
    zeros = re.search(r"zeros give `([0-9a-f ]+)`", text)[1]
    assert " ".join(f"{word:08x}" for word in philox((0, 0, 0, 0), (0, 0))) == zeros
    order = re.search(r"positions 0 … 7 hold samples\s([0-9,\s]+)\.", text)[1]
    assert [int(n) for n in order.split(",")] == [sample_at(p, 7, 0, 300) for p in range(8)]


def test_the_document_names_every_field(tmp_path):
    text = DOCUMENT.read_text()
    cache = create(tmp_path)
    fill(cache)
    folder = Path(cache.location)
    for name in ("recipe.json", "commit/cache.json", "commit/00000/00000.json"):
        document = json.loads((folder / name).read_bytes())
        fields = {*document, *document.get("statistics", {}), *document.get("teachers", [{}])[0]}
        assert [field for field in fields if f"`{field}`" not in text] == []
