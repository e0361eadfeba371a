#!/bin/sh
# Fills the corpora: of the gguf target with files that show the fuzzer what a model looks like, which are the golden ones,
# whole, and cut soon after their tensor directory, where all that the reader looks at has been said; of the chat target
# with templates, and what has once gone beyond its bounds; of the text target with a small vocabulary of every family; of
# the constraint target with one of every kind; of the budgets target with schedules.
set -eu
cd "$(dirname "$0")"
mkdir -p corpus/gguf
golden=$PWD/target/golden
(cd .. && cargo run --quiet --example golden -- "$golden")
for file in "$golden"/arch/*.gguf "$golden"/encoder/*.gguf; do
    name=$(basename "$file" .gguf)
    cp "$file" "corpus/gguf/$name"
    head -c 9600 "$file" > "corpus/gguf/$name-head"
done
# The least files there are: a header alone, and one with each of a key and a tensor.
printf 'GGUF\003\000\000\000\000\000\000\000\000\000\000\000\000\000\000\000\000\000\000\000' > corpus/gguf/empty
{
    printf 'GGUF\003\000\000\000\001\000\000\000\000\000\000\000\001\000\000\000\000\000\000\000'
    printf '\001\000\000\000\000\000\000\000k\004\000\000\000\007\000\000\000'
    printf '\001\000\000\000\000\000\000\000t\001\000\000\000\010\000\000\000\000\000\000\000\000\000\000\000\000\000\000\000\000\000\000\000'
    head -c 64 /dev/zero
} > corpus/gguf/least
mkdir -p corpus/chat
for file in ../tests/data/chat/*.jinja; do
    { echo '{"messages": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": ""}], "tools": [{}]}'; cat "$file"; } \
        > "corpus/chat/$(basename "$file" .jinja)"
done
# One line each: what a template may do with long strings, long lists, deep nesting and large numbers.
number=0
while read -r template; do
    number=$((number + 1))
    { echo '{"messages": [{"role": "user", "content": "hi"}]}'; printf '%s' "$template"; } > "corpus/chat/bound-$number"
done << 'END'
{{ "%999999999s" % "x" }}
{{ "{:>999999999}".format("x") }}
{{ ("x" * 100000) | tojson(indent=100000) }}
{{ range(1000000000)[999999999:] | list | length }}
{% for c in "x" * 1000000 %}{% break %}{% endfor %}
{{ ("x" * 1000000)[::-2] }}
{{ [1, 2, 3] | map("slice", 1000000) | list }}
{% set ns = namespace(s="x") %}{% for i in range(40) %}{% set ns.s = ns.s ~ ns.s %}{% endfor %}{{ ns.s }}
{% macro f(n) %}{{ f(n + 1) }}{% endmacro %}{{ f(0) }}
{{ ["x"] * 10000000 | join("y" * 100) }}
{{ messages | tojson | replace("", "x" * 1000) }}
{{ 9999999999999999999999999999 ** 9999999 }}
END
mkdir -p corpus/text
# A byte each for the family and the pre-tokeniser, the text, replacements, and tokens with a byte for kind and score.
for family in 0 1 2 3 4; do
    for pre in 0 3 7 12; do
        { printf "\\$(printf %o $family)\\$(printf %o $pre)"; printf 'hello wor  ld 123\n\303\244\377\377\001h\377\001e\377\001l\377\001o\377\011he\377\021ll\377\031hell\377\003<s>\377\004 wor'; } \
            > "corpus/text/family-$family-$pre"
    done
done
mkdir -p corpus/constraint
# A byte for the kind, and choices behind 0xff.
printf '\0{"type": "object", "properties": {"a": {"type": "integer"}, "b": {"enum": ["x", "yz"]}}, "required": ["a"]}\377\1\2\3\4\5\6\7' > corpus/constraint/schema
printf '\0{"type": "string", "pattern": "^[a-z]{2,4}-[0-9]+$", "maxLength": 9}\377\11\22\33\44\55' > corpus/constraint/pattern
printf '\1root ::= "a" b* | [0-9]{2,3}\nb ::= "x" root?\n\377\1\2\3' > corpus/constraint/gbnf
printf '\2start: "a" NUMBER*\nNUMBER: /[0-9]+/\n%%ignore " "\n\377\1\2\3' > corpus/constraint/lark
printf '\3(ab|c[^d])*e{2,5}\377\1\2\3' > corpus/constraint/regex
mkdir -p corpus/budgets
# For each way of reading: sessions, passes, a smaller budget, a prefetch, a state saved and loaded.
for io in 0 1 2 3; do
    printf "\\$io\\0\\0\\0\\2\\377\\0\\1\\5\\36\\7\\37\\3\\3\\2\\0\\11\\0\\6\\11\\12\\0\\13\\0\\13\\4\\10\\6\\4\\1\\1\\0" > "corpus/budgets/mixed-$io"
    printf "\\$io\\0\\2\\377\\3\\0\\3\\3\\2\\0\\0\\0\\5\\3" > "corpus/budgets/prefetched-$io"
done
