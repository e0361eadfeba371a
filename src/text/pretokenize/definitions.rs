//! The pre-tokenisers by the names that converters give them in `tokenizer.ggml.pre`.
//!
//! The expressions are facts of the models' tokenisers, as their definitions state them.

/// How the text of one or more tokenisers is cut, and what else only their name tells.
pub(in crate::text) struct Definition {
    pub names: &'static [&'static str],
    pub stages: &'static [Stage],
    /// A word that is itself a token is taken as that token, whatever the merges say.
    pub whole_words: bool,
    /// Whether the beginning token is added, where the file does not say.
    pub add_bos: bool,
    pub spelling: Spelling,
    /// The text is brought to Unicode normalisation form C first. Files do not tell; the models' own definitions do:
    /// those of Qwen 2 and 3.5, Cohere (`command-r`) and GPT-NeoX, whose tokeniser MPT, OLMo 1 and ModernBERT use, and the
    /// programs that came with StableLM 2 and Hunyuan. (llama.cpp leaves this out.)
    pub nfc: bool,
}

/// How the file spells tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::text) enum Spelling {
    /// Each byte as a printable character.
    Bytes,
    /// As text, with U+2581 for a space; what is in no token is spelt in tokens such as `<0x0A>`.
    Text,
    /// As text, without the white space that only parts words.
    Words,
}

/// A step of cutting; each cuts what the one before has left.
#[derive(Clone, Copy, Debug)]
pub(in crate::text) enum Stage {
    /// Each match of an expression is a piece, and so is what lies between two.
    Split(&'static str),
    Numbers(Numbers),
}

/// Cuts of numbers that look ahead to where the number ends.
#[derive(Clone, Copy, Debug)]
pub(in crate::text) enum Numbers {
    /// Runs of `\p{N}` are cut into threes from their end.
    Thousands,
    /// `\d{1,3}(?=(?:\d{3})*\b)`
    ThousandsBeforeBoundary,
    /// `(?=(\d{3})+(?!\d))`
    CutThousands,
    /// What `Digits` and then `[0-9][0-9][0-9]` do behind a byte-level stage. Always the last stage.
    Bytes,
}

impl Numbers {
    /// The expression of the same meaning, which takes quadratic time.
    pub fn expression(self) -> &'static str {
        match self {
            Numbers::Thousands => r"\p{N}{1,3}(?=(?:\p{N}{3})*(?!\p{N}))",
            Numbers::ThousandsBeforeBoundary => r"\d{1,3}(?=(?:\d{3})*\b)",
            Numbers::CutThousands => r"(?=(\d{3})+(?!\d))",
            Numbers::Bytes => "ByteLevel, Digits, [0-9][0-9][0-9]",
        }
    }
}

impl Definition {
    pub fn of(name: &str) -> Option<&'static Definition> {
        DEFINITIONS.iter().find(|definition| definition.names.contains(&name))
    }

    pub fn all() -> &'static [Definition] {
        DEFINITIONS
    }
}

macro_rules! contractions {
    () => {
        "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
    };
}

macro_rules! upper {
    () => {
        r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]"
    };
}

macro_rules! lower {
    () => {
        r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
    };
}

/// Words with their marks, cut where lower case turns to upper, and what follows them.
macro_rules! cased {
    ($upper:expr, $lower:expr, $after:expr) => {
        concat!(
            r"[^\r\n\p{L}\p{N}]?",
            $upper,
            "*",
            $lower,
            "+",
            $after,
            r"|[^\r\n\p{L}\p{N}]?",
            $upper,
            "+",
            $lower,
            "*",
            $after,
        )
    };
}

const GPT2: &str = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+";

/// As Llama 3 cuts, with other rules for numbers.
macro_rules! llama3 {
    ($numbers:expr) => {
        concat!(
            contractions!(),
            r"|[^\r\n\p{L}\p{N}]?\p{L}+|",
            $numbers,
            r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
        )
    };
}

const LLAMA3: &str = llama3!(r"\p{N}{1,3}");
const QWEN2: &str = llama3!(r"\p{N}");
const LINES: &str = r"[^\n]+|[\n]+";

const O200K: &str = concat!(
    cased!(upper!(), lower!(), concat!(contractions!(), "?")),
    r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+",
);

const BLOOM: &str = " ?[^(\\s|.,!?\u{2026}\u{3002}\u{ff0c}\u{3001}\u{964}\u{6d4}\u{60c})]+";

const CHINESE_AND_KANA: &str = "[\u{4e00}-\u{9fa5}\u{3040}-\u{309f}\u{30a0}-\u{30ff}]+";

/// As DeepSeek V3 cuts, with other rules for what may follow marks and for ends of lines.
macro_rules! deepseek3 {
    ($after_marks:expr, $lines:expr) => {
        concat!(
            r"[!-/:-@\[-`{-~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+",
            $after_marks,
            "|",
            $lines,
            r"|\s+(?!\S)|\s+",
        )
    };
}

const DEEPSEEK3: &str = deepseek3!(r"[\r\n]*", r"\s*[\r\n]+");

/// Letters that have a case, as Unicode knew them when DeepSeek LLM was made.
const DEEPSEEK_LETTERS: &str = "\\s?[\
    A-Za-z\u{b5}\u{c0}-\u{d6}\u{d8}-\u{f6}\u{f8}-\u{1ba}\u{1bc}-\u{1bf}\u{1c4}-\u{293}\u{295}-\u{2af}\
    \u{370}-\u{373}\u{376}\u{377}\u{37b}-\u{37d}\u{37f}\u{386}\u{388}-\u{38a}\u{38c}\u{38e}-\u{3a1}\
    \u{3a3}-\u{3f5}\u{3f7}-\u{481}\u{48a}-\u{52f}\u{531}-\u{556}\u{10a0}-\u{10c5}\u{13a0}-\u{13f5}\
    \u{13f8}-\u{13fd}\u{1c90}-\u{1cba}\u{1cbd}-\u{1cbf}\u{1d00}-\u{1d2b}\u{1d6b}-\u{1d77}\u{1d79}-\u{1d9a}\
    \u{1e00}-\u{1f15}\u{1f18}-\u{1f1d}\u{1f20}-\u{1f45}\u{1f48}-\u{1f4d}\u{1f50}-\u{1f57}\u{1f59}\u{1f5b}\
    \u{1f5d}\u{1f5f}-\u{1f7d}\u{1f80}-\u{1fb4}\u{1fb6}-\u{1fbc}\u{1fbe}\u{1fc2}-\u{1fc4}\u{1fc6}-\u{1fcc}\
    \u{1fd0}-\u{1fd3}\u{1fd6}-\u{1fdb}\u{1fe0}-\u{1fec}\u{1ff2}-\u{1ff4}\u{1ff6}-\u{1ffc}\u{2102}\u{2107}\
    \u{210a}-\u{2113}\u{2115}\u{2119}-\u{211d}\u{2124}\u{2126}\u{2128}\u{212a}-\u{212d}\u{212f}-\u{2134}\
    \u{2139}\u{213c}-\u{213f}\u{2145}-\u{2149}\u{214e}\u{2183}\u{2184}\u{2c00}-\u{2c7b}\u{2c7e}-\u{2ce4}\
    \u{2ceb}-\u{2cee}\u{2cf2}\u{2cf3}\u{a640}-\u{a66d}\u{a680}-\u{a69b}\u{a722}-\u{a76f}\u{a771}-\u{a787}\
    \u{a78b}-\u{a78e}\u{ab70}-\u{abbf}\u{fb00}-\u{fb06}\u{fb13}-\u{fb17}\u{ff21}-\u{ff3a}\u{ff41}-\u{ff5a}\
    \u{10400}-\u{1044f}\u{104b0}-\u{104d3}\u{104d8}-\u{104fb}\u{10c80}-\u{10cb2}\u{10cc0}-\u{10cf2}\
    \u{118a0}-\u{118df}\u{1e900}-\u{1e943}\
]+";
const DEEPSEEK_CHINESE: &str = "[\u{4e00}-\u{9fa5}\u{800}-\u{4e00}\u{ac00}-\u{d7ff}]+";

/// What most definitions share.
const PLAIN: Definition =
    Definition { names: &[], stages: &[], whole_words: false, add_bos: false, spelling: Spelling::Bytes, nfc: false };

use Stage::{Numbers as N, Split};

static DEFINITIONS: &[Definition] = &[
    Definition {
        names: &[
            "gpt-2",
            "phi-2",
            "jais",
            "jina-es",
            "jina-de",
            "jina-v1-en",
            "jina-v2-es",
            "jina-v2-de",
            "jina-v2-code",
            "roberta-bpe",
            "gigachat",
            "a.x-4.0",
            "mellum",
            "exaone4",
            "trillion",
            "granite-docling",
        ],
        stages: &[Split(GPT2)],
        ..PLAIN
    },
    Definition { names: &["mpt", "olmo", "modern-bert"], stages: &[Split(GPT2)], nfc: true, ..PLAIN },
    Definition {
        names: &["smollm", "starcoder", "refact", "codeshell", "exaone", "minerva-7b", "mellum2"],
        stages: &[Split(r"\p{N}"), Split(GPT2)],
        ..PLAIN
    },
    Definition { names: &["command-r"], stages: &[Split(r"\p{N}"), Split(GPT2)], nfc: true, ..PLAIN },
    Definition {
        names: &[
            "llama-bpe",
            "llama3",
            "llama-v3",
            "falcon3",
            "falcon-h1",
            "pixtral",
            "midm-2.0",
            "lfm2",
            "jina-v5-nano",
        ],
        stages: &[Split(LLAMA3)],
        whole_words: true,
        add_bos: true,
        ..PLAIN
    },
    Definition { names: &["glm4", "glm5"], stages: &[Split(LLAMA3)], whole_words: true, ..PLAIN },
    Definition { names: &["dbrx", "smaug-bpe", "chatglm-bpe"], stages: &[Split(LLAMA3)], ..PLAIN },
    Definition {
        names: &["minicpm5"],
        stages: &[Split(r"\p{N}{1,3}"), Split(llama3!(r"\p{N}+"))],
        whole_words: true,
        ..PLAIN
    },
    Definition {
        names: &["k2-horizon"],
        stages: &[Split(concat!(
            contractions!(),
            "|[^\\r\\n\\p{L}\\p{N}]?[\\p{L}\\p{M}\u{200c}\u{200d}]+",
            r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
        ))],
        ..PLAIN
    },
    Definition {
        names: &["jais-2"],
        stages: &[Split(concat!(
            contractions!(),
            r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+",
            r"|\s{512}(?!\S)|\s{256}(?!\S)|\s{128}(?!\S)|\s{64}(?!\S)|\s{32}(?!\S)|\s{16}(?!\S)|\s{8}(?!\S)",
            r"|\s{4}(?!\S)|\s{1,2}(?!\S)|\s{1}",
        ))],
        ..PLAIN
    },
    Definition {
        names: &["qwen2", "deepseek-r1-qwen", "f2llmv2", "stablelm2", "hunyuan"],
        stages: &[Split(QWEN2)],
        nfc: true,
        ..PLAIN
    },
    Definition { names: &["kormo", "megrez", "solar-open", "grok-2"], stages: &[Split(QWEN2)], ..PLAIN },
    Definition { names: &["laguna"], stages: &[Split(LINES), Split(QWEN2)], ..PLAIN },
    Definition {
        names: &["qwen35"],
        stages: &[Split(concat!(
            contractions!(),
            r"|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*",
            r"|\s*[\r\n]+|\s+(?!\S)|\s+",
        ))],
        nfc: true,
        ..PLAIN
    },
    Definition {
        names: &["ufakzeka"],
        stages: &[Split(r"[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+")],
        ..PLAIN
    },
    Definition {
        names: &["seed-coder"],
        stages: &[Split(concat!(
            contractions!(),
            r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1}| ?[^\s\p{L}\p{N}\r\n]+|\s*[\r\n]+|\s+(?!\S)|\s+",
        ))],
        ..PLAIN
    },
    Definition {
        names: &["bailingmoe", "bailingmoe2", "llada-moe"],
        stages: &[Split(concat!(
            r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]++[\r\n]*",
            r"|\s*[\r\n]|\s+(?!\S)|\s+",
        ))],
        ..PLAIN
    },
    Definition {
        names: &["exaone-moe"],
        stages: &[Split(concat!(
            contractions!(),
            r"|[^\r\n\p{L}\p{N}]?(?:\p{L}\p{M}*(?: \p{L}\p{M}*)*)+|\p{N}",
            r"| ?[^\s\p{L}\p{N}]+[\r\n/]?|\s*[\r\n]|\s+(?!\S)|\s+",
        ))],
        ..PLAIN
    },
    Definition { names: &["gpt-4o", "llama4", "kanana2", "talkie", "minimax-m2"], stages: &[Split(O200K)], ..PLAIN },
    Definition { names: &["granite-embed-multi-97m"], stages: &[Split(O200K)], whole_words: true, ..PLAIN },
    Definition {
        names: &["tekken"],
        stages: &[Split(concat!(
            cased!(upper!(), lower!(), ""),
            r"|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+",
        ))],
        whole_words: true,
        add_bos: true,
        ..PLAIN
    },
    Definition {
        names: &["youtu"],
        stages: &[
            Split(concat!(
                "[\u{ac00}-\u{d7a3}\u{3131}-\u{318e}]+",
                "|[\u{ff01}\u{2026}\u{201c}\u{201d}\u{2018}\u{2019}\u{2014}\u{ff1a}\u{ff1b}\u{ff0c}\u{3001}-\u{303f}\u{fe30}-\u{fe4f}]+",
                "|[\u{3105}-\u{312f}]+|[\u{4e00}-\u{9fa5}\u{3040}-\u{309f}\u{30a0}-\u{30ff}]+",
            )),
            Split(concat!(
                cased!(upper!(), lower!(), concat!(contractions!(), "?")),
                r"|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+",
            )),
        ],
        whole_words: true,
        ..PLAIN
    },
    Definition {
        names: &["tiny_aya", "cohere2moe"],
        stages: &[N(Numbers::ThousandsBeforeBoundary), Split(O200K)],
        ..PLAIN
    },
    Definition {
        names: &["kimi-k2", "kimi-k25"],
        stages: &[Split(concat!(
            r"[\p{Han}]+|",
            cased!(
                r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]",
                r"[\p{Ll}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]",
                concat!(contractions!(), "?")
            ),
            r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
        ))],
        ..PLAIN
    },
    Definition {
        names: &["deepseek-llm"],
        stages: &[
            Split(r"[\r\n]"),
            Split(DEEPSEEK_LETTERS),
            Split("\\s?[!-/:-~\u{ff01}-\u{ff0f}\u{ff1a}-\u{ff5e}\u{2018}-\u{201f}\u{3000}-\u{3002}]+"),
            Split(r"\s+$"),
            Split(DEEPSEEK_CHINESE),
            Split(r"\p{N}"),
        ],
        ..PLAIN
    },
    Definition {
        names: &["deepseek-coder"],
        stages: &[Split(r"[\r\n]"), Split(r"\s?\p{L}+"), Split(r"\s?\p{P}+"), Split(DEEPSEEK_CHINESE), Split(r"\p{N}")],
        ..PLAIN
    },
    Definition {
        names: &["deepseek-v3", "hunyuan-dense", "joyai-llm", "hy_v4"],
        stages: &[Split(r"\p{N}{1,3}"), Split(CHINESE_AND_KANA), Split(DEEPSEEK3)],
        ..PLAIN
    },
    Definition {
        names: &["spark2_5"],
        stages: &[Split(r"\p{N}{1,3}"), Split(CHINESE_AND_KANA), Split(deepseek3!("", r"[\r\n]")), Split(r"\p{N}")],
        ..PLAIN
    },
    Definition {
        names: &["afmoe"],
        stages: &[
            N(Numbers::Thousands),
            // Scripts of eastern Asia that are written without spaces.
            Split(concat!(
                "[\u{4e00}-\u{9fff}\u{3400}-\u{4dbf}\u{f900}-\u{faff}\u{3040}-\u{309f}\u{30a0}-\u{30ff}\u{ff65}-\u{ff9f}",
                "\u{2f00}-\u{2fdf}\u{e40}-\u{e7f}\u{e80}-\u{eff}\u{1780}-\u{17ff}\u{1000}-\u{109f}\u{aa60}-\u{aa7f}",
                "\u{a9e0}-\u{a9ff}\u{ac00}-\u{d7af}\u{1100}-\u{11ff}]+",
            )),
            Split(DEEPSEEK3),
        ],
        ..PLAIN
    },
    Definition {
        names: &["falcon"],
        stages: &[Split(r"[\p{P}!-/:-@\[-`{-~]+"), Split(GPT2), N(Numbers::Bytes)],
        ..PLAIN
    },
    Definition {
        names: &["default"],
        stages: &[Split(r"[\p{P}$+<=>\^~\|]+"), Split(GPT2), Split(r"\p{N}+"), Split("[0-9][0-9][0-9]")],
        ..PLAIN
    },
    Definition { names: &["bloom", "poro-chat", "gpt3-finnish"], stages: &[Split(BLOOM)], ..PLAIN },
    Definition { names: &["viking"], stages: &[Split(BLOOM), Split(r"\p{N}")], ..PLAIN },
    Definition {
        names: &["chameleon"],
        stages: &[
            Split("<sentinel:[0-9]+>"),
            Split("(IMGIMG)([A-I]{1,4})Z"),
            Split(r"([\t\n]|    |  )"),
            Split(r"\p{N}"),
            Split(r"[\p{P}!-/:-@\[-`{-~]"),
            Split(GPT2),
        ],
        add_bos: true,
        ..PLAIN
    },
    Definition { names: &["superbpe"], stages: &[Split(r"\p{N}+"), N(Numbers::CutThousands)], ..PLAIN },
    Definition {
        names: &["gemma4", "granite-embed-multi-311m", "mmbert"],
        add_bos: true,
        spelling: Spelling::Text,
        ..PLAIN
    },
    Definition { names: &["sarvam-moe"], spelling: Spelling::Text, ..PLAIN },
    Definition { names: &["whitespace"], spelling: Spelling::Words, ..PLAIN },
];
