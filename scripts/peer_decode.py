#!/usr/bin/env python3
"""Times llama.cpp at what the benches of this library time: one token at a time after a prompt.

    peer_decode.py MODEL --threads N --context N --chunk N --tokens N --seconds N [--before N] [--first TOKEN] [--repack]
                         [--sequences N]
    peer_decode.py --describe

Needs the package llama-cpp-python. The model is mapped. --repack leaves its "extra buffers" on, as they are by
default: weights are then copied into a layout of their own. Without it they are used where they are mapped.
--before: tokens of the prompt, 8 unless told; one of more is timed too, once its beginning has brought the weights.
--first: tokens are this one and those that follow it, in place of scattered ones.
--sequences: so many sequences, each with a prompt of its own and the context told, take a token each in every pass.
The last line of the output is JSON. --describe: the package's version, and how much memory the interpreter has
taken before there is any model, which is not llama.cpp's fault and therefore granted beside its limit.
"""

import argparse
import ctypes
import json
import sys
import time

import llama_cpp

SHORT = 8
WARM_UP = 2
WARM_UP_PROMPT = 512


def status(name):
    with open("/proc/self/status") as file:
        for line in file:
            if line.startswith(name + ":"):
                return int(line.split()[1]) * 1024
    return 0


def read_bytes():
    """What this process has had read from storage, faults of its mappings included."""
    try:
        with open("/proc/self/io") as file:
            for line in file:
                if line.startswith("read_bytes:"):
                    return int(line.split()[1])
    except OSError:
        pass
    return None


def quiet(level, text, data):
    del level, text, data


def decode_together(context, vocabulary, arguments):
    """Times passes over one token of each of several sequences."""
    sequences, before = arguments.sequences, arguments.before
    batch = llama_cpp.llama_batch_init(max(arguments.chunk, sequences), 0, 1)

    def decode(rows):
        """`rows`: a sequence, a position, and whether its logits are wanted, for each token of a pass."""
        batch.n_tokens = len(rows)
        for i, (sequence, position, wanted) in enumerate(rows):
            batch.token[i] = (sequence * 31 + position) * 7919 % vocabulary
            batch.pos[i] = position
            batch.n_seq_id[i] = 1
            batch.seq_id[i][0] = sequence
            batch.logits[i] = wanted
        if llama_cpp.llama_decode(context, batch) != 0:
            sys.exit("a pass failed")
        llama_cpp.llama_synchronize(context)
        if not llama_cpp.llama_get_logits_ith(context, -1):
            sys.exit("a pass left no logits")

    for sequence in range(sequences):
        for at in range(0, before, arguments.chunk):
            places = range(at, min(at + arguments.chunk, before))
            decode([(sequence, place, place == places[-1]) for place in places])

    def step(i):
        decode([(sequence, before + i, True) for sequence in range(sequences)])

    for i in range(WARM_UP):
        step(i)
    read_before = read_bytes()
    started = time.perf_counter()
    done = 0
    while done < arguments.tokens and (done == 0 or time.perf_counter() - started < arguments.seconds):
        step(WARM_UP + done)
        done += 1
    seconds = time.perf_counter() - started
    result = {"tokens": done * sequences, "seconds": seconds, "tokens_per_second": done * sequences / seconds}
    if read_before is not None:
        result["read_bytes_per_step"] = (read_bytes() - read_before) / done
    return result


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("model", nargs="?")
    parser.add_argument("--describe", action="store_true")
    parser.add_argument("--repack", action="store_true")
    for name in ("threads", "context", "chunk", "tokens", "seconds", "first"):
        parser.add_argument("--" + name, type=int)
    parser.add_argument("--before", type=int, default=SHORT)
    parser.add_argument("--sequences", type=int, default=0)
    arguments = parser.parse_args()

    keep = llama_cpp.llama_log_callback(quiet)
    llama_cpp.llama_log_set(keep, ctypes.c_void_p(0))
    llama_cpp.llama_backend_init()
    if arguments.describe:
        print(json.dumps({"version": llama_cpp.__version__, "interpreter_bytes": status("RssAnon"),
                          "system": llama_cpp.llama_print_system_info().decode()}))  # fmt: skip
        return

    params = llama_cpp.llama_model_default_params()
    params.n_gpu_layers = 0
    if hasattr(params, "load_mode"):
        params.load_mode = llama_cpp.LLAMA_LOAD_MODE_MMAP
    else:
        params.use_mmap = True
    if not arguments.repack:
        params.use_extra_bufts = False
    model = llama_cpp.llama_model_load_from_file(arguments.model.encode(), params)
    if not model:
        sys.exit("the model was not loaded")
    params = llama_cpp.llama_context_default_params()
    params.n_seq_max = max(arguments.sequences, 1)
    params.n_ctx = arguments.context * params.n_seq_max
    params.n_batch = params.n_ubatch = arguments.chunk
    params.n_threads = params.n_threads_batch = arguments.threads
    context = llama_cpp.llama_init_from_model(model, params)
    if not context:
        sys.exit("no context was made")
    vocabulary = llama_cpp.llama_vocab_n_tokens(llama_cpp.llama_model_get_vocab(model))

    def decode(first, count):
        places = range(first, first + count)
        start = arguments.first
        tokens = [i * 7919 % vocabulary if start is None else start + i - 1 for i in places]
        tokens = (llama_cpp.llama_token * count)(*tokens)
        if llama_cpp.llama_decode(context, llama_cpp.llama_batch_get_one(tokens, count)) != 0:
            sys.exit("a pass failed")
        llama_cpp.llama_synchronize(context)
        if not llama_cpp.llama_get_logits_ith(context, -1):
            sys.exit("a pass left no logits")

    if arguments.sequences > 0:
        print(json.dumps(decode_together(context, vocabulary, arguments)))
        return

    def prompt(first, count):
        for at in range(first, first + count, arguments.chunk):
            decode(at, min(arguments.chunk, first + count - at))

    before = arguments.before
    if before > SHORT:
        prompt(1, min(before, WARM_UP_PROMPT))
        llama_cpp.llama_memory_clear(llama_cpp.llama_get_memory(context), True)
    started = time.perf_counter()
    prompt(1, before)
    prompt_seconds = time.perf_counter() - started
    for i in range(WARM_UP):
        decode(before + 1 + i, 1)
    read_before = read_bytes()
    started = time.perf_counter()
    done = 0
    while done < arguments.tokens and (done == 0 or time.perf_counter() - started < arguments.seconds):
        decode(before + WARM_UP + 1 + done, 1)
        done += 1
    seconds = time.perf_counter() - started
    result = {"tokens": done, "seconds": seconds, "tokens_per_second": done / seconds}
    if before > SHORT:
        result["prompt_tokens_per_second"] = before / prompt_seconds
    if read_before is not None:
        result["read_bytes_per_pass"] = (read_bytes() - read_before) / done
    print(json.dumps(result))


if __name__ == "__main__":
    main()
