#!/usr/bin/env python3
"""Writes a model with all its quantised matrices as half floats: the same weights in a file several times as large.

    to_f16.py MODEL OUT

Needs the Python packages gguf and numpy. What is not quantised stays as it is. The file is for benches: a model that drafts
for the same model in a larger format.
"""

import sys

import numpy
from gguf import GGMLQuantizationType, GGUFReader, GGUFValueType, GGUFWriter
from gguf.quants import dequantize

PLAIN = (GGMLQuantizationType.F32, GGMLQuantizationType.F16, GGMLQuantizationType.BF16)
# What the writer adds by itself, and the type of the file, which is another one now.
OWN = ("GGUF.", "general.architecture", "general.file_type", "general.quantization_version")
MOSTLY_F16 = 1


def main():
    if len(sys.argv) != 3:
        sys.exit(__doc__.split("\n\n")[1].strip())
    reader = GGUFReader(sys.argv[1])
    writer = GGUFWriter(sys.argv[2], reader.fields["general.architecture"].contents())
    for key, field in reader.fields.items():
        if key.startswith(OWN):
            continue
        kind = field.types[0]
        inner = field.types[-1] if kind == GGUFValueType.ARRAY else None
        writer.add_key_value(key, field.contents(), kind, inner)
    writer.add_file_type(MOSTLY_F16)
    for tensor in reader.tensors:
        data = tensor.data
        if tensor.tensor_type not in PLAIN:
            data = dequantize(data, tensor.tensor_type).astype(numpy.float16)
            assert numpy.isfinite(data).all(), tensor.name
            writer.add_tensor(tensor.name, data)
        else:
            writer.add_tensor(tensor.name, data, raw_dtype=tensor.tensor_type)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


if __name__ == "__main__":
    main()
