"""Compares layerline's tokenisers with those of the packages `tokenizers` and `sentencepiece`, on random text.

    compare_tokenizers.py TOOL words [--characters N] [--seed N] [NAME...]
    compare_tokenizers.py TOOL ids MODEL.gguf... [--characters N] [--seed N]
    compare_tokenizers.py TOOL vectors FILE

TOOL is the program that scripts/tokenize.rs makes. `words` compares every pre-tokeniser with the same expressions in
`tokenizers`; `ids` rebuilds the tokeniser of a model file from its vocabulary and compares tokens. `vectors` writes what `tokenizers` makes of a few
texts, for tests/text.

What differs, and why it is left out: the tables of Unicode that `tokenizers` uses for BERT are of 2016, so that
characters which came later are not compared there; SentencePiece sums the scores of `t5` in single precision over the
whole text, layerline in double precision, so that of two ways to cut a word that score the same either may come out.
"""

import argparse
import json
import random
import re
import subprocess
import sys
import unicodedata

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers

# What texts are made of: everyday letters, spaces, numbers, what expressions treat apart, and all of Unicode.
ALPHABETS = [
    "etaoinshrdlu ",
    "ETAOINaoin ",
    " \t\n\r\u00a0\u3000\u2003\u0085",
    "  \n",
    "0123456789",
    "0123456789½²Ⅷ٣ ",
    "'sStTrReEvVmMlLdDſ ",
    "!?.,;:-_/\\()[]{}<>|@#$%^&*+=~`\"' ",
    "éßñÄÖÜжяЖЯαΩ ",
    "漢字我想在ひらカナ한국어、。！…",
    "กําลัง हिन्दी বাংলা عربي עברית ",
    "🦊👩\u200d👧😁🏽\ufe0f\u0301\u0308\u2581",
    "ǅªʰ\u0345Ⓐ_‿©€",
    "<|>▁\u200b\u00ad\ufeff\u0000\u0007",
]


def assigned(character, tables=unicodedata):
    return tables.category(character) not in ("Cn", "Cs", "Co")


def random_text(generator, length):
    parts = []
    size = 0
    while size < length:
        if generator.random() < 0.1:
            character = chr(generator.randrange(0x20000))
            if not assigned(character):
                continue
            part = character
        else:
            alphabet = generator.choice(ALPHABETS)
            part = "".join(generator.choice(alphabet) for _ in range(generator.randrange(1, 10)))
        parts.append(part)
        size += len(part)
    # The tool's texts end with NUL.
    return "".join(parts).replace("\0", "")


def random_texts(seed, characters):
    generator = random.Random(seed)
    texts = []
    while characters > 0:
        texts.append(random_text(generator, generator.choice([5, 20, 100, 500])))
        characters -= len(texts[-1])
    return texts


def run(tool, *arguments, texts=None):
    data = None if texts is None else "".join(text + "\0" for text in texts).encode()
    result = subprocess.run([tool, *arguments], input=data, stdout=subprocess.PIPE, check=True)
    return result.stdout.decode()


def numbers(output):
    return [[int(number) for number in line.split()] for line in output.splitlines()]


# -- pre-tokenisers ----------------------------------------------------------------------------------------------------


def split(expression):
    return pre_tokenizers.Split(Regex(expression), "isolated")


def pre_tokenizer(stages):
    """The stages, then the byte-level alphabet."""
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    steps = [byte_level]
    if stages and stages[-1].startswith("ByteLevel"):
        stages = stages[:-1]
        steps += [pre_tokenizers.Digits(individual_digits=False), split("[0-9][0-9][0-9]")]
    return pre_tokenizers.Sequence([split(stage) for stage in stages] + steps)


def word_ends(tokenizer, text):
    end = 0
    ends = []
    # Behind the byte-level stage each character stands for a byte.
    for word, _ in tokenizer.pre_tokenize_str(text):
        end += len(word)
        ends.append(end)
    return ends


def write_vectors(tool, arguments):
    generator = random.Random(arguments.seed)
    texts = [random_text(generator, 100) for _ in range(10)]
    vectors = {"texts": texts}
    for names, stages in json.loads(run(tool, "definitions")):
        if stages:
            theirs = pre_tokenizer(stages)
            vectors[names[0]] = [[len(word) for word, _ in theirs.pre_tokenize_str(text)] for text in texts]
    with open(arguments.what[0], "w", encoding="utf-8") as file:
        lines = (f"{json.dumps(name)}: {json.dumps(value, separators=(',', ':'))}" for name, value in vectors.items())
        file.write("{\n" + ",\n".join(lines) + "\n}\n")
    return 0


def compare_words(tool, arguments):
    texts = random_texts(arguments.seed, arguments.characters)
    failed = 0
    for names, stages in json.loads(run(tool, "definitions")):
        if arguments.what and not set(names) & set(arguments.what) or not stages:
            continue
        theirs = pre_tokenizer(stages)
        ours = numbers(run(tool, "words", names[0], texts=texts))
        differ = [
            (text, mine, other)
            for text, mine in zip(texts, ours, strict=True)
            if mine != (other := word_ends(theirs, text))
        ]
        report(names[0], texts, differ, lambda text, ends: [
            text.encode()[a:b].decode(errors="backslashreplace") for a, b in zip([0] + ends, ends)
        ])
        failed += bool(differ)
    return failed


def report(name, texts, differ, show):
    characters = sum(map(len, texts))
    print(f"{name}: {len(texts)} texts, {characters} characters, {len(differ)} differ", flush=True)
    for text, mine, other in differ[:3]:
        at = next((i for i, pair in enumerate(zip(mine, other)) if pair[0] != pair[1]), min(len(mine), len(other)))
        print(f"  ours   {show(text, mine)[max(at - 2, 0):at + 5]!r}")
        print(f"  theirs {show(text, other)[max(at - 2, 0):at + 5]!r}")


# -- whole tokenisers --------------------------------------------------------------------------------------------------


def read_vocabulary(path):
    from gguf import GGUFReader

    fields = GGUFReader(path).fields
    return {name: field.contents() for name, field in fields.items() if name.startswith(("tokenizer.", "general."))}


def byte_level(metadata, definitions, nfc):
    pre = metadata.get("tokenizer.ggml.pre", "default")
    stages = next(stages for names, stages in definitions if pre in names)
    tokenizer = Tokenizer(models.BPE(vocabulary(metadata), merges(metadata), ignore_merges=pre in WHOLE_WORDS))
    tokenizer.pre_tokenizer = pre_tokenizer(stages)
    if pre in nfc:
        tokenizer.normalizer = normalizers.NFC()
    return tokenizer


def vocabulary(metadata):
    return {token: i for i, token in enumerate(metadata["tokenizer.ggml.tokens"])}


def merges(metadata):
    def pair(merge):
        cut = merge.index(" ", 1)
        return merge[:cut], merge[cut + 1 :]

    return [pair(merge) for merge in metadata["tokenizer.ggml.merges"]]


# Facts that only the tokeniser's name tells, kept apart from the library's own table.
WHOLE_WORDS = {"llama-bpe", "tekken", "glm4"}
NFC = {"qwen2", "qwen35", "command-r", "mpt", "olmo", "stablelm2"}


def gemma4(metadata):
    tokenizer = Tokenizer(models.BPE(vocabulary(metadata), merges(metadata), unk_token="<unk>", fuse_unk=True,
                                     byte_fallback=True))
    tokenizer.normalizer = normalizers.Replace(" ", "▁")
    return tokenizer


def word_piece(metadata):
    kinds = metadata["tokenizer.ggml.token_type"]
    texts = {}
    for i, token in enumerate(metadata["tokenizer.ggml.tokens"]):
        control = kinds[i] == 3
        texts[token if control else token[1:] if token.startswith("▁") else "##" + token] = i
    tokenizer = Tokenizer(models.WordPiece(texts, unk_token="[UNK]", max_input_chars_per_word=100))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    return tokenizer


class SentencePiece:
    """The vocabulary of a model file as SentencePiece itself reads it."""

    def __init__(self, metadata):
        import sentencepiece
        from sentencepiece import sentencepiece_model_pb2 as protobuf

        unigram = metadata["tokenizer.ggml.model"] == "t5"
        model = protobuf.ModelProto()
        kinds = metadata["tokenizer.ggml.token_type"]
        texts = metadata["tokenizer.ggml.tokens"]
        unknown = metadata.get("tokenizer.ggml.unknown_token_id", kinds.index(2) if 2 in kinds else 0)
        for i, (text, score, kind) in enumerate(zip(texts, metadata["tokenizer.ggml.scores"], kinds)):
            piece = model.pieces.add()
            piece.piece, piece.score = text or f"[empty {i}]", score
            # User-defined tokens are cut out of the text beforehand, here and there; texts with them are not compared.
            piece.type = 2 if i == unknown else 3 if kind in (2, 4) else kind
        model.trainer_spec.model_type = 1 if unigram else 2
        model.trainer_spec.byte_fallback = 6 in kinds
        model.trainer_spec.unk_id = unknown
        normalizer = model.normalizer_spec
        normalizer.precompiled_charsmap = bytes(metadata.get("tokenizer.ggml.precompiled_charsmap", []))
        normalizer.add_dummy_prefix = metadata.get("tokenizer.ggml.add_space_prefix", True)
        normalizer.remove_extra_whitespaces = metadata.get("tokenizer.ggml.remove_extra_whitespaces", False) and unigram
        self.processor = sentencepiece.SentencePieceProcessor(model_proto=model.SerializeToString())
        self.avoid = re.compile("|".join(
            re.escape(text) for text, kind in zip(texts, kinds) if kind == 4 and text
        ) or "(?!)")

        self.scores = [piece.score for piece in model.pieces] if unigram else None

    def same(self, ours, theirs):
        """Equal, or ways to cut the same text whose scores differ by less than single precision tells."""
        if ours == theirs or not self.scores:
            return ours == theirs
        mine, other = (sum(self.scores[i] for i in ids) for ids in (ours, theirs))
        return sorted(ours) == sorted(theirs) or abs(mine - other) < 1e-6 * abs(other)

    def ids(self, text):
        return None if self.avoid.search(text) else self.processor.encode(text)


def compare_ids(tool, arguments):
    definitions = json.loads(run(tool, "definitions"))
    failed = 0
    for path in arguments.what:
        metadata = read_vocabulary(path)
        model = metadata["tokenizer.ggml.model"]
        if model in ("llama", "t5"):
            reference = SentencePiece(metadata)
            encode, same = reference.ids, reference.same
        else:
            make = {"gemma4": gemma4, "bert": word_piece}.get(model, lambda m: byte_level(m, definitions, NFC))
            theirs = make(metadata)
            kinds = metadata["tokenizer.ggml.token_type"]
            added = [t for t, kind in zip(metadata["tokenizer.ggml.tokens"], kinds) if kind == 4]
            theirs.add_tokens([AddedToken(token, normalized=False) for token in added])
            encode = lambda text: theirs.encode(text, add_special_tokens=False).ids
            same = lambda ours, theirs: ours == theirs
        if model == "bert":
            old = unicodedata.ucd_3_2_0
            texts = ["".join(c for c in text if assigned(c, old)) for text in random_texts(arguments.seed, arguments.characters)]
        else:
            texts = random_texts(arguments.seed, arguments.characters)
        ours = numbers(run(tool, "ids", path, texts=texts))
        differ = [
            (text, mine, other)
            for text, mine in zip(texts, ours, strict=True)
            if (other := encode(text)) is not None and not same(mine, other)
        ]
        names = metadata["tokenizer.ggml.tokens"]
        report(path, texts, differ, lambda _, ids: [names[i] for i in ids])
        failed += bool(differ)
    return failed


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tool")
    parser.add_argument("kind", choices=["words", "ids", "vectors"])
    parser.add_argument("what", nargs="*")
    parser.add_argument("--characters", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    compare = {"words": compare_words, "ids": compare_ids, "vectors": write_vectors}[arguments.kind]
    sys.exit(1 if compare(arguments.tool, arguments) else 0)


if __name__ == "__main__":
    main()
