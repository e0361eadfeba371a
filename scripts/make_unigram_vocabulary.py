"""Makes the small unigram vocabulary of tests/data/vocab from that of a model, and what SentencePiece makes of texts.

    make_unigram_vocabulary.py MODEL.gguf TEXTS OUT.gguf.gz OUT.ids

MODEL.gguf: a file whose tokeniser is `t5`; its first tokens, which are the commonest, and its table of replacements are
kept. Needs `gguf` and `sentencepiece`.
"""

import gzip
import pathlib
import sys
import tempfile

from compare_tokenizers import SentencePiece, read_vocabulary

KEPT = 8000
SEPARATOR = "\n__ggml_vocab_test__\n"


def main(model, texts, out, ids):
    from gguf import GGUFWriter

    metadata = read_vocabulary(model)
    for key in ("tokens", "scores", "token_type"):
        metadata[f"tokenizer.ggml.{key}"] = metadata[f"tokenizer.ggml.{key}"][:KEPT]
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "small.gguf"
        writer = GGUFWriter(path, "test")
        writer.add_tokenizer_model("t5")
        writer.add_token_list(metadata["tokenizer.ggml.tokens"])
        writer.add_token_scores(metadata["tokenizer.ggml.scores"])
        writer.add_token_types(metadata["tokenizer.ggml.token_type"])
        writer.add_precompiled_charsmap(bytes(metadata["tokenizer.ggml.precompiled_charsmap"]))
        for key in ("bos", "eos", "unknown"):
            writer.add_uint32(f"tokenizer.ggml.{key}_token_id", metadata[f"tokenizer.ggml.{key}_token_id"])
        for key in ("add_space_prefix", "remove_extra_whitespaces", "add_bos_token", "add_eos_token"):
            writer.add_bool(f"tokenizer.ggml.{key}", metadata[f"tokenizer.ggml.{key}"])
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.close()
        data = path.read_bytes()
    with open(out, "wb") as file, gzip.GzipFile("", "wb", 9, file, 0) as compressed:
        compressed.write(data)
    processor = SentencePiece(metadata)
    lines = [processor.ids(text) for text in pathlib.Path(texts).read_bytes().decode().split(SEPARATOR)[:-1]]
    pathlib.Path(ids).write_text("".join(" ".join(map(str, line)) + "\n" for line in lines))


if __name__ == "__main__":
    main(*sys.argv[1:])
