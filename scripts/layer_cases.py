#!/usr/bin/env python3
"""Makes the tiny random models of tests/data/golden/peer whose layers differ from each other, and of newer kinds.

    layer_cases.py DIRECTORY [CASE...]

As arch_cases.py, which has the rest; DIRECTORY/CASE.txt is what drawn.txt.gz says of the model.
"""

import numpy as np

from arch_cases import VOCAB, Case, write_recipe, write_rows, written_cases

FULL, WINDOW = 24, 16
# Large, so that norms do not enlarge the roundings of what is small.
EPSILON = "attention.layer_norm_rms_epsilon"


def gemma4(name, layers, full, kv_heads, shared=0, inner=None, **keys):
    """Heads of two lengths; `full`: the layers without a window."""
    c = Case(name, "gemma4", layers=layers, heads=4, kv_heads=1, gain=0.5, **{
        "attention.key_length": FULL, "attention.value_length": FULL, "attention.key_length_swa": WINDOW,
        "attention.value_length_swa": WINDOW, "attention.sliding_window": 8,
        "rope.freq_base_swa": 10000.0, "rope.dimension_count": FULL, "rope.dimension_count_swa": WINDOW,
        "attention.sliding_window_pattern": [i not in full for i in range(layers)],
        "attention.head_count_kv": kv_heads, "attention.shared_kv_layers": shared, "final_logit_softcapping": 30.0,
        "embedding_length_per_layer_input": 0,
    }, **keys).set(**{"rope.freq_base": 100000.0, EPSILON: 0.03})  # fmt: skip
    if inner:
        c.set(feed_forward_length=inner)
    c.numbers("rope_freqs.weight", FULL // 2, 1.0, 8.0)
    for i in range(layers):
        b, head = f"blk.{i}.", FULL if i in full else WINDOW
        kv = kv_heads if isinstance(kv_heads, int) else kv_heads[i]
        c.norm(b + "attn_norm").matrix(b + "attn_q", c.width, 4 * head).norm(b + "attn_q_norm", head)
        # The first of those that share has what it does not use, as real files do.
        if i <= layers - shared:
            c.matrix(b + "attn_k", c.width, kv * head).norm(b + "attn_k_norm", head)
        # Values are keys where there is nothing else.
        if i <= layers - shared and not (c.name == "gemma4-moe" and i in full):
            c.matrix(b + "attn_v", c.width, kv * head)
        c.matrix(b + "attn_output", 4 * head, c.width, scale=c.gain).norm(b + "post_attention_norm", mean=0.2)
        c.norm(b + "ffn_norm").feed_forward(i, inner=inner[i] if inner else None).norm(b + "post_ffw_norm", mean=0.2)
        c.numbers(b + "layer_output_scale.weight", 1, 0.7, 1.3)
    return c.head_and_norm(tied=True)


def layer_inputs(c, width):
    c.set(embedding_length_per_layer_input=width)
    c.matrix("per_layer_token_embd", width * c.layers, VOCAB, scale=np.sqrt(c.layers))
    c.matrix("per_layer_model_proj", c.width, width * c.layers, scale=3.0).norm("per_layer_proj_norm", width)
    for i in range(c.layers):
        b = f"blk.{i}."
        c.matrix(b + "inp_gate", c.width, width).matrix(b + "proj", width, c.width).norm(b + "post_norm", mean=0.2)
    return c


def gemma4_small():
    """Layers of several sizes of which the last share keys and values, and inputs of their own."""
    inner = [48, 48, 48, 48, 48, 64, 64, 64]
    return layer_inputs(gemma4("gemma4", 8, {2, 4, 7}, 1, shared=3, inner=inner), 16)


def gemma4_moe():
    """Experts beside a block, key heads by layer, layers whose values are their keys."""
    c = gemma4("gemma4-moe", 6, {2, 5}, [2, 2, 1, 2, 2, 1], expert_count=6, expert_used_count=2, **{
        "expert_feed_forward_length": 24,
    })  # fmt: skip
    for i in range(c.layers):
        b = f"blk.{i}."
        c.matrix(b + "ffn_gate_inp", c.width, 6, scale=3.0 * np.sqrt(c.width))
        c.numbers(b + "ffn_gate_inp.scale", c.width, 0.5, 1.5)
        c.matrix(b + "ffn_gate_up_exps", c.width, 6, 48).matrix(b + "ffn_down_exps", 24, 6, c.width)
        c.numbers(b + "ffn_down_exps.scale", 6, 0.5, 1.5)
        c.norm(b + "pre_ffw_norm_2").norm(b + "post_ffw_norm_1", mean=0.2).norm(b + "post_ffw_norm_2", mean=0.2)
    return c


def gemma3n():
    """Four streams; llama.cpp has 256 elements of a layer's input and the first 20 layers with keys and values."""
    c = Case("gemma3n", "gemma3n", layers=22, width=16, heads=2, kv_heads=1, inner=32, head=16, gain=0.5, **{
        "attention.key_length": 16, "attention.value_length": 16, "attention.sliding_window": 8,
        "attention.shared_kv_layers": 2, "altup.num_inputs": 4, "altup.active_idx": 0,
        "attention.sliding_window_pattern": [(i + 1) % 5 > 0 and i != 21 for i in range(22)],
        "activation_sparsity_scale": [1.6448533535003662] * 10 + [float("-inf")] * 12,
    }).set(**{"rope.freq_base": 1000000.0, EPSILON: 0.03})  # fmt: skip
    c.matrix("altup_proj", 16, 3, 16).matrix("altup_unembd_proj", 16, 3, 16)
    for i in range(c.layers):
        b = f"blk.{i}."
        c.norm(b + "attn_norm").attention(i).norm(b + "attn_q_norm", 16).norm(b + "attn_k_norm", 16)
        c.norm(b + "post_attention_norm", mean=0.2).norm(b + "ffn_norm").feed_forward(i)
        c.norm(b + "post_ffw_norm", mean=0.2)
        c.matrix(b + "laurel_l", 16, 64).matrix(b + "laurel_r", 64, 16).norm(b + "laurel_post_norm", mean=0.2)
        c.norm(b + "altup_router_norm").matrix(b + "altup_router", 16, 4, scale=16.0)
        c.matrix(b + "altup_predict_coef", 4, 16, scale=0.2).matrix(b + "altup_correct_coef", 4, 4, scale=0.5)
        c.norm(b + "altup_correct_scale")
    layer_inputs(c, 256)
    return c.head_and_norm(tied=True)


def shared_experts(c, i, inner):
    return c.feed_forward(i, names=("ffn_gate_shexp", "ffn_up_shexp", "ffn_down_shexp"), inner=inner)


def llama4(used):
    """Experts in every second layer, or, one a token, in all of them."""
    c = Case("llama4" if used > 1 else "llama4-top1", "llama4", layers=4, gain=0.5, expert_count=4, expert_used_count=used, **{
        "expert_feed_forward_length": 24, "interleave_moe_layer_step": used, "rope.dimension_count": 8,
    })  # fmt: skip
    for i in range(c.layers):
        c.norm(f"blk.{i}.attn_norm").attention(i).norm(f"blk.{i}.ffn_norm")
        if (i + 1) % used == 0:
            shared_experts(c.experts(i, 4, 24), i, 24)
        else:
            c.feed_forward(i)
    c.set(**{EPSILON: 0.01})
    if used == 1:
        c.numbers("rope_freqs.weight", 4, 1.0, 8.0)
    return c.head_and_norm()


def smallthinker(windows):
    c = Case("smallthinker" if windows else "smallthinker-4b", "smallthinker", layers=5, gain=0.5, expert_count=4, **{
        "expert_feed_forward_length": 24, "expert_used_count": 2, "expert_gating_func": 2 if windows else 1,
    })  # fmt: skip
    c.set(**{EPSILON: 0.01})
    if windows:
        c.set(**{"attention.sliding_window": 8})
    for i in range(c.layers):
        c.norm(f"blk.{i}.attn_norm").attention(i).norm(f"blk.{i}.ffn_norm").experts(i, 4, 24)
    return c.head_and_norm(tied=windows)


def deepseek2_undivided():
    """Files from before keys and values of latent attention were divided."""
    latent, nope, rope, value, rank = 16, 8, 4, 6, 20
    c = Case("deepseek2-undivided", "deepseek2", kv_heads=4, gain=0.5, expert_count=4, expert_used_count=2, **{
        "expert_feed_forward_length": 16, "expert_shared_count": 2, "leading_dense_block_count": 1,
        "expert_gating_func": 2, "expert_weights_norm": True, "expert_weights_scale": 2.5,
        "attention.kv_lora_rank": latent, "attention.q_lora_rank": rank, "attention.key_length": nope + rope,
        "attention.value_length": value, "rope.dimension_count": rope,
    })  # fmt: skip
    for i in range(c.layers):
        b = f"blk.{i}."
        c.norm(b + "attn_norm").norm(b + "ffn_norm").norm(b + "attn_kv_a_norm", latent)
        c.matrix(b + "attn_q_a", c.width, rank).norm(b + "attn_q_a_norm", rank)
        c.matrix(b + "attn_q_b", rank, c.heads * (nope + rope)).matrix(b + "attn_kv_a_mqa", c.width, latent + rope)
        c.matrix(b + "attn_kv_b", latent, c.heads * (nope + value))
        c.matrix(b + "attn_output", c.heads * value, c.width, scale=c.gain)
        if i < 1:
            c.feed_forward(i)
        else:
            shared_experts(c.experts(i, 4, 16), i, 32).bias(b + "exp_probs_b", 4)
    return c.head_and_norm()


def all_cases():
    return [
        gemma4_small, gemma4_moe, gemma3n, lambda: llama4(2), lambda: llama4(1), lambda: smallthinker(True),
        lambda: smallthinker(False), deepseek2_undivided,
    ]  # fmt: skip


def main():
    for case, path, tokens in written_cases(__doc__, (make() for make in all_cases())):
        write_rows(case, path, tokens)
        write_recipe(case, "peer", path)


if __name__ == "__main__":
    main()
