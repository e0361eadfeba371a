"""Compares layerline's tokenisers with those of the packages `tokenizers` and `sentencepiece`, on random text.

    compare_tokenizers.py TOOL words [--characters N] [--seed N] [NAME...]
    compare_tokenizers.py TOOL ids [--characters N] [--seed N] MODEL.gguf... NAME=tokenizer.json...
    compare_tokenizers.py TOOL vectors FILE

TOOL is the program that scripts/tokenize.rs makes. `words` compares every pre-tokeniser with the same expressions in
`tokenizers`; `ids` rebuilds a model file's tokeniser from its vocabulary and compares tokens. `vectors` writes what
`tokenizers` makes of a few texts, for tests/text.

A model file's tokeniser is made anew from its vocabulary; NAME=tokenizer.json is a model's own definition, from whose
vocabulary a model file with the pre-tokeniser NAME is made.

What differs, and why it is left out or not a fault of layerline:
- The tables of Unicode by which `tokenizers` normalises and knows punctuation are of 2016. Characters that came later
  are not compared for BERT, but some have changed since (U+166D is no punctuation any more); and NFC leaves combining
  marks that came later (U+10D24, U+1ACE) where they stand, in front of those that go before them.
- SentencePiece sums the scores of `t5` in single precision over the whole text, layerline in double precision, so that
  of two ways to cut a word that score the same either may come out. What scores the same counts as the same.
"""

import argparse
import json
import random
import re
import subprocess
import sys
import tempfile
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
    "\u1100\u1161\u11a8\u1112\u1175\uac00\ud7a3\u3131ㅏ",
    "a\u0300\u0323o\u0308\u0304e\u0328\u0301\u1e9b\u212bー\u3099",
    "\u200eא\u05b0ב\u200fם ؟ \u0661\u0662\u064bس\u202eش\u202c",
    "\u0009\u000b\u000c\u0020\u0085\u00a0\u1680\u2000\u2009\u200a\u2028\u2029\u202f\u205f\u3000",
    "\u0001\u0002\u000e\u001b\u001f\u007f\u0080\u009f\u2066\ufffd",
]

# Emoji of several characters, and sentences of the kind that models are given.
PHRASES = [
    "👨\u200d👩\u200d👧\u200d👦",
    "🏳\ufe0f\u200d🌈",
    "👍🏽",
    "🇩🇪🇫🇷",
    "1\ufe0f\u20e3",
    "🏴\U000e0067\U000e0062\U000e007f",
    "The quick brown fox doesn't jump; it'll wait until 10:45, won't it?\n\n",
    "I'VE said: \"don't!\" (twice)... ",
    "def f(x, *args):\n    return {k: v ** 2 for k, v in x.items()}  # note\n\n\n",
    "if (a[i] != 0) {\r\n\t\tb += 1.5e-10;\r\n}\n",
    "https://example.org/a_b?c=%20d&e=1#f ",
    "Über die Straße gehen 1.234.567,89 € usw. ",
    "Съешь ещё этих мягких французских булок. ",
    "私は2024年に東京で「コーヒー」を飲んだ。",
    "我想在apple工作1314151天～ ",
    "안녕하세요, 오늘은 3월 5일입니다! ",
    "यह एक परीक्षण है। ",
    "هذا اختبار رقم ١٢٣. ",
    "<p class='x'>HTML &amp; <b>bold</b></p>\n",
    "| a | b |\n|---|---|\n| 1 | 22222 |\n",
    "$\\int_0^1 x^2\\,dx = \\frac{1}{3}$ ",
    "XMLHttpRequest camelCaseWord SCREAMING_CASE ",
]


def assigned(character, tables=unicodedata):
    return tables.category(character) not in ("Cn", "Cs", "Co")


# Every character of all planes that has a meaning; a third of the choices are not letters of large scripts.
ASSIGNED = [chr(code) for code in range(0x110000) if assigned(chr(code))]
CHARACTERS = ASSIGNED + 5 * [character for character in ASSIGNED if unicodedata.category(character) != "Lo"]


def random_text(generator, length):
    parts = []
    size = 0
    while size < length:
        kind = generator.random()
        if kind < 0.1:
            part = generator.choice(CHARACTERS)
        elif kind < 0.15:
            part = generator.choice(PHRASES)
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
        prefix = metadata.get("tokenizer.ggml.add_space_prefix", True)
        for i, (text, score, kind) in enumerate(zip(texts, metadata["tokenizer.ggml.scores"], kinds)):
            piece = model.pieces.add()
            piece.piece, piece.score = text or f"[empty {i}]", score
            piece.type = 2 if i == unknown else 3 if kind == 2 else kind
            if kind == 4:
                piece.piece = text.replace(" ", "▁")
                # SentencePiece puts no space behind such a token; texts with them are compared where none is put.
                if prefix:
                    piece.type = 3
        model.trainer_spec.model_type = 1 if unigram else 2
        model.trainer_spec.byte_fallback = 6 in kinds
        model.trainer_spec.unk_id = unknown
        normalizer = model.normalizer_spec
        normalizer.precompiled_charsmap = bytes(metadata.get("tokenizer.ggml.precompiled_charsmap", []))
        normalizer.add_dummy_prefix = prefix
        normalizer.remove_extra_whitespaces = metadata.get("tokenizer.ggml.remove_extra_whitespaces", False) and unigram
        self.processor = sentencepiece.SentencePieceProcessor(model_proto=model.SerializeToString())
        self.avoid = re.compile("|".join(
            re.escape(text) for text, kind in zip(texts, kinds) if kind == 4 and text and prefix
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


def write_model(definition, pre, path):
    """A model file with the vocabulary of a tokenizer.json, whose special tokens are control tokens."""
    from gguf import GGUFWriter

    model = definition["model"]
    texts = {i: text for text, i in model["vocab"].items()}
    kinds = {i: 6 if re.fullmatch("<0x[0-9A-F]{2}>", text) else 1 for i, text in texts.items()}
    for token in definition["added_tokens"]:
        texts[token["id"]], kinds[token["id"]] = token["content"], 3 if token["special"] else 4
    ids = range(max(texts) + 1)
    writer = GGUFWriter(path, "llama")
    writer.add_tokenizer_model("gemma4" if model.get("byte_fallback") else "gpt2")
    writer.add_tokenizer_pre(pre)
    writer.add_token_list([texts.get(i, f"[empty {i}]") for i in ids])
    writer.add_token_types([kinds.get(i, 5) for i in ids])
    writer.add_token_merges([merge if isinstance(merge, str) else " ".join(merge) for merge in model["merges"]])
    if model["unk_token"]:
        writer.add_unk_token_id(model["vocab"][model["unk_token"]])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()


def compare_definition(tool, arguments, pre, path):
    """Against a tokeniser by its own definition, but for special tokens, which ordinary text never makes here."""
    with open(path, encoding="utf-8") as file:
        definition = json.load(file)
    with tempfile.TemporaryDirectory() as directory:
        model = f"{directory}/model.gguf"
        write_model(definition, pre, model)
        definition["added_tokens"] = [token for token in definition["added_tokens"] if not token["special"]]
        theirs = Tokenizer.from_str(json.dumps(definition))
        return compare(tool, arguments, model, path, lambda text: theirs.encode(text, add_special_tokens=False).ids)


def compare_vocabulary(tool, arguments, path, definitions):
    """Against a tokeniser made anew from the vocabulary of a model file."""
    metadata = read_vocabulary(path)
    model = metadata["tokenizer.ggml.model"]
    if model in ("llama", "t5"):
        reference = SentencePiece(metadata)
        return compare(tool, arguments, path, path, reference.ids, reference.same)
    make = {"gemma4": gemma4, "bert": word_piece}.get(model, lambda m: byte_level(m, definitions, NFC))
    theirs = make(metadata)
    kinds = metadata["tokenizer.ggml.token_type"]
    added = [t for t, kind in zip(metadata["tokenizer.ggml.tokens"], kinds) if kind == 4]
    theirs.add_tokens([AddedToken(token, normalized=False) for token in added])
    known = (lambda c: assigned(c, unicodedata.ucd_3_2_0)) if model == "bert" else None
    encode = lambda text: theirs.encode(text, add_special_tokens=False).ids
    return compare(tool, arguments, path, path, encode, known=known)


def compare(tool, arguments, model, name, encode, same=lambda ours, theirs: ours == theirs, known=None):
    texts = random_texts(arguments.seed, arguments.characters)
    if known:
        texts = ["".join(filter(known, text)) for text in texts]
    ours = numbers(run(tool, "ids", model, texts=texts))
    compared = [(text, mine, other) for text, mine in zip(texts, ours, strict=True)
                if (other := encode(text)) is not None]
    differ = [triple for triple in compared if not same(*triple[1:])]
    tokens = read_vocabulary(model)["tokenizer.ggml.tokens"]
    report(name, [text for text, *_ in compared], differ, lambda _, ids: [tokens[i] for i in ids])
    return bool(differ)


def compare_ids(tool, arguments):
    definitions = json.loads(run(tool, "definitions"))
    failed = 0
    for what in arguments.what:
        pre, _, path = what.rpartition("=")
        if path.endswith(".json"):
            failed += compare_definition(tool, arguments, pre, path)
        else:
            failed += compare_vocabulary(tool, arguments, path, definitions)
    return failed


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tool")
    parser.add_argument("kind", choices=["words", "ids", "vectors"])
    parser.add_argument("what", nargs="*")
    parser.add_argument("--characters", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_intermixed_args()
    command = {"words": compare_words, "ids": compare_ids, "vectors": write_vectors}[arguments.kind]
    sys.exit(1 if command(arguments.tool, arguments) else 0)


if __name__ == "__main__":
    main()
