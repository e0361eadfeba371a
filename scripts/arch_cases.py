#!/usr/bin/env python3
"""Makes the tiny random models of tests/data/golden/peer, and has llama.cpp compute their logits and embeddings.

    arch_cases.py DIRECTORY [CASE...]

Needs the packages gguf, numpy and llama-cpp-python. One case is one way of using an architecture. Weights are float32,
and so is the key-value cache, so that the logits are those of the architecture and not of anybody's rounding. The same
generator state gives the same files; a new version of llama.cpp may change the last digits of the logits.
"""

import ctypes
import os
import sys

import gguf
import numpy as np

WIDTH, HEADS, KV_HEADS, HEAD, INNER, VOCAB, CONTEXT, TOKENS = 32, 4, 2, 8, 48, 160, 256, 24


class Draws:
    """A generator that notes what it drew, so that tests/data/drawn.rs can draw it again."""

    def __init__(self, seed):
        self.generator, self.made, self.skipped = np.random.default_rng(seed), [], 0
        state = self.generator.bit_generator.state["state"]
        self.start = f"{state['state']:x} {state['inc']:x}"

    def normal(self, mean, scale, size):
        values = self.generator.normal(mean, scale, size)
        self.made.append((self.skipped, float(mean), float(scale)))
        self.skipped = 0
        return values

    def uniform(self, low, high, size):
        values = self.generator.uniform(low, high, size)
        self.made.append(None)
        self.skipped += values.size
        return values

    def lines(self, name, path, names):
        """What drawn.txt.gz says of the model at `path`; `scripts/golden.rs --pack` prints the hash. `names`: its tensors in
        the order in which they were drawn."""
        tensors = {t.name: t for t in gguf.GGUFReader(path).tensors}
        lines = [f"model {name} {self.start} 0"]
        for tensor, made in zip(names, self.made, strict=True):
            if made:
                skipped, mean, scale = made
                lines.append(f"{tensors[tensor].data_offset} {tensors[tensor].n_elements} f32 {skipped} {mean} {scale}")
        return lines


class Case:
    """A model in the making: hyper-parameters under the architecture's name, and tensors of random numbers."""

    def __init__(self, name, arch, layers=2, width=WIDTH, heads=HEADS, kv_heads=KV_HEADS, inner=INNER, head=HEAD, gain=1.0, seed=0, vocab=VOCAB, **keys):
        # How much a block adds to the residual stream: little in deep models, that roundings do not grow.
        self.gain = gain
        self.name, self.arch, self.layers, self.width = name, arch, layers, width
        self.heads, self.kv_heads, self.inner, self.head, self.vocab = heads, kv_heads, inner, head, vocab
        self.context = CONTEXT
        self.random = Draws(sum(map(ord, name)) + seed)
        self.tensors, self.keys = {}, {
            "block_count": layers, "context_length": CONTEXT, "embedding_length": width, "feed_forward_length": inner,
            "attention.head_count": heads, "attention.head_count_kv": kv_heads, "vocab_size": vocab,
        }  # fmt: skip
        self.set(**{"rope.freq_base": 10000.0, "attention.layer_norm_rms_epsilon": 1e-5}, **keys)
        self.matrix("token_embd", width, vocab, scale=1.0)

    def set(self, **keys):
        self.keys.update(keys)
        return self

    def drop(self, *keys):
        for key in keys:
            self.keys.pop(key, None)
        return self

    def layer_norms(self):
        """Norms are those with a mean, of these the key has another name."""
        return self.drop("attention.layer_norm_rms_epsilon").set(**{"attention.layer_norm_epsilon": 1e-5})

    def matrix(self, name, columns, *rows, scale=1.0):
        values = self.random.normal(0, scale / np.sqrt(columns), rows + (columns,))
        self.tensors[f"{name}.weight"] = values.astype(np.float32)
        return self

    def bias(self, name, *rows, scale=0.2):
        self.tensors[f"{name}.bias"] = self.random.normal(0, scale, rows).astype(np.float32)
        return self

    def linear(self, name, columns, rows, bias=False, scale=1.0):
        self.matrix(name, columns, rows, scale=scale)
        return self.bias(name, rows) if bias else self

    def norm(self, name, *size, bias=False, mean=1.0):
        size = size or (self.width,)
        self.tensors[f"{name}.weight"] = self.random.normal(mean, 0.2 * mean, size).astype(np.float32)
        return self.bias(name, *size) if bias else self

    def numbers(self, name, size, low, high):
        self.tensors[name] = self.random.uniform(low, high, size).astype(np.float32)
        return self

    def attention(self, i, fused=False, bias=False, out_bias=False):
        b, (q, k) = f"blk.{i}.", (self.heads * self.head, self.kv_heads * self.head)
        if fused:
            self.linear(b + "attn_qkv", self.width, q + 2 * k, bias)
        else:
            for part, rows in (("q", q), ("k", k), ("v", k)):
                self.linear(b + f"attn_{part}", self.width, rows, bias)
        return self.linear(b + "attn_output", q, self.width, out_bias, self.gain)

    def feed_forward(self, i, gate=True, bias=False, names=("ffn_gate", "ffn_up", "ffn_down"), inner=None):
        b, inner = f"blk.{i}.", inner or self.inner
        if gate == "fused":
            self.linear(b + names[1], self.width, 2 * inner, bias)
        else:
            if gate:
                self.linear(b + names[0], self.width, inner, bias)
            self.linear(b + names[1], self.width, inner, bias)
        return self.linear(b + names[2], inner, self.width, bias, self.gain)

    def experts(self, i, count, inner):
        b = f"blk.{i}."
        # Scores far apart, that no rounding changes the choice; where one does, another seed helps.
        self.matrix(b + "ffn_gate_inp", self.width, count, scale=3.0)
        self.matrix(b + "ffn_gate_exps", self.width, count, inner)
        self.matrix(b + "ffn_up_exps", self.width, count, inner)
        return self.matrix(b + "ffn_down_exps", inner, count, self.width)

    def head_and_norm(self, tied=False, bias=False, head_bias=False):
        self.norm("output_norm", bias=bias)
        if not tied:
            self.matrix("output", self.width, self.vocab, scale=3.0)
        return self.bias("output", self.vocab) if head_bias else self

    def write(self, path):
        writer = gguf.GGUFWriter(path, self.arch)
        writer.add_name(f"tiny {self.name}")
        writer.add_string("tokenizer.ggml.model", "no_vocab")
        for key, value in self.keys.items():
            key = key if key.startswith("tokenizer.") else f"{self.arch}.{key}"
            if isinstance(value, bool):
                writer.add_bool(key, value)
            elif isinstance(value, int):
                writer.add_uint32(key, value)
            elif isinstance(value, float):
                writer.add_float32(key, value)
            elif isinstance(value, list):
                writer.add_array(key, value)
            else:
                writer.add_string(key, value)
        for name, values in self.tensors.items():
            writer.add_tensor(name, values)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()


def gemma():
    c = Case("gemma", "gemma", head=12, **{"attention.key_length": 12, "attention.value_length": 12})
    for i in range(c.layers):
        c.norm(f"blk.{i}.attn_norm").attention(i).norm(f"blk.{i}.ffn_norm").feed_forward(i)
    return c.head_and_norm(tied=True)


def phi3_longrope(original):
    c = Case(f"phi3-longrope-{original}", "phi3", **{
        "rope.scaling.original_context_length": original, "rope.scaling.attn_factor": 1.19, "rope.dimension_count": HEAD,
    })  # fmt: skip
    for i in range(c.layers):
        c.norm(f"blk.{i}.attn_norm").attention(i, fused=True).norm(f"blk.{i}.ffn_norm").feed_forward(i, gate="fused")
    c.set(context_length=2 * original)
    c.numbers("rope_factors_long.weight", HEAD // 2, 1.0, 8.0)
    c.numbers("rope_factors_short.weight", HEAD // 2, 1.0, 2.0)
    return c.head_and_norm()


def starcoder2(tied):
    c = Case("starcoder2-tied" if tied else "starcoder2", "starcoder2").layer_norms()
    for i in range(c.layers):
        c.norm(f"blk.{i}.attn_norm", bias=True).attention(i, bias=True, out_bias=True)
        c.norm(f"blk.{i}.ffn_norm", bias=True).feed_forward(i, gate=False, bias=True)
    return c.head_and_norm(tied=tied, bias=True)


def stablelm(parallel):
    c = Case("stablelm-parallel" if parallel else "stablelm", "stablelm", **{"rope.dimension_count": 4}).layer_norms()
    for i in range(c.layers):
        b = f"blk.{i}."
        c.norm(b + "attn_norm", bias=True).attention(i, bias=not parallel)
        if parallel:
            c.norm(b + "attn_q_norm", HEADS, HEAD).norm(b + "attn_k_norm", KV_HEADS, HEAD)
        else:
            c.norm(b + "ffn_norm", bias=True)
        c.feed_forward(i)
    return c.head_and_norm(bias=True)


def command_r(plus):
    size = {"layers": 64, "width": 16, "heads": 2, "kv_heads": 1, "inner": 16, "gain": 0.1} if plus else {}
    c = Case("command-r-plus" if plus else "command-r", "command-r", logit_scale=0.8, **size).layer_norms()
    for i in range(c.layers):
        c.norm(f"blk.{i}.attn_norm").attention(i).feed_forward(i)
        if plus:
            c.norm(f"blk.{i}.attn_q_norm", c.heads, HEAD).norm(f"blk.{i}.attn_k_norm", c.kv_heads, HEAD)
    return c.head_and_norm(tied=True)


def cohere2():
    c = Case("cohere2", "cohere2", layers=5, logit_scale=0.25, **{"attention.sliding_window": 8}).layer_norms()
    c.set(**{"rope.dimension_count": HEAD})
    for i in range(c.layers):
        c.norm(f"blk.{i}.attn_norm").attention(i).feed_forward(i)
    return c.head_and_norm(tied=True)


def falcon(two_norms):
    kv_heads = 2 if two_norms else 1
    c = Case("falcon-40b" if two_norms else "falcon-7b", "falcon", kv_heads=kv_heads).layer_norms()
    for i in range(c.layers):
        c.norm(f"blk.{i}.attn_norm", bias=True)
        if two_norms:
            c.norm(f"blk.{i}.attn_norm_2", bias=True)
        c.attention(i, fused=True).feed_forward(i, gate=False)
    return c.head_and_norm(bias=True, tied=two_norms)


def gpt2():
    c = Case("gpt2", "gpt2", kv_heads=HEADS).layer_norms().drop("rope.freq_base", "attention.head_count_kv")
    c.context = 64
    c.set(context_length=64).matrix("position_embd", WIDTH, 64, scale=1.0)
    for i in range(c.layers):
        c.norm(f"blk.{i}.attn_norm", bias=True).attention(i, fused=True, bias=True, out_bias=True)
        c.norm(f"blk.{i}.ffn_norm", bias=True).feed_forward(i, gate=False, bias=True)
    return c.head_and_norm(tied=True, bias=True)


def like_llama(name, arch, layers=2, tied=False, divisors=False, **keys):
    c = Case(name, arch, layers=layers, **{"rope.dimension_count": HEAD}, **keys)
    for i in range(c.layers):
        c.norm(f"blk.{i}.attn_norm").attention(i).norm(f"blk.{i}.ffn_norm").feed_forward(i)
    if divisors:
        c.numbers("rope_freqs.weight", HEAD // 2, 1.0, 8.0)
    return c.head_and_norm(tied=tied)


def glm4(fused):
    c = Case("glm4-fused" if fused else "glm4", "glm4", **{"rope.dimension_count": 4})
    for i in range(c.layers):
        b = f"blk.{i}."
        c.norm(b + "attn_norm").attention(i, bias=True, fused=fused).norm(b + "post_attention_norm")
        c.norm(b + "ffn_norm").feed_forward(i, gate="fused").norm(b + "post_ffw_norm")
    return c.head_and_norm()


def chatglm():
    c = Case("chatglm", "chatglm", **{"rope.dimension_count": 4})
    for i in range(c.layers):
        b = f"blk.{i}."
        c.norm(b + "attn_norm").attention(i, bias=True, fused=True)
        c.norm(b + "ffn_norm").feed_forward(i, gate="fused")
    return c.head_and_norm()


def phi2():
    c = Case("phi2", "phi2", kv_heads=HEADS, **{"rope.dimension_count": 4}).layer_norms()
    for i in range(c.layers):
        c.norm(f"blk.{i}.attn_norm", bias=True).attention(i, fused=True, bias=True, out_bias=True)
        c.feed_forward(i, gate=False, bias=True)
    return c.head_and_norm(bias=True, head_bias=True)


def gptneox(parallel):
    name = "gptneox" if parallel else "gptneox-sequential"
    c = Case(name, "gptneox", kv_heads=HEADS, use_parallel_residual=parallel, **{"rope.dimension_count": 4}).layer_norms()
    for i in range(c.layers):
        c.norm(f"blk.{i}.attn_norm", bias=True).attention(i, fused=True, bias=True, out_bias=True)
        c.norm(f"blk.{i}.ffn_norm", bias=True).feed_forward(i, gate=False, bias=True)
    return c.head_and_norm(bias=True)


def qwen2moe():
    c = Case("qwen2moe", "qwen2moe", seed=1, expert_count=6, expert_used_count=2, **{
        "expert_feed_forward_length": 24, "expert_shared_feed_forward_length": 40,
    })  # fmt: skip
    for i in range(c.layers):
        b = f"blk.{i}."
        c.norm(b + "attn_norm").attention(i, bias=True).norm(b + "ffn_norm").experts(i, 6, 24)
        c.feed_forward(i, names=("ffn_gate_shexp", "ffn_up_shexp", "ffn_down_shexp"), inner=40)
        c.tensors[b + "ffn_gate_inp_shexp.weight"] = c.random.normal(0, 0.3, WIDTH).astype(np.float32)
    return c.head_and_norm()


def olmoe():
    c = Case("olmoe", "olmoe", kv_heads=HEADS, expert_count=6, expert_used_count=3)
    for i in range(c.layers):
        b = f"blk.{i}."
        c.norm(b + "attn_norm").attention(i).norm(b + "attn_q_norm").norm(b + "attn_k_norm")
        c.norm(b + "ffn_norm").experts(i, 6, INNER)
    return c.head_and_norm()


def olmo3():
    c = Case("olmo3", "olmo2", layers=5, kv_heads=2, **{
        "attention.sliding_window": 8, "rope.scaling.type": "yarn", "rope.scaling.factor": 8.0,
        "rope.scaling.original_context_length": 32,
    })  # fmt: skip
    for i in range(c.layers):
        b = f"blk.{i}."
        c.attention(i).norm(b + "attn_q_norm").norm(b + "attn_k_norm", KV_HEADS * HEAD).norm(b + "post_attention_norm")
        c.feed_forward(i).norm(b + "post_ffw_norm")
    return c.head_and_norm()


def granitemoe(shared):
    c = Case("granitemoe-shared" if shared else "granitemoe", "granitemoe", expert_count=5, expert_used_count=2, **{
        "logit_scale": 6.0, "embedding_scale": 12.0, "residual_scale": 0.22, "attention.scale": 0.2,
    })  # fmt: skip
    if shared:
        c.set(expert_shared_feed_forward_length=40)
    for i in range(c.layers):
        c.norm(f"blk.{i}.attn_norm").attention(i).norm(f"blk.{i}.ffn_norm").experts(i, 5, INNER)
        if shared:
            c.feed_forward(i, names=("ffn_gate_shexp", "ffn_up_shexp", "ffn_down_shexp"), inner=40)
    return c.head_and_norm(tied=True)


def deepseek2(lite):
    """Latent attention: queries and keys meet in the space of the compressed keys and values."""
    latent, nope, rope, value, ranks = 16, 8, 4, 12, 20
    # That queries are not compressed is known by the number of layers.
    size = {"layers": 27, "width": 16, "heads": 2, "gain": 0.05} if lite else {"layers": 3, "heads": 4}
    # Few routers, that no rounding changes a choice.
    dense = 24 if lite else 1
    c = Case("deepseek2-lite" if lite else "deepseek2", "deepseek2", kv_heads=1, expert_count=4, expert_used_count=2, **{
        "expert_feed_forward_length": 16, "expert_shared_count": 2, "leading_dense_block_count": dense,
        "attention.kv_lora_rank": latent, "attention.key_length": latent + rope, "attention.value_length": latent,
        "attention.key_length_mla": nope + rope, "attention.value_length_mla": value, "rope.dimension_count": rope,
        "rope.scaling.type": "yarn", "rope.scaling.factor": 8.0, "rope.scaling.original_context_length": 32,
        "rope.scaling.yarn_log_multiplier": 0.0707, "expert_weights_scale": 1.0 if lite else 2.5,
    }, **size)  # fmt: skip
    if not lite:
        c.set(**{"attention.q_lora_rank": ranks, "expert_gating_func": 2, "expert_weights_norm": True})
    for i in range(c.layers):
        b = f"blk.{i}."
        c.norm(b + "attn_norm").norm(b + "ffn_norm").norm(b + "attn_kv_a_norm", latent)
        if lite:
            c.matrix(b + "attn_q", c.width, c.heads * (nope + rope), scale=0.4)
        else:
            c.matrix(b + "attn_q_a", c.width, ranks).norm(b + "attn_q_a_norm", ranks)
            c.matrix(b + "attn_q_b", ranks, c.heads * (nope + rope))
        c.matrix(b + "attn_kv_a_mqa", c.width, latent + rope)
        c.matrix(b + "attn_k_b", nope, c.heads, latent).matrix(b + "attn_v_b", latent, c.heads, value)
        c.matrix(b + "attn_output", c.heads * value, c.width, scale=c.gain)
        if i < dense:
            c.feed_forward(i)
            continue
        c.experts(i, 4, 16).feed_forward(i, names=("ffn_gate_shexp", "ffn_up_shexp", "ffn_down_shexp"), inner=32)
        if not lite:
            c.bias(b + "exp_probs_b", 4)
    return c.head_and_norm()


def wide_gemma(arch, layers):
    """The largest models of both, whose heads are scaled by the width and known by their number of layers."""
    c = Case(f"{arch}-27b", arch, layers=layers, width=32, heads=2, kv_heads=1, inner=16, head=8, gain=0.2, **{
        "attention.key_length": 8, "attention.value_length": 8, "attention.sliding_window": 8,
    })  # fmt: skip
    if arch == "gemma2":
        c.set(attn_logit_softcapping=50.0, final_logit_softcapping=30.0)
    for i in range(layers):
        b = f"blk.{i}."
        c.norm(b + "attn_norm").attention(i).norm(b + "post_attention_norm", mean=0.2)
        if arch == "gemma3":
            c.norm(b + "attn_q_norm", 8).norm(b + "attn_k_norm", 8)
        c.norm(b + "ffn_norm").feed_forward(i).norm(b + "post_ffw_norm", mean=0.2)
    return c.head_and_norm(tied=True)


def all_cases():
    return [
        gemma(), wide_gemma("gemma2", 46), wide_gemma("gemma3", 62), phi3_longrope(32), phi3_longrope(512),
        starcoder2(False), starcoder2(True), stablelm(False), stablelm(True), command_r(False), command_r(True),
        cohere2(), falcon(False), falcon(True), gpt2(), like_llama("smollm3", "smollm3", layers=5, tied=True),
        like_llama("exaone", "exaone", divisors=True), glm4(False), glm4(True), chatglm(),
        like_llama("internlm2", "internlm2"), phi2(), gptneox(True), gptneox(False),
        qwen2moe(), olmoe(), olmo3(), granitemoe(False), granitemoe(True), deepseek2(True), deepseek2(False),
    ]  # fmt: skip


def peer_batch(tokens):
    """The tokens as one sequence from position 0, to be freed."""
    import llama_cpp as peer

    batch = peer.llama_batch_init(len(tokens), 0, 1)
    batch.n_tokens = len(tokens)
    for i, token in enumerate(tokens):
        batch.token[i], batch.pos[i], batch.n_seq_id[i], batch.logits[i] = int(token), i, 1, 1
        batch.seq_id[i][0] = 0
    return batch


def peer_rows(path, tokens, embeddings=False, room=64, cache=0, flash=0):
    """What llama.cpp computes: a row of logits for each token, or its hidden state after the final norm."""
    import llama_cpp as peer

    params = peer.llama_model_default_params()
    params.n_gpu_layers = 0
    model = peer.llama_model_load_from_file(path.encode(), params)
    if not model:
        raise SystemExit(f"{path}: llama.cpp does not load it")
    params = peer.llama_context_default_params()
    # It takes 256 at least; the tests give a session 64. Where a case asks which, both are on one side of it.
    params.n_ctx = params.n_batch = params.n_ubatch = room
    params.type_k = params.type_v = cache
    params.flash_attn_type = flash
    params.n_threads = params.n_threads_batch = 1
    params.embeddings, params.pooling_type = embeddings, 0
    context = peer.llama_init_from_model(model, params)
    batch = peer_batch(tokens)
    if peer.llama_decode(context, batch) != 0:
        raise SystemExit(f"{path}: llama.cpp fails on it")
    row, width = peer.llama_get_logits_ith, peer.llama_vocab_n_tokens(peer.llama_model_get_vocab(model))
    if embeddings:
        row, width = peer.llama_get_embeddings_ith, peer.llama_model_n_embd(model)
    rows = [np.ctypeslib.as_array(row(context, i), (width,)).copy() for i in range(len(tokens))]
    peer.llama_batch_free(batch)
    peer.llama_free(context)
    peer.llama_model_free(model)
    return np.stack(rows)


def quiet_peer():
    import llama_cpp as peer

    @peer.llama_log_callback
    def log(level, text, user_data):
        if level >= 4:
            sys.stderr.write(text.decode(errors="replace"))

    peer.llama_log_set(log, ctypes.c_void_p(0))
    return log


def written_cases(usage, cases):
    """Writes the cases that the command line asks for; gives each with its path and tokens."""
    if len(sys.argv) < 2 or sys.argv[1].startswith("-"):
        raise SystemExit(usage.strip())
    folder, wanted = sys.argv[1], set(sys.argv[2:])
    os.makedirs(folder, exist_ok=True)
    keep = quiet_peer()
    for case in cases:
        if wanted and case.name not in wanted:
            continue
        path = os.path.join(folder, f"{case.name}.gguf")
        case.write(path)
        yield case, path, np.random.default_rng(7).integers(0, case.vocab, TOKENS).astype(np.int32)
    del keep


def write_rows(case, path, tokens):
    """What llama.cpp computes of a case, beside its model."""
    logits, embeddings = peer_rows(path, tokens), peer_rows(path, tokens, embeddings=True)
    np.savez(path[: -len(".gguf")] + ".npz", tokens=tokens, logits=logits, embeddings=embeddings)
    spread = logits.std(axis=1).mean()
    print(f"{case.name:22} {os.path.getsize(path) / 1024:6.0f} KiB, logits spread over {spread:.2f}", flush=True)


def write_recipe(case, group, path):
    """What drawn.txt.gz says of a model, beside it."""
    with open(path[: -len("gguf")] + "txt", "w") as out:
        out.write("\n".join(case.random.lines(f"{group}/{case.name}", path, list(case.tensors))) + "\n")


def main():
    for case, path, tokens in written_cases(__doc__, all_cases()):
        write_rows(case, path, tokens)


if __name__ == "__main__":
    main()
