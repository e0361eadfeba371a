#!/bin/sh
# Fills the corpora: of the gguf target with files that show the fuzzer what a model looks like, which are the golden ones,
# whole, and cut soon after their tensor directory, where all that the reader looks at has been said; of the chat target
# with templates.
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
