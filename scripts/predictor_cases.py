#!/usr/bin/env python3
"""Computes by llama.cpp what the layers of small models that predict further tokens make of a text.

    predictor_cases.py OUT MODEL.gguf...

Writes OUT/NAME.npz for each: `tokens`; `hidden`, the model's hidden states after the final norm, [tokens][width]; `logits`
of the layer, [tokens][vocabulary], each token with the hidden state of the one before and the first with zeroes; `chained`,
the layer's own hidden states, [tokens][width]. The models are those of tests/data/golden, as
`cargo run --example golden -- FOLDER` writes them. Needs numpy and llama-cpp-python 0.3.36 or later.
"""

import ctypes
import os
import sys

import llama_cpp
import numpy as np
from llama_cpp import llama_cpp_ext

TOKENS = 21


class Rows(ctypes.Structure):
    _fields_ = [("data", ctypes.c_void_p), ("rows", ctypes.c_size_t), ("width", ctypes.c_size_t)]


def context(model, kind):
    params = llama_cpp.llama_context_default_params()
    params.n_ctx, params.n_batch, params.n_ubatch, params.ctx_type = 64, 64, 64, kind
    params.n_threads = params.n_threads_batch = 1
    params.flash_attn_type = llama_cpp.LLAMA_FLASH_ATTN_TYPE_DISABLED
    made = llama_cpp.llama_init_from_model(model, params)
    assert made, "no context"
    llama_cpp_ext.llama_set_embeddings_nextn(made, True, False)
    return made


def run(ctx, tokens, width, vocab, hidden=None):
    lib = llama_cpp.llama_cpp._lib
    set_embd = lib.llama_batch_ext_set_embd_token
    set_embd.argtypes, set_embd.restype = [ctypes.c_void_p, ctypes.c_int32, Rows], ctypes.c_bool
    batch = llama_cpp.llama_batch_ext_init(ctx)
    for i, token in enumerate(tokens):
        entry = llama_cpp.llama_batch_ext_add_token(batch, 0, int(token))
        assert entry >= 0
        if hidden is not None:
            assert set_embd(batch, entry, Rows(hidden[i].ctypes.data, 1, width))
        at = (ctypes.c_int32 * 4)(i, i, i, 0)
        llama_cpp.llama_batch_ext_set_pos(batch, entry, at)
        llama_cpp.llama_batch_ext_set_output_logits(batch, entry, True)
    status = llama_cpp.llama_process(ctx, 1, batch)
    assert status == 0, f"status {status}"
    rows = lambda pointer, width: np.ctypeslib.as_array(pointer, (width,)).copy()
    states = [rows(llama_cpp_ext.llama_get_embeddings_nextn_ith(ctx, i), width) for i in range(len(tokens))]
    logits = [rows(llama_cpp.llama_get_logits_ith(ctx, i), vocab) for i in range(len(tokens))]
    return np.stack(states).astype(np.float32), np.stack(logits).astype(np.float32)


def main(out, paths):
    for path in paths:
        params = llama_cpp.llama_model_default_params()
        params.load_mtp, params.use_mmap = True, True
        model = llama_cpp.llama_model_load_from_file(path.encode(), params)
        assert model, path
        width = llama_cpp.llama_model_n_embd(model)
        vocab = llama_cpp.llama_vocab_n_tokens(llama_cpp.llama_model_get_vocab(model))
        tokens = np.array([(i * 37 + 11) % vocab for i in range(TOKENS)], np.int32)
        hidden, _ = run(context(model, llama_cpp.LLAMA_CONTEXT_TYPE_DEFAULT), tokens, width, vocab)
        before = np.ascontiguousarray(np.vstack([np.zeros((1, width), np.float32), hidden[:-1]]))
        chained, logits = run(context(model, llama_cpp.LLAMA_CONTEXT_TYPE_MTP), tokens, width, vocab, before)
        name = os.path.basename(path).removesuffix(".gguf")
        np.savez(os.path.join(out, name + ".npz"), tokens=tokens, hidden=hidden, logits=logits, chained=chained)
        print(name, hidden.shape, logits.shape)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
