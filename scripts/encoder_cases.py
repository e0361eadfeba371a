#!/usr/bin/env python3
"""Makes the tiny random encoders of tests/data/golden/encoder, with embeddings of every token from other programs.

    encoder_cases.py DIRECTORY [CASE...]

Those of `bert` are computed by transformers with JAX (packages transformers<5, flax, jax), because llama.cpp takes another
gelu there than the one the models were trained with; those of `nomic-bert` by llama.cpp. See arch_cases.py for the rest.
"""

import math
import os

import numpy as np

from arch_cases import HEADS, VOCAB, WIDTH, Case, peer_batch, peer_rows, write_recipe, written_cases


def encoder(name, arch, context=64, **keys):
    keys.setdefault("kv_heads", keys.get("heads", HEADS))
    c = Case(name, arch, **keys).layer_norms().drop("attention.head_count_kv")
    c.set(context_length=context, pooling_type=1, **{"attention.causal": False, "tokenizer.ggml.token_type_count": 2})
    c.context = context
    return c.matrix("token_types", c.width, 2, scale=1.0).norm("token_embd_norm", bias=True)


def bert():
    c = encoder("bert", "bert").drop("rope.freq_base").matrix("position_embd", WIDTH, 64, scale=1.0)
    for i in range(c.layers):
        c.attention(i, bias=True, out_bias=True).norm(f"blk.{i}.attn_output_norm", bias=True)
        c.feed_forward(i, gate=False, bias=True).norm(f"blk.{i}.layer_output_norm", bias=True)
    return c


def nomic_bert():
    c = encoder("nomic-bert", "nomic-bert").set(**{"rope.freq_base": 1000.0})
    for i in range(c.layers):
        c.attention(i, fused=True).norm(f"blk.{i}.attn_output_norm", bias=True)
        c.feed_forward(i).norm(f"blk.{i}.layer_output_norm", bias=True)
    return c


def jina_bert_v3():
    c = encoder("jina-bert-v3", "jina-bert-v3").set(**{"rope.freq_base": 20000.0})
    for i in range(c.layers):
        c.attention(i, fused=True, bias=True, out_bias=True).norm(f"blk.{i}.attn_output_norm", bias=True)
        c.feed_forward(i, gate=False, bias=True).norm(f"blk.{i}.layer_output_norm", bias=True)
    return c


def jina_bert_v2(code):
    """`code`: norms of queries and keys, gates apart from the up projection, and a number of heads that is no power of 2."""
    name, heads = ("jina-bert-v2-code", 6) if code else ("jina-bert-v2", HEADS)
    c = encoder(name, "jina-bert-v2", heads=heads, width=48 if code else WIDTH).drop("rope.freq_base")
    c.set(**{"attention.head_count": heads})
    for i in range(c.layers):
        b = f"blk.{i}."
        c.attention(i, bias=True, out_bias=True).norm(b + "attn_output_norm", bias=True)
        if code:
            c.norm(b + "attn_q_norm", bias=True).norm(b + "attn_k_norm", bias=True)
        c.feed_forward(i, gate=True if code else "fused").norm(b + "layer_output_norm", bias=True).bias(b + "ffn_down", c.width)
    return c


def modern_bert(gain=1.0):
    """Windows of 9 in four of six layers; SiLU, because llama.cpp takes another gelu than the models were trained with."""
    c = Case("modern-bert", "modern-bert", layers=6, kv_heads=HEADS, gain=gain, **{
        "attention.sliding_window": 8, "rope.scaling.type": "none", "attention.causal": False, "pooling_type": 1,
        "rope.freq_base_swa": 3000.0, "hidden_activation": "silu",
    }).layer_norms().drop("attention.head_count_kv").set(**{"rope.freq_base": 160000.0})  # fmt: skip
    c.norm("token_embd_norm")
    for i in range(c.layers):
        if i > 0:
            c.norm(f"blk.{i}.attn_norm")
        c.attention(i, fused=True).norm(f"blk.{i}.ffn_norm").feed_forward(i, gate="fused")
    return c.norm("output_norm")


def gemma_embedding():
    """With two matrices behind the last norm."""
    c = Case("gemma-embedding", "gemma-embedding", layers=7, head=12, gain=0.5, **{
        "attention.key_length": 12, "attention.value_length": 12, "attention.sliding_window": 8, "pooling_type": 1,
        "dense_2_feat_in": WIDTH, "dense_2_feat_out": 40, "dense_3_feat_in": 40, "dense_3_feat_out": WIDTH,
    }).set(**{"rope.freq_base": 1000000.0})  # fmt: skip
    for i in range(c.layers):
        b = f"blk.{i}."
        c.norm(b + "attn_norm").attention(i).norm(b + "attn_q_norm", 12).norm(b + "attn_k_norm", 12)
        c.norm(b + "post_attention_norm", mean=0.5).norm(b + "ffn_norm").feed_forward(i).norm(b + "post_ffw_norm", mean=0.5)
    return c.matrix("dense_2", WIDTH, 40).matrix("dense_3", 40, WIDTH).norm("output_norm")


def rank(c, *, inner, output, norm=False):
    """The same with a classifier: as many rows of `inner`, and of `output` behind them."""
    c.name += "-rank"
    if inner:
        c.matrix("cls", c.width, inner)
        if c.arch != "modern-bert":
            c.bias("cls", inner)
    if norm:
        c.norm("cls.norm")
    if output:
        c.matrix("cls.output", inner or c.width, output).bias("cls.output", output)
        c.set(**{"classifier.output_labels": [f"label {i}" for i in range(output)]})
    return c


def rankers():
    return [
        rank(bert(), inner=WIDTH, output=1), rank(jina_bert_v2(False), inner=1, output=0),
        rank(modern_bert(gain=0.2), inner=WIDTH, output=2, norm=True),
    ]  # fmt: skip


def modern_score(case, rows):
    """A score from hidden states, in float64 with the gelu that models were trained with."""
    t = {name: values.astype(np.float64) for name, values in case.tensors.items()}
    y = t["cls.weight"] @ rows.astype(np.float64).mean(axis=0)
    y = 0.5 * y * (1 + np.array([math.erf(x / math.sqrt(2)) for x in y]))
    y = (y - y.mean()) / np.sqrt(y.var() + case.keys["attention.layer_norm_epsilon"]) * t["cls.norm.weight"]
    return t["cls.output.weight"] @ y + t["cls.output.bias"]


def peer_score(path, tokens, decoder=False):
    """What llama.cpp's classifier makes of the tokens."""
    import llama_cpp as peer

    model = peer.llama_model_load_from_file(path.encode(), peer.llama_model_default_params())
    params = peer.llama_context_default_params()
    params.n_ctx = params.n_batch = params.n_ubatch = 64
    params.flash_attn_type, params.n_threads, params.n_threads_batch = 0, 1, 1
    params.embeddings, params.pooling_type = True, 4
    context = peer.llama_init_from_model(model, params)
    batch = peer_batch(tokens)
    if (peer.llama_decode if decoder else peer.llama_encode)(context, batch) != 0:
        raise SystemExit(f"{path}: llama.cpp fails on it")
    count = peer.llama_model_n_cls_out(model)
    score = np.ctypeslib.as_array(peer.llama_get_embeddings_seq(context, 0), (count,)).copy()
    peer.llama_batch_free(batch)
    peer.llama_free(context)
    peer.llama_model_free(model)
    return score


def linear(tensors, name):
    return {"kernel": tensors[f"{name}.weight"].T, "bias": tensors[f"{name}.bias"]}


def layer_norm(tensors, name):
    return {"scale": tensors[f"{name}.weight"], "bias": tensors[f"{name}.bias"]}


def bert_by_transformers(case, tokens):
    """A row for each token: the last hidden state, in float64."""
    import jax

    jax.config.update("jax_enable_x64", True)
    from transformers import BertConfig, FlaxBertModel

    config = BertConfig(
        vocab_size=VOCAB, hidden_size=WIDTH, num_hidden_layers=case.layers, num_attention_heads=HEADS,
        intermediate_size=case.inner, max_position_embeddings=case.context, layer_norm_eps=1e-5, hidden_act="gelu",
    )  # fmt: skip
    t = case.tensors
    tables = {"word_embeddings": "token_embd", "position_embeddings": "position_embd", "token_type_embeddings": "token_types"}
    embeddings = {name: {"embedding": t[f"{table}.weight"]} for name, table in tables.items()}
    embeddings["LayerNorm"] = layer_norm(t, "token_embd_norm")
    layers = {}
    for i in range(case.layers):
        b = f"blk.{i}."
        parts = {"query": "attn_q", "key": "attn_k", "value": "attn_v"}
        layers[str(i)] = {
            "attention": {
                "self": {name: linear(t, b + part) for name, part in parts.items()},
                "output": {"dense": linear(t, b + "attn_output"), "LayerNorm": layer_norm(t, b + "attn_output_norm")},
            },
            "intermediate": {"dense": linear(t, b + "ffn_up")},
            "output": {"dense": linear(t, b + "ffn_down"), "LayerNorm": layer_norm(t, b + "layer_output_norm")},
        }
    parameters = {"embeddings": embeddings, "encoder": {"layer": layers}}
    parameters = jax.tree_util.tree_map(lambda x: np.asarray(x, np.float64), parameters)
    model = FlaxBertModel(config, dtype=np.float64, add_pooling_layer=False, _do_init=False)
    out = model(tokens[None, :], params=parameters)
    return np.asarray(out.last_hidden_state)[0]


def all_cases():
    return [
        bert(), nomic_bert(), jina_bert_v2(False), jina_bert_v2(True), jina_bert_v3(), modern_bert(), gemma_embedding(),
        *rankers(),
    ]  # fmt: skip


def main():
    for case, path, tokens in written_cases(__doc__, all_cases()):
        if case.name == "bert":
            rows = bert_by_transformers(case, tokens)
        else:
            rows = peer_rows(path, tokens, embeddings=True)
        more = {"score": peer_score(path, tokens)} if "cls.weight" in case.tensors else {}
        if case.name == "modern-bert-rank":
            exact = modern_score(case, rows).astype(np.float32)
            assert np.abs(exact - more["score"]).max() < 2e-3, (exact, more)
            more["score"] = exact
        np.savez(path[: -len(".gguf")] + ".npz", tokens=tokens, embeddings=rows.astype(np.float32), **more)
        write_recipe(case, "encoder", path)
        print(f"{case.name:12} {os.path.getsize(path) / 1024:6.0f} KiB, spread over {rows.std():.2f}", flush=True)


if __name__ == "__main__":
    main()
