#!/usr/bin/env bash
# Compiles and runs the programs that stand in docs/embedding.md, and the first one of the README.
#
#   test_docs.sh list                names those of docs/embedding.md, one a line
#   test_docs.sh readme LIBRARIES OUT  builds the README's by the line that stands below it, and runs it
#   test_docs.sh NAME LIBRARIES OUT  builds one in OUT, against the library in the folder LIBRARIES, and runs it
#
# A program is a fenced block that begins with ```c NAME and ends what follows on that line: -flags, or packages of
# pkg-config. What ends with 77 cannot be built here; it says what is missing.
set -euo pipefail
cd "$(dirname "$0")/.."
doc=docs/embedding.md

list() { sed -n 's/^```c \([a-z]*\.c\).*/\1/p' "$doc"; }
block() { awk -v name="$1" '/^```$/ { inside = 0 } inside { print } /^```c / { inside = $2 == name }' "$doc"; }

run() {
    local name=$1 libraries=$2 out=$3 word flags=() cc=${CC:-cc}
    mkdir -p "$out"
    block host.h > "$out/host.h"
    block "$name" > "$out/$name"
    for word in $(sed -n "s/^\`\`\`c $name *//p" "$doc"); do
        case $word in
            -*) flags+=("$word") ;;
            *)
                pkg-config --exists "$word" 2> /dev/null || { echo "$word is not installed"; exit 77; }
                # Headers of others are not held to our warnings.
                # shellcheck disable=SC2207
                flags+=($(pkg-config --cflags "$word" | sed 's/-I/-isystem /g') $(pkg-config --libs "$word"))
                ;;
        esac
    done
    "$cc" -std=c99 -Wall -Wextra -pedantic -Werror -Iinclude "$out/$name" -o "$out/${name%.c}" -L"$libraries" -llayerline \
        -Wl,-rpath,"$libraries" ${flags[@]+"${flags[@]}"}
    "$out/${name%.c}" tests/data/golden/arch/llama.gguf
}

readme() {
    local libraries=$1 out=$2 line root=$PWD
    mkdir -p "$out/target"
    out=$(cd "$out" && pwd)
    awk '/^```$/ && inside { exit } inside { print } /^```c$/ { inside = 1 }' README.md > "$out/hello.c"
    line=$(sed -n '/^cc .*hello\.c .*target\/release/p' README.md | head -1)
    [ -s "$out/hello.c" ] && [ -n "$line" ] || { echo "the README has no such program or line"; exit 1; }
    ln -sfn "$root/include" "$out/include"
    ln -sfn "$(cd "$libraries" && pwd)" "$out/target/release"
    ln -sf "$root/tests/data/golden/arch/llama.gguf" "$out/model.gguf"
    cd "$out"
    eval "${line/#cc/${CC:-cc} -Wall -Wextra -Werror}"
    ./hello > text && [ -s text ] || { echo "it prints nothing"; exit 1; }
    # What is wrong is said, and is no success.
    head -c 1000 "$root/tests/data/golden/arch/llama.gguf" > cut && ln -sf cut model.gguf
    ! ./hello 2> errors && [ -s errors ] || { echo "a model that is cut short is a success"; exit 1; }
}

case "$#" in
    1) [ "$1" = list ] && list ;;
    3) if [ "$1" = readme ]; then readme "$2" "$3"; else run "$@"; fi ;;
    *) sed -n '2,9s/^# \{0,1\}//p' "$0" >&2; exit 2 ;;
esac
