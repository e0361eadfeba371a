#!/usr/bin/env python3
"""Makes further tiny random models, those of tests/data/golden/family: of architectures with recurrent layers, and with many experts.

    family_cases.py DIRECTORY [CASE...]

As arch_cases.py, which has the rest; what tests/data needs of each is written there. Sizes are not those of golden/arch2: heads, groups and kernels that are odd or alone,
other patterns of layers, few tokens of vocabulary, since only logits are kept.
"""

import os

import numpy as np

from encoder_cases import peer_score
from arch_cases import Case, peer_rows, written_cases
from redraw_models import GOLDEN, store

EPSILON = "attention.layer_norm_rms_epsilon"
WIDTH, EXPERTS, EXPERT_INNER = 40, 5, 24


def case(name, arch=None, layers=3, heads=4, kv_heads=1, head=8, seed=0, **keys):
    c = Case(name, arch or name, layers=layers, width=WIDTH, heads=heads, kv_heads=kv_heads, inner=56, head=head, gain=0.5, seed=seed, vocab=64)
    # Large, so that norms do not enlarge the roundings of what is small.
    return c.set(**{EPSILON: 0.01, "attention.key_length": head, "attention.value_length": head, **keys})


def expert_keys(used=2, **keys):
    return {"expert_count": EXPERTS, "expert_used_count": used, "expert_feed_forward_length": EXPERT_INNER, **keys}


def attention(c, i, norms=True, bias=False, gated=False):
    b = f"blk.{i}."
    q, k = c.heads * c.head, c.kv_heads * c.head
    if c.arch == "bailingmoe2":
        c.linear(b + "attn_qkv", c.width, q + 2 * k)
    else:
        for part, rows in (("q", 2 * q if gated else q), ("k", k), ("v", k)):
            c.linear(b + f"attn_{part}", c.width, rows, bias)
    if norms == "whole":
        c.norm(b + "attn_q_norm", q).norm(b + "attn_k_norm", k)
    elif norms:
        c.norm(b + "attn_q_norm", c.head).norm(b + "attn_k_norm", c.head)
    return c.matrix(b + "attn_output", q, c.width, scale=c.gain)


def experts(c, i, shared=0, bias=True, inner=EXPERT_INNER, count=EXPERTS, gate=True):
    b = f"blk.{i}."
    c.matrix(b + "ffn_gate_inp", c.width, count, scale=3.0)
    for part in ("gate", "up") if gate else ("up",):
        c.matrix(b + f"ffn_{part}_exps", c.width, count, inner)
    c.matrix(b + "ffn_down_exps", inner, count, c.width)
    if shared:
        c.feed_forward(i, gate=gate, names=("ffn_gate_shexp", "ffn_up_shexp", "ffn_down_shexp"), inner=shared)
    return c.bias(b + "exp_probs_b", count) if bias else c


def finish(c, tied=False, norm="output_norm"):
    c.norm(norm)
    return c if tied else c.matrix("output", c.width, c.vocab, scale=3.0)


def delta_keys(heads, groups, kernel, length=8):
    return {
        "ssm.conv_kernel": kernel, "ssm.inner_size": heads * length, "ssm.state_size": length,
        "ssm.time_step_rank": heads, "ssm.group_count": groups,
    }  # fmt: skip


def delta_net(c, i, grouped=False):
    b, heads, groups = f"blk.{i}.", c.keys["ssm.time_step_rank"], c.keys["ssm.group_count"]
    length, inner = c.keys["ssm.state_size"], c.keys["ssm.inner_size"]
    channels = inner + 2 * groups * length
    c.matrix(b + "attn_qkv", c.width, channels).matrix(b + "attn_gate", c.width, inner)
    if grouped:
        c.matrix(b + "ssm_ba", c.width, 2 * heads)
    else:
        c.matrix(b + "ssm_alpha", c.width, heads).matrix(b + "ssm_beta", c.width, heads)
    c.matrix(b + "ssm_conv1d", c.keys["ssm.conv_kernel"], channels)
    c.numbers(b + "ssm_a", heads, -1.5, -0.3).bias(b + "ssm_dt", heads)
    return c.norm(b + "ssm_norm", length).matrix(b + "ssm_out", inner, c.width, scale=c.gain)


def qwen35(name, arch, layers, grouped=False, interval=4, moe=False, tied=False, **keys):
    c = case(name, arch, layers=layers, heads=3, kv_heads=1, head=16, **{"rope.dimension_count": 8}, **keys)
    for i in range(layers):
        c.norm(f"blk.{i}.attn_norm").norm(f"blk.{i}.post_attention_norm")
        if (i + 1) % interval:
            delta_net(c, i, grouped)
        else:
            attention(c, i, gated=True)
        if moe:
            experts(c, i, shared=16, bias=False)
            c.norm(f"blk.{i}.ffn_gate_inp_shexp", mean=0.5)
        else:
            c.feed_forward(i)
    return finish(c, tied)


def mamba_keys(heads, groups, state, inner, kernel=4):
    return {
        "ssm.conv_kernel": kernel, "ssm.inner_size": inner, "ssm.state_size": state, "ssm.time_step_rank": heads,
        "ssm.group_count": groups,
    }  # fmt: skip


def mamba(c, i):
    b, groups, inner = f"blk.{i}.", c.keys["ssm.group_count"], c.keys["ssm.inner_size"]
    heads, channels = c.keys["ssm.time_step_rank"], inner + 2 * groups * c.keys["ssm.state_size"]
    c.matrix(b + "ssm_in", c.width, inner + channels + heads)
    c.matrix(b + "ssm_conv1d", c.keys["ssm.conv_kernel"], channels).bias(b + "ssm_conv1d", channels)
    c.numbers(b + "ssm_a", (heads, 1), -1.5, -0.3).numbers(b + "ssm_d", (heads, 1), 0.5, 1.5).bias(b + "ssm_dt", heads)
    return c.norm(b + "ssm_norm", groups, inner // groups).matrix(b + "ssm_out", inner, c.width, scale=c.gain)


def mamba2():
    c = case("mamba2", heads=1, feed_forward_length=0, **mamba_keys(5, 1, 8, 60, kernel=3))
    c.drop("attention.key_length", "attention.value_length", "attention.head_count", "attention.head_count_kv", "rope.freq_base")
    for i in range(c.layers):
        mamba(c.norm(f"blk.{i}.attn_norm"), i)
    return finish(c)


def granitehybrid():
    c = case("granitehybrid", layers=4, kv_heads=2, **expert_keys(
        expert_shared_feed_forward_length=32, logit_scale=2.5, residual_scale=0.4, embedding_scale=3.0,
        feed_forward_length=EXPERT_INNER, **{"attention.scale": 0.25, **mamba_keys(4, 4, 8, 2 * WIDTH)},
    ))  # fmt: skip
    # The first and the third have attention.
    c.set(**{"attention.head_count_kv": [2, 0, 2, 0]})
    for i in range(c.layers):
        c.norm(f"blk.{i}.attn_norm").norm(f"blk.{i}.ffn_norm")
        (mamba if i % 2 else lambda c, i: attention(c, i, norms=False))(c, i)
        experts(c, i, shared=32, bias=False)
    return finish(c)


def nemotron_h(moe):
    kinds = [2, 0, 1, 0, 1, 2]
    c = case("nemotron_h_moe" if moe else "nemotron_h", layers=6, **mamba_keys(6, 3, 8, 48))
    c.set(**{"attention.layer_norm_epsilon": 0.01})
    c.set(**{
        "attention.head_count_kv": [1 if kind == 2 else 0 for kind in kinds],
        "feed_forward_length": [56 if kind == 1 else 0 for kind in kinds],
    })  # fmt: skip
    if moe:
        c.set(**expert_keys(
            3, expert_shared_feed_forward_length=16, expert_shared_count=1, expert_weights_norm=True,
            expert_weights_scale=1.5,
        ))  # fmt: skip
    for i, kind in enumerate(kinds):
        c.norm(f"blk.{i}.attn_norm")
        if kind == 0:
            mamba(c, i)
        elif kind == 2:
            attention(c, i, norms=False)
        elif moe:
            experts(c, i, shared=16, gate=False)
        else:
            c.feed_forward(i, gate=False)
    return finish(c)


def falcon_h1():
    c = case("falcon-h1", heads=3, **{"rope.dimension_count": 8, **mamba_keys(5, 1, 16, 40)})
    for i in range(c.layers):
        mamba(attention(c.norm(f"blk.{i}.attn_norm"), i, norms=False), i)
        c.tensors[f"blk.{i}.ffn_norm"] = c.norm(f"blk.{i}.ffn_norm").tensors.pop(f"blk.{i}.ffn_norm.weight")
        c.feed_forward(i)
    return finish(c, tied=True)


def lfm2(moe):
    full = {1, 3}
    c = case("lfm2moe" if moe else "lfm2", layers=4, heads=5, kv_heads=1, **{"shortconv.l_cache": 3 if moe else 4})
    c.set(**{"attention.head_count_kv": [1 if i in full else 0 for i in range(4)]})
    if moe:
        c.set(leading_dense_block_count=2, **expert_keys(3, expert_gating_func=2))
    for i in range(c.layers):
        b = f"blk.{i}."
        c.norm(b + "attn_norm").norm(b + "ffn_norm")
        if i in full:
            attention(c, i)
        else:
            c.matrix(b + "shortconv.in_proj", c.width, 3 * c.width).matrix(b + "shortconv.conv", c.keys["shortconv.l_cache"], c.width)
            c.matrix(b + "shortconv.out_proj", c.width, c.width, scale=c.gain)
        if moe and i > 1:
            experts(c, i)
        else:
            c.feed_forward(i)
    return finish(c, tied=True, norm="token_embd_norm")


def kimi_linear():
    latent, plain, rotated, value, length = 12, 8, 4, 10, 8
    c = case("kimi-linear", heads=3, **expert_keys(
        3, leading_dense_block_count=1, expert_shared_count=1, expert_gating_func=2, expert_weights_scale=1.5,
        **{
            "attention.kv_lora_rank": latent, "attention.key_length": latent + rotated, "attention.value_length": latent,
            "attention.key_length_mla": plain + rotated, "attention.value_length_mla": value,
            "rope.dimension_count": rotated, "ssm.conv_kernel": 3, "kda.head_dim": length,
            "attention.head_count_kv": [0, 1, 0],
        },
    ))  # fmt: skip
    inner = c.heads * length
    for i in range(c.layers):
        b = f"blk.{i}."
        c.norm(b + "attn_norm").norm(b + "ffn_norm")
        if i == 1:
            c.matrix(b + "attn_q", c.width, c.heads * (plain + rotated)).matrix(b + "attn_kv_a_mqa", c.width, latent + rotated)
            c.norm(b + "attn_kv_a_norm", latent).matrix(b + "attn_k_b", plain, c.heads, latent)
            c.matrix(b + "attn_v_b", latent, c.heads, value).matrix(b + "attn_output", c.heads * value, c.width, scale=c.gain)
        else:
            for part in "qkv":
                c.matrix(b + f"attn_{part}", c.width, inner).matrix(b + f"ssm_conv1d_{part}", 3, inner, 1)
            for part in "fg":
                c.matrix(b + f"ssm_{part}_a", c.width, length).matrix(b + f"ssm_{part}_b", length, inner)
            c.matrix(b + "ssm_beta", c.width, c.heads).bias(b + "ssm_dt", inner)
            c.numbers(b + "ssm_a", (c.heads, 1), -1.5, -0.3).norm(b + "ssm_norm", length)
            c.matrix(b + "attn_output", inner, c.width, scale=c.gain)
        if i == 0:
            c.feed_forward(i)
        else:
            experts(c, i, shared=EXPERT_INNER)
    return finish(c)


def mixture(
    name, arch=None, layers=3, dense=(0,), shared=0, norms=True, bias=True, qkv_bias=False, norm="ffn_norm", tied=False,
    inner=EXPERT_INNER, count=EXPERTS, selection=".bias", **keys,
):  # fmt: skip
    """Layers of experts after dense ones."""
    c = case(name, arch, layers=layers, kv_heads=keys.pop("kv_heads", 1), head=keys.pop("head", 8), **expert_keys())
    c.set(**keys)
    for i in range(layers):
        b = f"blk.{i}."
        c.norm(b + "attn_norm")
        attention(c, i, norms, qkv_bias)
        if norm:
            c.norm(b + norm)
        if i in dense:
            c.feed_forward(i)
            continue
        experts(c, i, shared, bias, inner, count)
        if bias and not selection:
            c.tensors[b + "exp_probs_b"] = c.tensors.pop(b + "exp_probs_b.bias")
    return finish(c, tied)


def dense(name, arch=None, layers=2, norms=False, norm_names=("attn_norm", "ffn_norm"), after=(), tied=False, qkv_bias=False, **keys):
    c = case(name, arch, layers=layers, heads=5, **keys)
    for i in range(layers):
        b = f"blk.{i}."
        for part in norm_names:
            c.norm(b + part)
        for part in after:
            c.norm(b + part, mean=0.3)
        attention(c, i, norms, qkv_bias).feed_forward(i)
    return finish(c, tied)


def cohere2moe():
    """Two leading dense layers, which are rotated, and windows of 5 in layers 1, 2, 3 and 5."""
    c = mixture(
        "cohere2moe", layers=6, dense=(0, 1), shared=16, norms=False, bias=False, norm=None, expert_shared_count=1,
        expert_shared_feed_forward_length=16, leading_dense_block_count=2, logit_scale=0.5, expert_weights_norm=True,
        **{"attention.sliding_window": 5, "rope.dimension_count": 8},
    )  # fmt: skip
    return c.drop(EPSILON).set(**{"attention.layer_norm_epsilon": 0.01})


def reranker():
    """The head's rows of two answers beside it, whose probabilities after the last token are the score."""
    labels = {"pooling_type": 4, "classifier.output_labels": ["yes", "no"]}
    return dense("qwen3-rank", arch="qwen3", norms=True, tied=True, **labels).matrix("cls.output", WIDTH, 2)


def deepseek2():
    """Four groups of three experts, of which two are looked at; the leading layer is dense. With other seeds the rounding of
    a half float in the cache decides between experts."""
    latent, plain, rotated, value, rank, count = 12, 8, 4, 10, 20, 12
    c = case("deepseek2-groups", "deepseek2", heads=3, seed=3, **expert_keys(
        4, leading_dense_block_count=1, expert_shared_count=1, expert_gating_func=2, expert_weights_scale=1.5,
        expert_weights_norm=True, expert_group_count=4, expert_group_used_count=2,
        **{
            "expert_count": count, "attention.q_lora_rank": rank, "attention.kv_lora_rank": latent,
            "attention.key_length": latent + rotated, "attention.value_length": latent,
            "attention.key_length_mla": plain + rotated, "attention.value_length_mla": value,
            "rope.dimension_count": rotated,
        },
    ))  # fmt: skip
    for i in range(c.layers):
        b = f"blk.{i}."
        c.norm(b + "attn_norm").norm(b + "ffn_norm").matrix(b + "attn_q_a", c.width, rank).norm(b + "attn_q_a_norm", rank)
        c.matrix(b + "attn_q_b", rank, c.heads * (plain + rotated)).matrix(b + "attn_kv_a_mqa", c.width, latent + rotated)
        c.norm(b + "attn_kv_a_norm", latent).matrix(b + "attn_k_b", plain, c.heads, latent)
        c.matrix(b + "attn_v_b", latent, c.heads, value).matrix(b + "attn_output", c.heads * value, c.width, scale=c.gain)
        if i == 0:
            c.feed_forward(i)
        else:
            experts(c, i, shared=EXPERT_INNER, count=count)
    return finish(c)


# Positions beyond those that the layers with sections see at once; results are kept of the last.
LONG, KEPT = 8192 + 16, 32


def llama4_long():
    """Sections of 8192 positions in three of four layers, and a temperature that changes there in the fourth."""
    c = case("llama4", layers=4, context_length=16384, **expert_keys(interleave_moe_layer_step=2), **{"rope.dimension_count": 8})
    for i in range(c.layers):
        b = f"blk.{i}."
        attention(c.norm(b + "attn_norm").norm(b + "ffn_norm"), i, norms=False)
        if i % 2:
            experts(c, i, shared=EXPERT_INNER, bias=False)
        else:
            c.feed_forward(i)
    return finish(c)


def all_cases():
    sigmoid = {"expert_gating_func": 2, "leading_dense_block_count": 1}
    sections = {"rope.dimension_count": 8, "rope.dimension_sections": [2, 1, 1, 0]}
    return [
        qwen35("qwen35", "qwen35", 5, interval=3, tied=True, full_attention_interval=3,
               **{"rope.dimension_sections": [2, 1, 1, 0], **delta_keys(6, 2, 3)}),
        qwen35("qwen35moe", "qwen35moe", 4, moe=True, expert_shared_feed_forward_length=16,
               **{"rope.dimension_sections": [1, 2, 1, 0], **delta_keys(3, 1, 4)}, **expert_keys(3)),
        qwen35("qwen3next", "qwen3next", 4, grouped=True, moe=True, expert_shared_feed_forward_length=16,
               **delta_keys(6, 3, 4), **expert_keys()),
        mamba2(), granitehybrid(), nemotron_h(False), nemotron_h(True), falcon_h1(), lfm2(False), lfm2(True), kimi_linear(),
        mixture("glm4moe", dense=(0, 1), shared=EXPERT_INNER, qkv_bias=True, norm="post_attention_norm",
                leading_dense_block_count=2, expert_shared_count=1, expert_weights_norm=True, **{"rope.dimension_count": 4}),
        mixture("minimax-m2", layers=2, dense=(), norms="whole", expert_gating_func=2, inner=56, kv_heads=2,
                expert_feed_forward_length=56, **{"rope.dimension_count": 4}),
        cohere2moe(),
        mixture("bailingmoe2", head=WIDTH // 4, shared=EXPERT_INNER, count=8, expert_count=8, expert_group_count=2, expert_group_used_count=1,
                expert_shared_count=1, expert_weights_norm=True, expert_weights_scale=1.5, expert_used_count=3,
                **{"rope.dimension_count": 4}, **sigmoid),
        mixture("dots1", shared=EXPERT_INNER, kv_heads=4, expert_shared_count=1, expert_weights_scale=0.5, **sigmoid),
        mixture("hy_v3", shared=16, expert_shared_feed_forward_length=16, expert_weights_norm=False, selection="", kv_heads=2,
                expert_weights_scale=1.5, expert_gating_func=2),
        dense("ernie4_5"),
        mixture("ernie4_5-moe", dense=(0, 1), shared=16, norms=False, expert_shared_feed_forward_length=16,
                leading_dense_block_count=2, interleave_moe_layer_step=1),
        dense("hunyuan-dense", norms=True, **{"rope.scaling.alpha": 20.0, "rope.dimension_count": 8}),
        mixture("hunyuan-moe", dense=(), shared=16, bias=False, expert_shared_feed_forward_length=16, tied=True,
                feed_forward_length=EXPERT_INNER, **{"rope.dimension_count": 8}),
        dense("seed_oss", qkv_bias=True, norm_names=("attn_norm", "post_attention_norm"), tied=True),
        dense("exaone4", norms=True, norm_names=(), after=("post_attention_norm", "post_ffw_norm")),
        dense("mistral3", tied=True, **{
            "rope.dimension_count": 8, "rope.scaling.type": "yarn", "rope.scaling.factor": 8.0,
            "rope.scaling.original_context_length": 8, "attention.temperature_scale": 0.3,
            "rope.scaling.yarn_log_multiplier": 0.7, "rope.scaling.yarn_beta_fast": 16.0, "rope.scaling.yarn_beta_slow": 2.0,
        }),
        dense("qwen3vl", norms=True, **sections),
        mixture("qwen3vlmoe", dense=(), bias=False, tied=True, **sections),
        reranker(), deepseek2(),
    ]  # fmt: skip


def stored(made, group, path):
    """Writes what tests/data has of a model, and gives the path of its results without the ending."""
    data = open(path, "rb").read()
    rest = bytearray(data)
    lines = made.random.lines(f"{group}/{made.name}", path, list(made.tensors))[1:]
    for line in lines:
        at, count = map(int, line.split(" ")[:2])
        rest[at : at + 4 * count] = bytes(4 * count)
    target = os.path.join(GOLDEN, group, made.name)
    os.makedirs(os.path.dirname(target), exist_ok=True)
    store(target, f"{group}/{made.name} {made.random.start}", lines, data, bytes(rest))
    return target


def main():
    for made, path, _ in written_cases(__doc__, [llama4_long()]):
        # A sequence that need not be stored.
        tokens = (np.arange(LONG, dtype=np.int64) ** 2 * 31 // 8 % made.vocab).astype(np.int32)
        logits = peer_rows(path, tokens, room=LONG + 48)[-KEPT:]
        np.savez_compressed(stored(made, "long", path) + ".npz", tokens=tokens, logits=logits)
        print(f"{made.name:22} logits spread over {logits.std(axis=1).mean():.2f}", flush=True)
    for made, path, tokens in written_cases(__doc__, all_cases()):
        logits = peer_rows(path, tokens)
        more = {"score": peer_score(path, tokens, decoder=True)} if "cls.output.weight" in made.tensors else {}
        np.savez_compressed(stored(made, "family", path) + ".npz", tokens=tokens, logits=logits, **more)
        print(f"{made.name:22} logits spread over {logits.std(axis=1).mean():.2f}", flush=True)


if __name__ == "__main__":
    main()
