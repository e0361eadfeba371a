#!/usr/bin/env python3
"""Logits of a Gemma 4 model without experts in float64, by plain numpy: per-layer inputs, shared keys and values, heads by layer.

    reference_layer_inputs.py MODEL.gguf ARRAYS.npz

Prints how far the `logits` of ARRAYS.npz, for its `tokens`, are from them (relative, the norm of all, and the worst
position), so that it is clear whose rounding differs. Needs the packages gguf and numpy.
"""

import sys

import gguf
import numpy as np


class Model:
    def __init__(self, path):
        reader = gguf.GGUFReader(path)
        self.keys = {name: field.contents() for name, field in reader.fields.items()}
        self.tensors = {t.name: gguf.dequantize(t.data, t.tensor_type).astype(np.float64) for t in reader.tensors}
        self.eps = self.key("attention.layer_norm_rms_epsilon")

    def key(self, name, default=None):
        return self.keys.get(f"gemma4.{name}", default)

    def at(self, name, layer):
        value = self.key(name)
        return value[layer] if isinstance(value, list) else value

    def tensor(self, name):
        return self.tensors.get(f"{name}.weight")

    def norm(self, x, weight=None):
        x = x / np.sqrt((x**2).mean(axis=-1, keepdims=True) + self.eps)
        return x if weight is None else x * weight


def gelu(x):
    return 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))


def rotate(x, base, divisors):
    """Heads x, [tokens][heads][elements], with their halves as pairs."""
    tokens, half = x.shape[0], x.shape[2] // 2
    angles = np.arange(tokens)[:, None] * base ** (-np.arange(half) / half) / divisors
    cos, sin = np.cos(angles)[:, None], np.sin(angles)[:, None]
    a, b = x[..., :half], x[..., half:]
    return np.concatenate([a * cos - b * sin, a * sin + b * cos], axis=-1)


def attention(m, i, x, cache):
    window = m.at("attention.sliding_window_pattern", i)
    dim = m.key("attention.key_length_swa" if window else "attention.key_length")
    heads, kv_heads = m.at("attention.head_count", i), m.at("attention.head_count_kv", i)
    base = m.key("rope.freq_base_swa", 10000.0) if window else m.key("rope.freq_base")
    divisors = 1.0 if window else m.tensor("rope_freqs")
    b, tokens = f"blk.{i}.", len(x)
    h = m.norm(x, m.tensor(b + "attn_norm"))
    split = lambda y: y.reshape(tokens, -1, dim)
    q = rotate(m.norm(split(h @ m.tensor(b + "attn_q").T), m.tensor(b + "attn_q_norm")), base, divisors)
    own = m.key("block_count") - m.key("attention.shared_kv_layers", 0)
    if i < own:
        k = split(h @ m.tensor(b + "attn_k").T)
        v = k if m.tensor(b + "attn_v") is None else split(h @ m.tensor(b + "attn_v").T)
        cache[i] = rotate(m.norm(k, m.tensor(b + "attn_k_norm")), base, divisors), m.norm(v)
    k, v = cache[i if i < own else own - (2 if window else 1)]
    k, v = (np.repeat(y, heads // kv_heads, axis=1) for y in (k, v))
    scores = np.einsum("qhd,khd->hqk", q, k)
    away = np.arange(tokens)[:, None] - np.arange(tokens)[None, :]
    seen = (away >= 0) & (away < m.key("attention.sliding_window") if window else True)
    scores = np.where(seen, scores, -np.inf)
    shares = np.exp(scores - scores.max(axis=-1, keepdims=True))
    shares /= shares.sum(axis=-1, keepdims=True)
    out = np.einsum("hqk,khd->qhd", shares, v).reshape(tokens, -1) @ m.tensor(b + "attn_output").T
    return x + m.norm(out, m.tensor(b + "post_attention_norm"))


def logits(m, tokens):
    width, layers, part = m.key("embedding_length"), m.key("block_count"), m.key("embedding_length_per_layer_input", 0)
    table = m.tensor("token_embd")
    x = table[tokens] * np.sqrt(width)
    if part:
        inputs = (x @ m.tensor("per_layer_model_proj").T / np.sqrt(width)).reshape(len(x), layers, part)
        rows = m.tensor("per_layer_token_embd")[tokens].reshape(len(x), layers, part)
        inputs = (m.norm(inputs, m.tensor("per_layer_proj_norm")) + rows * np.sqrt(part)) / np.sqrt(2)
    cache = {}
    for i in range(layers):
        b = f"blk.{i}."
        x = attention(m, i, x, cache)
        h = m.norm(x, m.tensor(b + "ffn_norm"))
        y = gelu(h @ m.tensor(b + "ffn_gate").T) * (h @ m.tensor(b + "ffn_up").T) @ m.tensor(b + "ffn_down").T
        x = x + m.norm(y, m.tensor(b + "post_ffw_norm"))
        if part:
            y = gelu(x @ m.tensor(b + "inp_gate").T) * inputs[:, i] @ m.tensor(b + "proj").T
            x = x + m.norm(y, m.tensor(b + "post_norm"))
        scale = m.tensor(b + "layer_output_scale")
        x = x if scale is None else x * scale
    head = m.tensor("output")
    y = m.norm(x, m.tensor("output_norm")) @ (table if head is None else head).T
    cap = m.key("final_logit_softcapping", 0)
    return cap * np.tanh(y / cap) if cap else y


def main():
    if len(sys.argv) != 3:
        raise SystemExit(__doc__.strip())
    model, arrays = Model(sys.argv[1]), np.load(sys.argv[2])
    exact, given = logits(model, arrays["tokens"]), arrays["logits"]
    apart = np.linalg.norm(given - exact, axis=1) / np.linalg.norm(exact, axis=1)
    print(f"{np.linalg.norm(given - exact) / np.linalg.norm(exact):.2e} in all, {apart.max():.2e} at the worst position")


if __name__ == "__main__":
    main()
