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


def write(name, raw, values):
    (here / f"{name}.bin").write_bytes(raw.tobytes() + values.astype(np.float32).tobytes())


for kind, (size, length, halves) in LAYOUTS.items():
    count = 24 if length == 32 else 6
    raw = rng.integers(0, 256, (count, size), np.uint8)
    raw[1, :], raw[2, :] = 0x00, 0xFF
    for i in range(count):
        for n, at in enumerate(halves):
            raw[i, at:at + 2] = np.array([HALVES[(i + 3 * n) % len(HALVES)]]).view(np.uint8)
    if kind == T.MXFP4:
        raw[:8, 0] = [0, 1, 2, 3, 127, 128, 250, 251]
    write(kind.name, raw, quants.dequantize(raw.reshape(-1), kind))

halves = np.concatenate([HALVES, rng.integers(0, 0x7C00, 246).astype(np.uint16)])
write("F16", halves, halves.view(np.float16))
singles = rng.standard_normal(256).astype(np.float32)
singles[:4] = [1e-45, -1e-39, 3.4e38, -0.0]
write("F32", singles, singles)
tops = (singles.view(np.uint32) >> 16).astype(np.uint16)
write("BF16", tops, quants.dequantize(tops.view(np.uint8), T.BF16))
