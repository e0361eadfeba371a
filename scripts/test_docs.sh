#!/usr/bin/env bash
# Compiles and runs the programs that stand in docs/embedding.md.
#
#   test_docs.sh list                names them, one a line
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

case "$#" in
    1) [ "$1" = list ] && list ;;
    3) run "$@" ;;
    *) sed -n '2,8s/^# \{0,1\}//p' "$0" >&2; exit 2 ;;
esac
