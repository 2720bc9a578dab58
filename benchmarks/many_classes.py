"""klt with more classes than the teacher has features: fit, encode and decode within 4 GB.

Logits are W·f + b with a random last layer W [C, D] and random features f whose spectrum falls as
trained ones do. The basis then lies in the range of W: nothing of size C x C is ever made.

    python benchmarks/many_classes.py [--classes 21841] [--features 1024] [--fitted-to 16384]
"""

import argparse
import json
import resource
import time
from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray

from skd_cache.codec import fit, parse_codec

BATCH, MEASURED = 128, 1024


def features(count: int, width: int, seed: int) -> Iterator[NDArray[np.float32]]:
    """Batches ``[b, D]``: independent features, the k-th with a deviation of about k^-0.5."""
    rng = np.random.default_rng(seed)
    scale = (1 + np.arange(width)) ** -0.5
    for start in range(0, count, BATCH):
        yield (rng.normal(size=(min(BATCH, count - start), width)) * scale).astype(np.float32)


def peak() -> float:
    """The most memory this process has had, in GB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--classes", type=int, default=21841)
    parser.add_argument("--features", type=int, default=1024)
    parser.add_argument("--fitted-to", type=int, default=16384)
    parser.add_argument("--codec", default="klt")
    arguments = parser.parse_args()
    classes, width = arguments.classes, arguments.features
    rng = np.random.default_rng(0)
    weight = rng.normal(size=(classes, width)).astype(np.float32)
    bias = rng.normal(size=classes).astype(np.float32)
    start = peak()

    began = time.perf_counter()
    seen = (batch @ weight.T + bias for batch in features(arguments.fitted_to, width, 1))
    codec = fit(parse_codec(arguments.codec, classes), seen, weight)
    fitting = time.perf_counter() - began
    found = {"codec": arguments.codec, "classes": classes, "features": width}
    found |= {"gb_at_start": start, "fit_seconds": fitting, "gb_after_fit": peak()}
    encode = decode = 0.0
    errors = []
    for batch in features(MEASURED, width, 2):
        logits = batch @ weight.T + bias
        began = time.perf_counter()
        encoded = codec.encode(logits)
        encode += time.perf_counter() - began
        code = {name: torch.from_numpy(rows) for name, rows in encoded.code.items()}
        began = time.perf_counter()
        back = codec.decode(code, torch.from_numpy(encoded.norm)).numpy()
        decode += time.perf_counter() - began
        wanted = logits - logits.mean(axis=1, keepdims=True)
        lengths = np.linalg.norm(wanted, axis=1) * np.linalg.norm(back, axis=1)
        errors.append(1 - (wanted * back).sum(axis=1) / lengths)
    found |= {
        "components": codec.side["basis"].shape[1],
        "encode_per_second": MEASURED / encode,
        "decode_per_second": MEASURED / decode,
        "one_minus_cos": float(np.concatenate(errors).mean()),
        "gb_at_end": peak(),
    }
    for name, value in found.items():
        print(f"{name:18} {value:,.4g}" if isinstance(value, float) else f"{name:18} {value}")
    print(json.dumps({"benchmark": "many_classes"} | found))


if __name__ == "__main__":
    main()
