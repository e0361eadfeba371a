#!/usr/bin/env python3
"""Computes the logits of small models in float64 by plain numpy, and says how far other programs' are from them.

    float64_reference.py [--program LOGITS] MODEL.gguf...

Token by token as the papers have it: gated delta nets (qwen35 without experts, arXiv 2412.06464), Mamba 2 (mamba2, arXiv
2405.21060), and per-layer inputs with shared keys and values (gemma4 without experts). Where two programs differ, this
tells whose rounding it is. MODEL.npz with `tokens` and llama.cpp's `logits` lies beside the model, or in the folder of
tests/data/golden that has the name of the model's (the tests write their models to target/golden).

--program: the example `logits` of this library; its logits of the same tokens are compared too. Ends with 1 where they are
further away than half floats in the cache explain, or, in a model without attention, than float32 does. Needs gguf and
numpy.
"""

import os
import subprocess
import sys
import tempfile

import gguf
import numpy as np

GOLDEN = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "tests", "data", "golden")
# Keys and values in the cache have 11 bits.
WITH_CACHE, WITHOUT = 1e-3, 1e-5


class Model:
    def __init__(self, path):
        reader = gguf.GGUFReader(path)
        self.keys = {name: field.contents() for name, field in reader.fields.items()}
        self.tensors = {t.name: gguf.dequantize(t.data, t.tensor_type).astype(np.float64) for t in reader.tensors}
        self.family = self.keys["general.architecture"]
        self.eps = self.key("attention.layer_norm_rms_epsilon")
        self.layers = self.key("block_count") - self.key("nextn_predict_layers", 0)

    def key(self, name, default=None):
        return self.keys.get(f"{self.family}.{name}", default)

    def at(self, name, layer):
        value = self.key(name)
        return value[layer] if isinstance(value, list) else value

    def __getitem__(self, name):
        return self.tensors[name if name in self.tensors else f"{name}.weight"]

    def get(self, name):
        return self.tensors.get(name, self.tensors.get(f"{name}.weight"))

    def norm(self, x, name=None):
        x = x / np.sqrt((x * x).mean(-1, keepdims=True) + self.eps)
        return x if name is None else x * self[name]

    def product(self, x, name):
        return x @ self[name].T


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def silu(x):
    return x * sigmoid(x)


def gelu(x):
    return 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))


def softplus(x):
    return np.log1p(np.exp(x))


def convolve(m, name, x):
    """SiLU of a causal convolution: [tokens][channels] with [channels][kernel]."""
    weights, bias = m[name], m.get(f"{name}.bias")
    kernel = weights.shape[1]
    padded = np.vstack([np.zeros((kernel - 1, x.shape[1])), x])
    y = sum(padded[j : j + len(x)] * weights[:, j] for j in range(kernel))
    return silu(y if bias is None else y + bias)


def rotate(x, dims, base, divisors=1.0):
    """Pairs of halves of the first `dims` elements of each head: [tokens][heads][elements]."""
    half = dims // 2
    angles = np.arange(len(x))[:, None] * base ** (-np.arange(half) / half) / divisors
    cos, sin = np.cos(angles)[:, None], np.sin(angles)[:, None]
    a, b = x[..., :half], x[..., half:dims]
    return np.concatenate([a * cos - b * sin, a * sin + b * cos, x[..., dims:]], -1)


def attend(q, k, v, scale, window=None):
    """Of [tokens][heads][elements]; query heads follow each other where they share a key head."""
    k, v = (np.repeat(x, q.shape[1] // k.shape[1], axis=1) for x in (k, v))
    away = np.arange(len(q))[:, None] - np.arange(len(q))[None, :]
    seen = (away >= 0) & (away < (window or len(q)))
    scores = np.where(seen, scale * np.einsum("qhd,khd->hqk", q, k), -np.inf)
    shares = np.exp(scores - scores.max(-1, keepdims=True))
    return np.einsum("hqk,khd->qhd", shares / shares.sum(-1, keepdims=True), v)


def gated_delta_net(m, b, h):
    tokens, length = len(h), m.key("ssm.state_size")
    heads, groups = m.key("ssm.time_step_rank"), m.key("ssm.group_count")
    rows = convolve(m, b + "ssm_conv1d", m.product(h, b + "attn_qkv"))
    q, k, v = np.split(rows, [groups * length, 2 * groups * length], axis=1)
    q, k = (x.reshape(tokens, groups, length) for x in (q, k))
    q, k = (x / np.sqrt((x * x).sum(-1, keepdims=True) + m.eps) for x in (q, k))
    v = v.reshape(tokens, heads, -1)
    beta = sigmoid(m.product(h, b + "ssm_beta"))
    decay = np.exp(m[b + "ssm_a"].ravel() * softplus(m.product(h, b + "ssm_alpha") + m[b + "ssm_dt.bias"]))
    state, out = np.zeros((heads, length, v.shape[2])), np.zeros(v.shape)
    for t in range(tokens):
        for head in range(heads):
            key, query, s = k[t, head % groups], q[t, head % groups], state[head]
            s *= decay[t, head]
            s += np.outer(key, beta[t, head] * (v[t, head] - key @ s))
            out[t, head] = query @ s / np.sqrt(length)
    gate = silu(m.product(h, b + "attn_gate"))
    return m.product(m.norm(out, b + "ssm_norm").reshape(tokens, -1) * gate, b + "ssm_out")


def gated_attention(m, b, h):
    tokens, dim, kv_heads = len(h), m.key("attention.key_length"), m.key("attention.head_count_kv")
    dims, base = m.key("rope.dimension_count"), m.key("rope.freq_base")
    both = m.product(h, b + "attn_q").reshape(tokens, -1, 2 * dim)
    q, gate = both[..., :dim], both[..., dim:]
    k, v = (m.product(h, b + f"attn_{part}").reshape(tokens, kv_heads, dim) for part in "kv")
    q, k = (rotate(m.norm(x, b + f"attn_{part}_norm"), dims, base) for part, x in (("q", q), ("k", k)))
    out = attend(q, k, v, 1 / np.sqrt(dim)) * sigmoid(gate)
    return m.product(out.reshape(tokens, -1), b + "attn_output")


def qwen35(m, tokens):
    x = m["token_embd"][tokens]
    for i in range(m.layers):
        b = f"blk.{i}."
        h = m.norm(x, b + "attn_norm")
        x = x + (gated_attention if m.get(b + "ssm_a") is None else gated_delta_net)(m, b, h)
        h = m.norm(x, b + "post_attention_norm")
        x = x + m.product(silu(m.product(h, b + "ffn_gate")) * m.product(h, b + "ffn_up"), b + "ffn_down")
    return x


def state_space(m, b, h):
    tokens, length, inner = len(h), m.key("ssm.state_size"), m.key("ssm.inner_size")
    heads, groups = m.key("ssm.time_step_rank"), m.key("ssm.group_count")
    z, rows, dt = np.split(m.product(h, b + "ssm_in"), [inner, 2 * inner + 2 * groups * length], axis=1)
    x, k, q = np.split(convolve(m, b + "ssm_conv1d", rows), [inner, inner + groups * length], axis=1)
    k, q = (part.reshape(tokens, groups, length) for part in (k, q))
    x, skip = x.reshape(tokens, heads, -1), m[b + "ssm_d"].ravel()
    dt = softplus(dt + m[b + "ssm_dt.bias"])
    decay = np.exp(dt * m[b + "ssm_a"].ravel())
    state, out = np.zeros((heads, length, x.shape[2])), np.zeros(x.shape)
    for t in range(tokens):
        for head in range(heads):
            s, of = state[head], head // (heads // groups)
            s *= decay[t, head]
            s += np.outer(k[t, of], dt[t, head] * x[t, head])
            out[t, head] = q[t, of] @ s + skip[head] * x[t, head]
    y = (out.reshape(tokens, inner) * silu(z)).reshape(tokens, groups, -1)
    return m.product((m.norm(y) * m[b + "ssm_norm"].reshape(groups, -1)).reshape(tokens, inner), b + "ssm_out")


def mamba2(m, tokens):
    x = m["token_embd"][tokens]
    for i in range(m.layers):
        x = x + state_space(m, f"blk.{i}.", m.norm(x, f"blk.{i}.attn_norm"))
    return x


def shared_attention(m, i, h, cache):
    """Attention whose last layers read the keys and values of the last of their kind that has its own."""
    window, b, tokens = m.at("attention.sliding_window_pattern", i), f"blk.{i}.", len(h)
    dim = m.key("attention.key_length_swa" if window else "attention.key_length")
    base = m.key("rope.freq_base_swa", 10000.0) if window else m.key("rope.freq_base")
    divisors = 1.0 if window or m.get("rope_freqs") is None else m["rope_freqs"]
    q = m.product(h, b + "attn_q").reshape(tokens, -1, dim)
    q = rotate(m.norm(q, b + "attn_q_norm"), dim, base, divisors)
    own = m.layers - m.key("attention.shared_kv_layers", 0)
    if i < own:
        k = m.product(h, b + "attn_k").reshape(tokens, -1, dim)
        v = k if m.get(b + "attn_v") is None else m.product(h, b + "attn_v").reshape(tokens, -1, dim)
        cache[i] = rotate(m.norm(k, b + "attn_k_norm"), dim, base, divisors), m.norm(v)
    k, v = cache[i if i < own else own - (2 if window else 1)]
    out = attend(q, k, v, 1.0, m.key("attention.sliding_window") if window else None)
    return m.product(out.reshape(tokens, -1), b + "attn_output")


def gemma4(m, tokens):
    width, part = m.key("embedding_length"), m.key("embedding_length_per_layer_input", 0)
    x = m["token_embd"][tokens] * np.sqrt(width)
    if part:
        inputs = (m.product(x, "per_layer_model_proj") / np.sqrt(width)).reshape(len(x), m.layers, part)
        rows = m["per_layer_token_embd"][tokens].reshape(len(x), m.layers, part)
        inputs = (m.norm(inputs, "per_layer_proj_norm") + rows * np.sqrt(part)) / np.sqrt(2)
    cache = {}
    for i in range(m.layers):
        b = f"blk.{i}."
        x = x + m.norm(shared_attention(m, i, m.norm(x, b + "attn_norm"), cache), b + "post_attention_norm")
        h = m.norm(x, b + "ffn_norm")
        y = m.product(gelu(m.product(h, b + "ffn_gate")) * m.product(h, b + "ffn_up"), b + "ffn_down")
        x = x + m.norm(y, b + "post_ffw_norm")
        if part:
            y = m.product(gelu(m.product(x, b + "inp_gate")) * inputs[:, i], b + "proj")
            x = x + m.norm(y, b + "post_norm")
        scale = m.get(b + "layer_output_scale")
        x = x if scale is None else x * scale
    return x


FAMILIES = {"qwen35": qwen35, "mamba2": mamba2, "gemma4": gemma4}


def logits(m, tokens):
    x = m.norm(FAMILIES[m.family](m, tokens), "output_norm")
    y = m.product(x, "token_embd" if m.get("output") is None else "output")
    cap = m.key("final_logit_softcapping", 0)
    return cap * np.tanh(y / cap) if cap else y


def of_program(program, path, tokens, vocab):
    with tempfile.TemporaryDirectory() as folder:
        out = os.path.join(folder, "logits")
        subprocess.run([program, "--tokens", ",".join(map(str, tokens)), out, path], check=True)
        return np.fromfile(out, np.float32).reshape(len(tokens), vocab)


def distance(given, exact):
    """Of all logits, and at the worst position, relative."""
    apart = np.linalg.norm(given - exact, axis=1) / np.linalg.norm(exact, axis=1)
    return np.linalg.norm(given - exact) / np.linalg.norm(exact), apart.max()


def main():
    arguments, program, failed = sys.argv[1:], None, False
    if arguments[:1] == ["--program"]:
        program, arguments = arguments[1], arguments[2:]
    if not arguments:
        raise SystemExit(__doc__.strip())
    for path in arguments:
        stem, model = path.removesuffix(".gguf"), Model(path)
        arrays = f"{stem}.npz"
        if not os.path.exists(arrays):
            folder = os.path.basename(os.path.dirname(os.path.abspath(path)))
            arrays = os.path.join(GOLDEN, folder, os.path.basename(arrays))
        arrays = np.load(arrays)
        tokens = arrays["tokens"]
        exact = logits(model, tokens)
        told = f"{os.path.basename(stem):16}"
        of = [("llama.cpp", arrays["logits"])]
        if program:
            of.append(("layerline", of_program(program, path, tokens, exact.shape[1])))
        for name, given in of:
            whole, worst = distance(given.astype(np.float64), exact)
            told += f"  {name} {whole:.1e}, worst position {worst:.1e};"
        limit = WITHOUT if model.family == "mamba2" else WITH_CACHE
        # NaN must not pass.
        if program and not worst < limit:
            failed, told = True, f"{told} more than {limit}"
        print(told, flush=True)
    raise SystemExit(1 if failed else 0)


if __name__ == "__main__":
    main()
