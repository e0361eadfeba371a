#!/usr/bin/env python3
"""Rounds the weights of tiny float32 models to 16 bits, so that they compress well, and writes what llama.cpp computes.

    round_models.py FOLDER [--seed N] MODEL.gguf...

For each model FOLDER gets MODEL.gguf.gz and MODEL.npz with `tokens` and `logits`, a row for each token, with a float32
cache. The tokens are the first 48 of the .npz beside the model, or random ones of a seed: where two experts
score almost the same, a rounding of the cache decides, which no test of the arithmetic should hang on. Needs llama-cpp-python, gguf and numpy.
"""

import gzip
import os
import sys

import gguf
import numpy as np
from arch_cases import peer_rows, quiet_peer


def round_weights(path):
    """The bytes of the file with every float32 weight rounded to the nearest that has 16 bits."""
    data = bytearray(open(path, "rb").read())
    for tensor in gguf.GGUFReader(path).tensors:
        if tensor.tensor_type == gguf.GGMLQuantizationType.F32:
            bits = np.frombuffer(data, np.uint32, tensor.n_elements, tensor.data_offset)
            rounded = (bits + 0x7FFF + ((bits >> 16) & 1)) & 0xFFFF0000
            data[tensor.data_offset : tensor.data_offset + tensor.n_bytes] = rounded.astype(np.uint32).tobytes()
    return bytes(data)


def main():
    if len(sys.argv) < 3:
        raise SystemExit(__doc__.strip())
    folder, models, seed = sys.argv[1], sys.argv[2:], None
    if models[0] == "--seed":
        seed, models = int(models[1]), models[2:]
    os.makedirs(folder, exist_ok=True)
    keep = quiet_peer()
    for path in models:
        stem = os.path.basename(path)[: -len(".gguf")]
        data = round_weights(path)
        plain = os.path.join(folder, f"{stem}.gguf")
        with open(plain, "wb") as out:
            out.write(data)
        tokens = np.load(path[: -len(".gguf")] + ".npz")["tokens"].astype(np.int32)[:48]
        if seed is not None:
            tokens = np.random.default_rng(seed).integers(0, int(tokens.max()) + 1, len(tokens)).astype(np.int32)
        logits = peer_rows(plain, tokens)
        np.savez_compressed(os.path.join(folder, f"{stem}.npz"), tokens=tokens, logits=logits)
        with gzip.GzipFile(plain + ".gz", "wb", 9, mtime=0) as out:
            out.write(data)
        os.remove(plain)
        print(f"{stem:22} {len(data) / 1024:6.0f} KiB, {os.path.getsize(plain + '.gz') / 1024:6.0f} compressed", flush=True)
    del keep


if __name__ == "__main__":
    main()
