#!/usr/bin/env python3
"""Compares embeddings of a BERT model with those of transformers, and with llama.cpp's of the same file.

    compare_embeddings.py DIRECTORY FILE.gguf     (what convert_bert.py was given; LAYERLINE_LIBRARY says where the library is)

Needs the packages transformers<5, flax and jax; llama-cpp-python where it is to be compared. Sentences of 3 to 512 tokens,
in several languages and scripts: tokens must be the same, and the means' cosine with the exact model's at least 0.9999.
"""

import os
import sys

import numpy as np

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path.insert(0, os.path.join(ROOT, "bindings/python"))
from layerline import Embeddings, Logits, Model, Options, Session  # noqa: E402

PARAGRAPH = (
    "The sea is never still. Tides raise it twice a day, wind roughens it, and far below the surface slow currents carry "
    "cold water from the poles to the equator; a drop that sinks off Greenland may need a thousand years to see the sun again. "
)
TEXTS = [
    "sea", "A cat sits on the mat.", "A feline rests on a rug.", "Stock prices fell sharply on Monday, analysts said.",
    "def f(x): return x ** 2  # squares", "Ça m'étonne: l'élève naïf déjeune à midi.", "Привет, как дела?", "海は決して静かではない。",
    "12,345.67 € — 50% off!!! http://example.org/?q=1", "🙂 emoji and unknownish zzxxqqj", PARAGRAPH, PARAGRAPH * 2, PARAGRAPH * 4,
    PARAGRAPH * 12,
]  # fmt: skip
LONGEST = 512
LEAST_COSINE = 0.9999


def cosine(a, b):
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    return float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))


def exact_means(folder, ids):
    from transformers import FlaxBertModel

    model = FlaxBertModel.from_pretrained(folder, from_pt=True)
    return [np.asarray(model(np.array([row])).last_hidden_state)[0].astype(np.float64).mean(axis=0) for row in ids]


def ours(path, ids):
    with Model(path, Options(context_length=LONGEST)) as model, Session(model) as session:
        for row in ids:
            session.forward(row, Logits.NONE, Embeddings.MEAN)
            yield np.frombuffer(session.embeddings(), "f4")


def tokens_of(path, texts):
    with Model(path, Options(context_length=LONGEST)) as model:
        rows = [model.tokenize(text, bos=True, eos=True) for text in texts]
    return [row if len(row) <= LONGEST else row[: LONGEST - 1] + row[-1:] for row in rows]


def peers(path, ids):
    try:
        from arch_cases import peer_rows, quiet_peer

        keep = quiet_peer()
    except ImportError:
        return None
    means = [peer_rows(path, row, embeddings=True, room=LONGEST).astype(np.float64).mean(axis=0) for row in ids]
    del keep
    return means


def main():
    if len(sys.argv) != 3:
        raise SystemExit(__doc__.strip())
    folder, path = sys.argv[1:]
    from transformers import BertTokenizer

    reference = BertTokenizer.from_pretrained(folder)
    ids = tokens_of(path, TEXTS)
    exact, mine, theirs = exact_means(folder, ids), list(ours(path, ids)), peers(path, ids)
    failed = False
    print("tokens  cosine to exact  of the peer  to the peer")
    for i, (text, row) in enumerate(zip(TEXTS, ids)):
        same = row == reference.encode(text, truncation=True, max_length=LONGEST)
        found = cosine(mine[i], exact[i])
        failed |= not same or found < LEAST_COSINE
        peer = f"{cosine(theirs[i], exact[i]):11.7f}  {cosine(mine[i], theirs[i]):11.7f}" if theirs else ""
        print(f"{len(row):6}  {found:15.7f}  {peer}{'' if same else '  TOKENS DIFFER'}")
    print(f"cosine of the two cats {cosine(mine[1], mine[2]):.4f}, of a cat and the stocks {cosine(mine[1], mine[3]):.4f}")
    raise SystemExit(failed)


if __name__ == "__main__":
    main()
