#!/usr/bin/env python3
"""Makes a small file of the exact log-probabilities of a real model with a large vocabulary: top_logprobs.py IN.npz OUT.npz

Of each row `exact_logprobs{i}` the most probable tokens are kept, as `top_tokens{i}` and `top_logprobs{i}`; what the others
have together follows from these. A divergence over the kept tokens and that rest is never more than the full one, and less
by no more than the rest makes up: the share of it is printed.
"""

import sys

import numpy as np

KEPT = 16384


def main():
    if len(sys.argv) != 3:
        raise SystemExit(__doc__.strip())
    full = np.load(sys.argv[1])
    small, rest = {}, 0.0
    for name in full.files:
        if not name.startswith("exact_logprobs"):
            small[name] = full[name]
            continue
        rows = full[name]
        top = np.sort(np.argsort(-rows, axis=1)[:, :KEPT], axis=1)
        kept = np.take_along_axis(rows, top, axis=1)
        number = name.removeprefix("exact_logprobs")
        small[f"top_tokens{number}"], small[f"top_logprobs{number}"] = top.astype(np.int32), kept
        rest = max(rest, (1 - np.exp(kept.astype(np.float64)).sum(axis=1)).max())
    np.savez_compressed(sys.argv[2], **small)
    print(f"the rest has at most {rest:.1e} of a row")


if __name__ == "__main__":
    main()
