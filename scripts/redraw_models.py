#!/usr/bin/env python3
"""Draws the weights of tiny models anew, so that tests can draw them again, and has llama.cpp compute what they give.

    redraw_models.py [--seed N] MODEL.gguf...

A model belongs to the folder of tests/data/golden that has the name of its own folder. Its metadata and small tensors stay;
matrices become random ones of the same spread. Written are NAME.gguf.gz, from which tests/data/drawn.rs makes the model,
its recipe in drawn.txt.gz, and NAME.npz:

- of float32 models `tokens` and `logits`, a row for each token, with a float32 cache;
- of quantised ones `tokens`, `exact` (the same of the decoded weights) and `peer_divergence`, that of llama.cpp with the
  quantised file from it.

Tokens are those of an earlier NAME.npz. With --seed other numbers are drawn: where two experts score almost the same, a
rounding of the cache decides, which no test of the arithmetic should hang on. bailingmoe2, cohere2moe and
deepseek2-softmax have seed 1, qwen3vlmoe has 9, the others 0. Needs the packages gguf, numpy, llama-cpp-python and xxhash.
"""

import gzip
import os
import sys
import tempfile

import gguf
import numpy as np
import xxhash
from arch_cases import peer_rows, quiet_peer

GOLDEN = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "tests", "data", "golden")
F32 = gguf.GGMLQuantizationType.F32
# Tensors with fewer elements stay as they are.
MIN_ELEMENTS = 128

# Bytes of a block, which of them are drawn, and where its scale is.
DRAWN_BYTES = {
    "IQ1_S": (50, 2, 50, 0),
    "IQ1_M": (56, 0, 56, None),
    "IQ2_XXS": (66, 2, 66, 0),
    "IQ2_XS": (74, 2, 74, 0),
    "IQ2_S": (82, 2, 82, 0),
    "IQ3_XXS": (98, 2, 98, 0),
    "IQ3_S": (110, 2, 110, 0),
    "NVFP4": (36, 4, 36, None),
    "Q1_0": (18, 2, 18, 0),
}
# Elements and bytes of a block of formats with whole numbers that follow from normal ones, where its scale is, and what
# part of the spread the scale is.
DRAWN_CODES = {"TQ1_0": (256, 54, 52, 1.2), "TQ2_0": (256, 66, 64, 1.2), "Q2_0": (64, 18, 0, 0.9)}


def know_q2_0():
    """Adds the format to those of the package, which may be older than it."""
    kinds = gguf.GGMLQuantizationType
    if 42 not in kinds._value2member_map_:
        kind = int.__new__(kinds, 42)
        kind._name_, kind._value_ = "Q2_0", 42
        kinds._value2member_map_[42] = kinds._member_map_["Q2_0"] = kind
        gguf.GGML_QUANT_SIZES[kind] = (64, 18)


def decode(kind, data, shape):
    """The values of a tensor."""
    name = kind.name
    blocks = np.frombuffer(data, np.uint8)
    if name == "Q1_0":
        blocks = blocks.reshape(-1, 18)
        codes = np.unpackbits(blocks[:, 2:], axis=1, bitorder="little").astype(np.float32) * 2 - 1
    elif name == "Q2_0":
        blocks = blocks.reshape(-1, 18)
        codes = (blocks[:, 2:, None] >> np.array([0, 2, 4, 6], np.uint8) & 3).reshape(len(blocks), -1).astype(np.float32) - 1
    else:
        return gguf.quants.dequantize(blocks.reshape(-1, kind_bytes(kind, shape[-1])), kind).reshape(shape).astype(np.float32)
    return (codes * blocks[:, :2].copy().view(np.float16).astype(np.float32)).reshape(shape)


def half(block, at, value):
    block[:, at : at + 2] = np.float16(value).reshape(-1, 1).view(np.uint8)


def put_scale(kind, block, at, value):
    """Writes scales into blocks, where a format keeps them."""
    if kind == "IQ1_M":
        # The four nibbles of the scale are the high ones of four numbers.
        bits = np.float16(value).view(np.uint16)
        for i in range(4):
            high = (bits >> (4 * i) & 15).astype(np.uint8)
            block[:, 49 + 2 * i] = block[:, 49 + 2 * i] & 15 | high << 4
    elif kind == "NVFP4":
        block[:, :4] = value
    else:
        half(block, at, value)


def draw_quantised(random, kind, shape, spread):
    """Bytes of a tensor, those that the recipe does not give, and the recipe's count, format, mean and scale."""
    elements, vary = int(np.prod(shape)), np.random.default_rng(elements_seed(shape))
    if kind.name in DRAWN_BYTES:
        size, first, end, at = DRAWN_BYTES[kind.name]
        count = kind_bytes(kind, elements) // size
        drawn = count * (end - first)
        block = np.zeros((count, size), np.uint8)
        block[:, first:end] = random.bit_generator.random_raw(-(-drawn // 8)).view(np.uint8)[:drawn].reshape(count, -1)
        known = block.copy()
        if kind.name == "NVFP4":
            # Numbers with three bits after the leading one, of which the exponent follows from the spread.
            values = vary.integers(0x38, 0x40, (count, 4)).astype(np.uint8)
            put_scale(kind.name, block, at, values)
            one = np.float64(decode(kind, block.tobytes(), shape).std())
            put_scale(kind.name, block, at, values.astype(np.int16) + 8 * round(np.log2(spread / one)))
        else:
            put_scale(kind.name, block, at, np.ones(count))
            one = np.float64(decode(kind, block.tobytes(), shape).std())
            steps = vary.integers(6, 11, count) / 8
            put_scale(kind.name, block, at, spread / one * steps)
        return block, block ^ known, (count, f"bytes:{size}:{first}:{end}", 0.0, 0.0)
    of_block, size, at, part = DRAWN_CODES[kind.name]
    count = elements // of_block
    numbers = random.normal(0.0, spread, elements).astype(np.float32).reshape(count, -1)
    block, rest = np.zeros((count, size), np.uint8), np.zeros((count, size), np.uint8)
    half(rest, at, np.full(count, part * spread))
    step = np.float32(np.float16(part * spread))
    codes = np.clip(np.rint((numbers + step) / step), 0, 3 if kind.name == "Q2_0" else 2).astype(np.uint8)
    pack(kind.name, codes, block)
    return block | rest, rest, (count * of_block, kind.name.lower(), 0.0, spread)


def pack(kind, codes, block):
    """Puts whole numbers into the bytes of blocks."""
    if kind == "Q2_0":
        parts = codes.reshape(len(codes), 16, 4)
        block[:, 2:] = parts[..., 0] | parts[..., 1] << 2 | parts[..., 2] << 4 | parts[..., 3] << 6
    elif kind == "TQ2_0":
        parts = codes.reshape(len(codes), 2, 4, 32)
        block[:, :64] = (parts[:, :, 0] | parts[:, :, 1] << 2 | parts[:, :, 2] << 4 | parts[:, :, 3] << 6).reshape(-1, 64)
    else:
        for at, first, width, many in ((0, 0, 32, 5), (32, 160, 16, 5), (48, 240, 4, 4)):
            parts = codes[:, first : first + width * many].reshape(len(codes), many, width).astype(np.uint32)
            whole = sum(parts[:, n] * 3 ** (4 - n) for n in range(many))
            block[:, at : at + width] = (whole * 256 + 242) // 243


def kind_bytes(kind, elements):
    block, size = gguf.GGML_QUANT_SIZES[kind]
    return elements // block * size


def elements_seed(shape):
    return [int(n) for n in shape]


def is_matrix(tensor):
    """Whether a tensor is a matrix of random numbers about 0: what is drawn anew."""
    if tensor.tensor_type != F32:
        return tensor.tensor_type.name in DRAWN_BYTES or tensor.tensor_type.name in DRAWN_CODES
    values = tensor.data
    return len(tensor.shape) > 1 and tensor.n_elements >= MIN_ELEMENTS and abs(float(values.mean())) < 0.2 * float(values.std())


def redraw(path, name, seed):
    """The new file's bytes, the part of them that is stored, its name with the generator's state, what was drawn, and all
    tensors' values."""
    data = bytearray(open(path, "rb").read())
    stored = bytearray(data)
    random = np.random.default_rng([sum(map(ord, name)), seed])
    state = random.bit_generator.state["state"]
    lines, values = [], {}
    for tensor in gguf.GGUFReader(path).tensors:
        at, size, shape = int(tensor.data_offset), int(tensor.n_bytes), tuple(int(n) for n in reversed(tensor.shape))
        if not is_matrix(tensor):
            values[tensor.name] = tensor.data.reshape(shape).copy()
            continue
        if tensor.tensor_type == F32:
            spread = float(np.float32(tensor.data.std()))
            numbers = random.normal(0.0, spread, tensor.n_elements).astype(np.float32)
            block, rest = numbers.view(np.uint8), np.zeros(size, np.uint8)
            count, kind, mean, scale = int(tensor.n_elements), "f32", 0.0, spread
            values[tensor.name] = numbers.reshape(shape)
        else:
            spread = float(np.float32(decode(tensor.tensor_type, bytes(data[at : at + size]), shape).std()))
            block, rest, (count, kind, mean, scale) = draw_quantised(random, tensor.tensor_type, shape, spread)
            values[tensor.name] = decode(tensor.tensor_type, block.tobytes(), shape)
        data[at : at + size], stored[at : at + size] = block.tobytes(), rest.tobytes()
        lines.append(f"{at} {count} {kind} 0 {mean!r} {scale!r}")
    return bytes(data), bytes(stored), f"{name} {state['state']:x} {state['inc']:x}", lines, values


def write_decoded(source, values, path):
    """The same model with float32 weights."""
    reader = gguf.GGUFReader(source)
    writer = gguf.GGUFWriter(path, reader.fields["general.architecture"].contents())
    for field in reader.fields.values():
        if field.name.startswith("GGUF.") or field.name in ("general.architecture", "general.file_type"):
            continue
        kind, sub = field.types[0], field.types[-1] if len(field.types) > 1 else None
        writer.add_key_value(field.name, field.contents(), kind, sub_type=sub)
    for name, tensor in values.items():
        scale = values.get(name.removesuffix(".weight") + ".scale")
        if name.endswith(".scale"):
            continue
        writer.add_tensor(name, tensor * scale if name.endswith(".weight") and scale is not None else tensor)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def log_softmax(logits):
    x = logits.astype(np.float64)
    x -= x.max(axis=1, keepdims=True)
    return x - np.log(np.exp(x).sum(axis=1, keepdims=True))


def divergence(exact, other):
    p, q = log_softmax(exact), log_softmax(other)
    return float((np.exp(p) * (p - q)).sum(axis=1).mean())


def write_recipe(name, recipe):
    """Puts a recipe into drawn.txt.gz, in place of an earlier one."""
    path, kept, inside = os.path.join(GOLDEN, "drawn.txt.gz"), [], False
    for line in gzip.open(path, "rt").read().splitlines():
        inside = line.startswith(f"model {name} ") or (inside and not line.startswith("model "))
        if not inside:
            kept.append(line)
    write_packed(path, ("\n".join(kept + recipe) + "\n").encode())


def write_packed(path, data):
    with open(path, "wb") as out, gzip.GzipFile("", "wb", 9, out, mtime=0) as packed:
        packed.write(data)


def store(target, name_and_state, lines, data, rest):
    """Writes what tests/data has of a model but its results: the part of its bytes that is not drawn, and its recipe."""
    digest = xxhash.xxh3_64_hexdigest(data).lstrip("0")
    write_packed(f"{target}.gguf.gz", rest)
    write_recipe(name_and_state.split(" ")[0], [f"model {name_and_state} {digest}", *lines])


def main():
    arguments, seed = sys.argv[1:], 0
    if arguments[:1] == ["--seed"]:
        seed, arguments = int(arguments[1]), arguments[2:]
    if not arguments:
        raise SystemExit(__doc__.strip())
    keep = quiet_peer()
    know_q2_0()
    for source in arguments:
        part, stem = os.path.basename(os.path.dirname(os.path.abspath(source))), os.path.basename(source)[: -len(".gguf")]
        target = os.path.join(GOLDEN, part, stem)
        arrays = target + ".npz" if os.path.exists(target + ".npz") else source[: -len(".gguf")] + ".npz"
        tokens = np.load(arrays)["tokens"].astype(np.int32)
        data, stored, name, lines, values = redraw(source, f"{part}/{stem}", seed)
        with tempfile.TemporaryDirectory() as folder:
            plain, decoded = os.path.join(folder, "model.gguf"), os.path.join(folder, "decoded.gguf")
            open(plain, "wb").write(data)
            if any(line.split(" ")[2] != "f32" for line in lines):
                write_decoded(plain, values, decoded)
                exact = peer_rows(decoded, tokens)
                peer = divergence(exact, peer_rows(plain, tokens, cache=1, flash=-1))
                results = dict(tokens=tokens, exact=exact, peer_divergence=np.array([peer]))
                told = f"divergence {peer:.2e}"
            else:
                results = dict(tokens=tokens, logits=peer_rows(plain, tokens))
                told = f"logits' spread {results['logits'].std():.2f}"
        np.savez_compressed(target + ".npz", **results)
        store(target, name, lines, data, stored)
        if os.path.exists(target + ".gguf"):
            os.remove(target + ".gguf")
        kib = [size / 1024 for size in (len(data), os.path.getsize(target + ".gguf.gz"), os.path.getsize(target + ".npz"))]
        print(f"{stem:22} {kib[0]:6.0f} KiB, {kib[1]:6.1f} stored, {kib[2]:6.1f} of results, {told}", flush=True)
    del keep


if __name__ == "__main__":
    main()
