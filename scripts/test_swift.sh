#!/usr/bin/env bash
# The Swift binding, against a library that `make install` has installed.
#
#   test_swift.sh tests PREFIX OUT      the package's own tests, unoptimised and optimised; built in OUT
#   test_swift.sh example PREFIX OUT    its example program
#   test_swift.sh programs PREFIX OUT   the Swift programs in bindings/swift/README.md and README.md, each as the only
#                                       source of a package of somebody else's
#
# SWIFT_ROOT   run in this folder, made by swift_root.sh; without it, the `swift` on the PATH
set -euo pipefail
cd "$(dirname "$0")/.."
project=$PWD
package=$project/bindings/swift
fail() { echo "$*" >&2; exit 1; }

model=$project/models/SmolLM2-135M-Instruct.Q4_1.gguf
[ -f "$model" ] || model=$project/tests/data/golden/arch/llama.gguf

installed() {
    local lib
    lib=$(dirname "$(find "$1" -name 'layerline.pc')")/..
    export PKG_CONFIG_PATH=$lib/pkgconfig LD_LIBRARY_PATH=$lib${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}
}
# Runs a command where Swift is.
within() {
    if [ -n "${SWIFT_ROOT:-}" ]; then "$project/scripts/swift_root.sh" run "$SWIFT_ROOT" "$@"; else "$@"; fi
}

tests() {
    local kind
    for kind in debug release; do
        (cd "$package" && within swift test -c $kind --scratch-path "$1/tests" -Xswiftc -warnings-as-errors)
    done
}

example() {
    local program text
    (cd "$package" && within swift build --product layerline-generate --scratch-path "$1/tests" -Xswiftc -warnings-as-errors)
    program=$1/tests/debug/layerline-generate
    text=$(within "$program" "$model" "The capital of France is" --budget 33% --tokens 16)
    echo "$text"
    case $model in *SmolLM2*) [[ $text == *Paris* ]] || fail "no Paris in the text" ;; esac
    # What is wrong is said, and is no success.
    ! within "$program" /no/such/model text 2> "$1/errors" || fail "opened what is not there"
    grep -q '/no/such/model' "$1/errors" || fail "the file is not named"
    ! within "$program" "$model" text --budget 1MiB || fail "opened in less than it needs"
    ! within "$program" "$model" text --budget nonsense || fail "took nonsense for a size"
    ! within "$program" "$model" || fail "did without a prompt"
    # Ctrl-C is no failure, and the figures still come.
    rm -f "$1/text"
    # shellcheck disable=SC2016
    within sh -c 'text=$1; shift; "$@" > "$text" &
        while kill -0 $! && ! [ -s "$text" ]; do sleep 0.1; done
        kill -INT $!; wait $!' - "$1/text" "$program" "$model" "One, two" --tokens 400 2> "$1/errors"
    grep -q ' tokens in ' "$1/errors" || fail "no figures after Ctrl-C"
}

# block FILE NAME NUMBER: the text of the NUMBERth block that is marked so.
block() {
    awk -v mark="\`\`\`swift $2" -v number="$3" '/^```$/ { inside = 0 } inside { print } $0 == mark { inside = ++seen == number }' "$1"
}

programs() {
    local out=$1/programs file number
    rm -rf "$out/hello/Sources" "$out/layerline"
    mkdir -p "$out/hello/Sources/hello"
    # Where the description of the package looks for it.
    ln -s "$project" "$out/layerline"
    ln -sf "$model" "$out/hello/model.gguf"
    block "$package/README.md" Package.swift 1 > "$out/hello/Package.swift"
    for file in "$package/README.md" "$project/README.md"; do
        for ((number = 1; ; number++)); do
            block "$file" main.swift $number > "$out/hello/Sources/hello/main.swift"
            [ -s "$out/hello/Sources/hello/main.swift" ] || break
            echo "-- program $number of ${file#"$project"/}"
            (cd "$out/hello" && within swift build -Xswiftc -warnings-as-errors && within .build/debug/hello model.gguf)
        done
        [ $number -gt 1 ] || fail "no program in $file"
    done
}

case "${1:-}" in
    tests | example | programs)
        [ $# = 3 ] || fail "test_swift.sh $1 PREFIX OUT"
        mkdir -p "$3"
        installed "$2"
        "$1" "$3"
        ;;
    *) sed -n '2,9s/^# \{0,1\}//p' "$0" >&2; exit 2 ;;
esac
