#!/usr/bin/env python3
"""Computes the logits of small models with recurrent layers in float64, and compares them with those that are given.

    recurrent_reference.py MODEL.gguf...

For gated delta nets (architecture qwen35 without experts) and Mamba 2 (mamba2), token by token as the papers have it
(arXiv 2412.06464, 2405.21060). Where two programs differ, this tells whose rounding it is. MODEL.npz
with `tokens` and `logits` lies beside the model, or in the folder of tests/data/golden that has the name of the model's
(the tests write their models to target/golden). Needs gguf and numpy.
"""

import os
import sys

import gguf
import numpy as np

GOLDEN = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "tests", "data", "golden")


class Model:
    def __init__(self, path):
        reader = gguf.GGUFReader(path)
        self.tensors = {t.name: np.array(t.data, np.float64).reshape([int(n) for n in t.shape[::-1]]) for t in reader.tensors}
        self.keys = {name: field.contents() for name, field in reader.fields.items()}
        self.family = self.keys["general.architecture"]

    def key(self, name, default=None):
        return self.keys.get(f"{self.family}.{name}", default)

    def __getitem__(self, name):
        return self.tensors[name]

    def get(self, name):
        return self.tensors.get(name)


def silu(x):
    return x / (1 + np.exp(-x))


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def rms(x, eps):
    return x / np.sqrt((x * x).mean(-1, keepdims=True) + eps)


def convolve(x, weights, bias):
    """[tokens][channels] with [channels][kernel]."""
    kernel = weights.shape[1]
    padded = np.vstack([np.zeros((kernel - 1, x.shape[1])), x])
    y = sum(padded[j : j + len(x)] * weights[:, j] for j in range(kernel))
    return silu(y if bias is None else y + bias)


def delta_net(m, i, h):
    b, eps = f"blk.{i}.", m.key("attention.layer_norm_rms_epsilon")
    key, heads, groups = m.key("ssm.state_size"), m.key("ssm.time_step_rank"), m.key("ssm.group_count")
    value = m.key("ssm.inner_size") // heads
    rows = convolve(h @ m[b + "attn_qkv.weight"].T, m[b + "ssm_conv1d.weight"], m.get(b + "ssm_conv1d.bias"))
    tokens = len(h)
    q = rows[:, : groups * key].reshape(tokens, groups, key)
    k = rows[:, groups * key : 2 * groups * key].reshape(tokens, groups, key)
    v = rows[:, 2 * groups * key :].reshape(tokens, heads, value)
    q, k = [x / np.sqrt((x * x).sum(-1, keepdims=True) + eps) for x in (q, k)]
    beta = sigmoid(h @ m[b + "ssm_beta.weight"].T)
    decay = np.exp(m[b + "ssm_a"].ravel() * np.log1p(np.exp(h @ m[b + "ssm_alpha.weight"].T + m[b + "ssm_dt.bias"])))
    state, out = np.zeros((heads, key, value)), np.zeros((tokens, heads, value))
    for t in range(tokens):
        for head in range(heads):
            s, of = state[head], head % groups
            s *= decay[t, head]
            s += np.outer(k[t, of], beta[t, head] * (v[t, head] - k[t, of] @ s))
            out[t, head] = q[t, of] @ s / np.sqrt(key)
    gate = silu(h @ m[b + "attn_gate.weight"].T)
    return (rms(out, eps) * m[b + "ssm_norm.weight"]).reshape(tokens, -1) * gate @ m[b + "ssm_out.weight"].T


def mamba(m, i, h):
    b, eps = f"blk.{i}.", m.key("attention.layer_norm_rms_epsilon")
    key, heads, groups, inner = [m.key(f"ssm.{n}") for n in ("state_size", "time_step_rank", "group_count", "inner_size")]
    z, rows, dt = np.split(h @ m[b + "ssm_in.weight"].T, [inner, 2 * inner + 2 * groups * key], axis=1)
    rows = convolve(rows, m[b + "ssm_conv1d.weight"], m.get(b + "ssm_conv1d.bias"))
    tokens = len(h)
    x = rows[:, :inner].reshape(tokens, heads, -1)
    k = rows[:, inner : inner + groups * key].reshape(tokens, groups, key)
    q = rows[:, inner + groups * key :].reshape(tokens, groups, key)
    dt = np.log1p(np.exp(dt + m[b + "ssm_dt.bias"]))
    decay = np.exp(dt * m[b + "ssm_a"].ravel())
    state, out = np.zeros((heads, key, x.shape[2])), np.zeros(x.shape)
    for t in range(tokens):
        for head in range(heads):
            s, of = state[head], head // (heads // groups)
            s *= decay[t, head]
            s += np.outer(k[t, of], dt[t, head] * x[t, head])
            out[t, head] = q[t, of] @ s + m[b + "ssm_d"].ravel()[head] * x[t, head]
    y = out.reshape(tokens, inner) * silu(z)
    y = rms(y.reshape(tokens, groups, -1), eps) * m[b + "ssm_norm.weight"]
    return y.reshape(tokens, inner) @ m[b + "ssm_out.weight"].T


def rotate(m, x):
    """Pairs of halves of the first elements of each head."""
    n = m.key("rope.dimension_count")
    angles = np.arange(len(x))[:, None] * m.key("rope.freq_base") ** (-2 * np.arange(n // 2) / n)
    cos, sin = np.cos(angles)[:, None], np.sin(angles)[:, None]
    a, b = x[..., : n // 2], x[..., n // 2 : n]
    return np.concatenate([a * cos - b * sin, a * sin + b * cos, x[..., n:]], -1)


def attention(m, i, h):
    b, eps = f"blk.{i}.", m.key("attention.layer_norm_rms_epsilon")
    heads, kv_heads, dim = m.key("attention.head_count"), m.key("attention.head_count_kv"), m.key("attention.key_length")
    tokens = len(h)
    both = (h @ m[b + "attn_q.weight"].T).reshape(tokens, heads, 2 * dim)
    q, gate = both[..., :dim], both[..., dim:]
    k, v = [(h @ m[b + f"attn_{part}.weight"].T).reshape(tokens, kv_heads, dim) for part in "kv"]
    q = rotate(m, rms(q, eps) * m[b + "attn_q_norm.weight"])
    k = rotate(m, rms(k, eps) * m[b + "attn_k_norm.weight"])
    out = np.zeros(q.shape)
    for head in range(heads):
        of = head // (heads // kv_heads)
        scores = q[:, head] @ k[:, of].T / np.sqrt(dim) + np.triu(np.full((tokens, tokens), -np.inf), 1)
        weights = np.exp(scores - scores.max(-1, keepdims=True))
        out[:, head] = weights / weights.sum(-1, keepdims=True) @ v[:, of]
    return (out * sigmoid(gate)).reshape(tokens, -1) @ m[b + "attn_output.weight"].T


def logits(m, tokens):
    eps = m.key("attention.layer_norm_rms_epsilon")
    x = m["token_embd.weight"][tokens]
    for i in range(m.key("block_count") - m.key("nextn_predict_layers", 0)):
        b = f"blk.{i}."
        h = rms(x, eps) * m[b + "attn_norm.weight"]
        if m.family == "mamba2":
            x = x + mamba(m, i, h)
            continue
        x = x + (delta_net if m.get(b + "ssm_a") is not None else attention)(m, i, h)
        h = rms(x, eps) * m[b + "post_attention_norm.weight"]
        x = x + silu(h @ m[b + "ffn_gate.weight"].T) * (h @ m[b + "ffn_up.weight"].T) @ m[b + "ffn_down.weight"].T
    head = m.get("output.weight")
    return rms(x, eps) * m["output_norm.weight"] @ (m["token_embd.weight"] if head is None else head).T


def main():
    if len(sys.argv) < 2:
        raise SystemExit(__doc__.strip())
    for path in sys.argv[1:]:
        stem, model = path.removesuffix(".gguf"), Model(path)
        results = f"{stem}.npz"
        if not os.path.exists(results):
            folder = os.path.basename(os.path.dirname(os.path.abspath(path)))
            results = os.path.join(GOLDEN, folder, os.path.basename(results))
        arrays = np.load(results)
        exact, given = logits(model, arrays["tokens"]), arrays["logits"].astype(np.float64)
        error = np.linalg.norm(given - exact) / np.linalg.norm(exact)
        print(f"{os.path.basename(stem):22} relative error of the given logits {error:.1e}", flush=True)


if __name__ == "__main__":
    main()
