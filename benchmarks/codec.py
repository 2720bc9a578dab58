"""What each codec costs and loses, on logits that the fitted ones have not seen.

Logits are an .npz: z [n, C]; optional source [n], which picture a row comes from (rows of one
picture are never on both sides), and class_weight [C, D]. Without --calibrate half of the
sources are kept for fitting and the other half are measured.

Every codec writes a real cache and everything is read back from it. bytes_per_sample are the
objects of the view and the commits, by their sizes on disk: shards with codes, norms, thumbnails,
indexes and checksums. What lies there once per cache, such as klt's basis, is bytes_once.
top100-404 is the format of others: float16 probabilities and int16 classes, not compressed.

    python benchmarks/codec.py --logits FILE.npz [--calibrate FILE.npz] [--codecs klt ...] [--json]
"""

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from stored import fitted, store
from torch import Tensor

from skd_cache.codec import parse_codec
from skd_cache.store import Cache
from skd_cache.store.commit import Commit

CODECS = (
    "float32",
    "float16",
    "int8",
    "topk:100",
    "klt:small",
    "klt",
    "klt:fine",
)
PUBLISHED = "top100-404"
BATCH = 256
COLUMNS = {
    "bytes_per_sample": "{:.1f}",
    "kl_t1": "{:.2e}",
    "kl_t4": "{:.2e}",
    "one_minus_cos": "{:.2e}",
    "top1_agreement": "{:.4f}",
    "encode_per_second": "{:,.0f}",
    "decode_per_second": "{:,.0f}",
    "bytes_once": "{:,.0f}",
}

Logits = NDArray[np.float32]


def load(path: Path) -> tuple[Logits, NDArray[Any], Logits | None]:
    """Logits ``[n, C]``, sources ``[n]`` and the last layer ``[C, D]``, if there."""
    with np.load(path, allow_pickle=False) as data:
        logits = data["z"].astype(np.float32)
        source = data["source"] if "source" in data else np.arange(len(logits))
        weight = data["class_weight"].astype(np.float32) if "class_weight" in data else None
    return logits, source, weight


def split(logits: Logits, source: NDArray[Any]) -> tuple[Logits, Logits]:
    """Rows for fitting and rows for measuring, of different sources, about half each."""
    names = np.random.default_rng(0).permutation(np.unique(source))
    ours = np.isin(source, names[: len(names) // 2])
    return logits[ours], logits[~ours]


def kl(teacher: Tensor, student: Tensor, temperature: float) -> float:
    """Sum over rows of KL(softmax(t/T) ‖ softmax(s/T)), without the factor T²."""
    wanted = torch.log_softmax(teacher / temperature, dim=1)
    got = torch.log_softmax(student / temperature, dim=1)
    return float((wanted.exp() * (wanted - got)).sum())


def losses(logits: Logits, cache: Cache) -> dict[str, float]:
    """What reading the cache gives, against the logits themselves, in float64."""
    sums = np.zeros(4)
    for rows in cache.stream(0, 0, len(logits), BATCH):
        wanted = torch.from_numpy(logits[rows.start : rows.stop]).double()
        got = rows.teacher.logits().double()
        ours, theirs = (x - x.mean(dim=1, keepdim=True) for x in (wanted, got))
        cosine = torch.nn.functional.cosine_similarity(ours, theirs, dim=1)
        same = wanted.argmax(dim=1) == got.argmax(dim=1)
        sums += kl(wanted, got, 1.0), kl(wanted, got, 4.0), (1 - cosine).sum(), same.sum()
    names = ("kl_t1", "kl_t4", "one_minus_cos", "top1_agreement")
    return dict(zip(names, (sums / len(logits)).tolist(), strict=True))


def bytes_of(cache: Cache) -> tuple[float, float]:
    """Bytes per sample of what is there for every view, and bytes that are there once."""
    commits: dict[Any, Commit] = dict(cache.commits)
    stored = sum(object_.size for commit in commits.values() for object_ in commit.objects.values())
    stored += sum(len(commit.canonical()) for commit in commits.values())
    return stored / cache.statistics.count, float(sum(a.nbytes for a in cache.codec.side.values()))


def per_second(work: Any, rows: int) -> float:
    began = time.perf_counter()
    work()
    return rows / (time.perf_counter() - began)


def measure(
    text: str, calibration: Logits, logits: Logits, weight: Logits | None
) -> dict[str, Any]:
    codec = fitted(parse_codec(text, logits.shape[1]), calibration, weight)
    encoded = codec.encode(logits[:BATCH])
    code = {name: torch.from_numpy(rows) for name, rows in encoded.code.items()}
    norm = torch.from_numpy(encoded.norm)
    codec.decode(code, norm)
    repeats = range(8)
    rows = BATCH * len(repeats)
    with tempfile.TemporaryDirectory() as folder:
        cache = store(Path(folder), codec, logits)
        size, once = bytes_of(cache)
        found = losses(logits, cache)
    return {
        "codec": text,
        "bytes_per_sample": size,
        **found,
        "encode_per_second": per_second(
            lambda: [codec.encode(logits[:BATCH]) for _ in repeats], rows
        ),
        "decode_per_second": per_second(lambda: [codec.decode(code, norm) for _ in repeats], rows),
        "bytes_once": once,
    }


def published(found: dict[str, Any], k: int) -> dict[str, Any]:
    """The same logits in the format others store: 2 + 2 bytes an entry and the norm."""
    return {**found, "codec": PUBLISHED, "bytes_per_sample": 4.0 * k + 4.0}


def table(rows: list[dict[str, Any]]) -> str:
    lines = [" | ".join(["codec", *COLUMNS]), " | ".join(["---"] * (len(COLUMNS) + 1))]
    for row in rows:
        cells = [form.format(row[name]) for name, form in COLUMNS.items()]
        lines.append(" | ".join([row["codec"], *cells]))
    return "\n".join(f"| {line} |" for line in lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--logits", type=Path, required=True, help="what is stored and measured")
    parser.add_argument("--calibrate", type=Path, help="what codecs are fitted to")
    parser.add_argument("--codecs", nargs="+", default=list(CODECS))
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    arguments = parser.parse_args()
    logits, source, weight = load(arguments.logits)
    if arguments.calibrate:
        calibration, _, weight = load(arguments.calibrate)
    else:
        calibration, logits = split(logits, source)
    rows = []
    for text in arguments.codecs:
        rows.append(measure(text, calibration, logits, weight))
        if text == "topk:100":
            rows.append(published(rows[-1], 100))
    if arguments.json:
        told = {"samples": len(logits), "calibration": len(calibration), "codecs": rows}
        print(json.dumps(told, indent=2))
    else:
        print(f"{len(logits):,} samples, codecs fitted to {len(calibration):,} others\n")
        print(table(rows))


if __name__ == "__main__":
    main()
