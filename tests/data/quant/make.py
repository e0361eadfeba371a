"""Makes the fixtures beside it: for each format blocks of random bits with scales from ordinary to extreme,
and the values that the `gguf` package (numpy) gives for them. A file is the blocks, then the values as singles."""

import pathlib

import numpy as np
from gguf import GGMLQuantizationType as T
from gguf import quants

here = pathlib.Path(__file__).parent
rng = np.random.default_rng(7)
# Ordinary, negative, the largest half, the smallest subnormal and normal ones, both zeros.
HALVES = np.array([0x2A11, 0x9C05, 0x7BFF, 0x0001, 0x0400, 0x8001, 0x0000, 0x8000, 0x3C00, 0xFBFF], np.uint16)
# Bytes a block, elements a block, where the halves lie.
LAYOUTS = {
    T.Q4_0: (18, 32, [0]), T.Q4_1: (20, 32, [0, 2]), T.Q5_0: (22, 32, [0]), T.Q5_1: (24, 32, [0, 2]),
    T.Q8_0: (34, 32, [0]), T.IQ4_NL: (18, 32, [0]), T.MXFP4: (17, 32, []),
    T.Q2_K: (84, 256, [80, 82]), T.Q3_K: (110, 256, [108]), T.Q4_K: (144, 256, [0, 2]),
    T.Q5_K: (176, 256, [0, 2]), T.Q6_K: (210, 256, [208]), T.IQ4_XS: (136, 256, [0]),
}
SMALLER = {
    T.IQ1_S: (50, 256, [0]), T.IQ1_M: (56, 256, []), T.IQ2_XXS: (66, 256, [0]), T.IQ2_XS: (74, 256, [0]),
    T.IQ2_S: (82, 256, [0]), T.IQ3_XXS: (98, 256, [0]), T.IQ3_S: (110, 256, [0]),
    T.TQ1_0: (54, 256, [52]), T.TQ2_0: (66, 256, [64]), T.NVFP4: (36, 64, []),
}


def write(name, raw, values):
    (here / f"{name}.bin").write_bytes(raw.tobytes() + values.astype(np.float32).tobytes())


def blocks(layouts):
    for kind, (size, length, halves) in layouts.items():
        count = 6 if length == 256 else 24
        raw = rng.integers(0, 256, (count, size), np.uint8)
        raw[1, :], raw[2, :] = 0x00, 0xFF
        for i in range(count):
            for n, at in enumerate(halves):
                raw[i, at:at + 2] = np.array([HALVES[(i + 3 * n) % len(HALVES)]]).view(np.uint8)
        if kind == T.MXFP4:
            raw[:8, 0] = [0, 1, 2, 3, 127, 128, 250, 251]
        if kind == T.NVFP4:
            # Scales of every kind: zero, subnormal, ordinary, the largest, no number, and some whose highest bit is set.
            raw[:, :4] = np.r_[0, 1, 8, 9, 0x77, 0x78, 0x7E, 0x7F, 0xFF, 0x80, 40:126].astype(np.uint8).reshape(-1, 4)
        if kind == T.IQ1_M:
            # The scale is the highest four bits of four words.
            for i in range(count):
                for n in range(4):
                    raw[i, 49 + 2 * n] = raw[i, 49 + 2 * n] & 15 | (int(HALVES[i]) >> 4 * n & 15) << 4
        write(kind.name, raw, quants.dequantize(raw.reshape(-1), kind))


def one_scale(name, length, bits, values):
    """Codes of so many bits from the lowest on, for which the package has no decoder."""
    raw = rng.integers(0, 256, (12, 18), np.uint8)
    raw[:10, :2] = HALVES.reshape(-1, 1).view(np.uint8)
    codes = np.unpackbits(raw[:, 2:], axis=1, bitorder="little").reshape(12, length, bits)
    codes = np.sum(codes << np.arange(bits, dtype=np.uint8), axis=2)
    scales = raw[:, :2].copy().view(np.float16).astype(np.float32)
    write(name, raw, scales * np.array(values, np.float32)[codes])


blocks(LAYOUTS)
halves = np.concatenate([HALVES, rng.integers(0, 0x7C00, 246).astype(np.uint16)])
write("F16", halves, halves.view(np.float16))
singles = rng.standard_normal(256).astype(np.float32)
singles[:4] = [1e-45, -1e-39, 3.4e38, -0.0]
write("F32", singles, singles)
tops = (singles.view(np.uint32) >> 16).astype(np.uint16)
write("BF16", tops, quants.dequantize(tops.view(np.uint8), T.BF16))
blocks(SMALLER)
one_scale("Q1_0", 128, 1, [-1, 1])
one_scale("Q2_0", 64, 2, [-1, 0, 1, 2])
