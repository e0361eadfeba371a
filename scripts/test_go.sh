#!/usr/bin/env bash
# The Go binding: its tests, and programs that use it as other people's do.
#
#   test_go.sh tests LIBRARIES                  gofmt, go vet, go test -race, against the library in the folder LIBRARIES
#   test_go.sh leaks LIBRARIES OUT              10,000 times everything, opened and closed, under AddressSanitizer
#   test_go.sh example LIBRARIES MODEL OUT      examples/generate under a budget, with a real model
#   test_go.sh serve LIBRARIES MODEL OUT PYTHON    examples/serve in a third of a real model, asked by PYTHON's `openai`
#   test_go.sh consumer shared|static PREFIX    the Go programs of all documents, in a module of their own, vendored, by
#                                               pkg-config from what scripts/test_install.sh has installed
#
# GO   the program to use
set -euo pipefail
# Go tells compilers apart by the name that they give, and `cc`, which make calls by default, need not give one.
[ "${CC:-cc}" != cc ] || unset CC
cd "$(dirname "$0")/.."
root=$PWD
module=$root/bindings/go
model=$root/tests/data/golden/arch/llama.gguf
documents=(README.md docs/embedding.md bindings/go/README.md)
go=${GO:-go}
export GOFLAGS=-mod=mod GOPROXY=off GOTOOLCHAIN=local
fail() { echo "$*" >&2; exit 1; }

# in_checkout LIBRARIES COMMAND...: in the module, linked with the library in that folder, wherever cargo puts it.
in_checkout() {
    local libraries=$1
    shift
    (cd "$module" && CGO_LDFLAGS="-L$libraries -Wl,-rpath,$libraries" GOFLAGS="$GOFLAGS -tags=layerline_checkout" "$@")
}

tests() {
    local ill
    ill=$(cd "$module" && gofmt -l .)
    [ -z "$ill" ] || fail "gofmt would change $ill"
    in_checkout "$1" "$go" vet ./...
    in_checkout "$1" "$go" test -count=1 -race ./...
}

leaks() {
    mkdir -p "$2"
    in_checkout "$1" "$go" build -asan -o "$2/cycles" ./internal/cycles
    "$2/cycles" "$model" 4000
}

example() {
    local libraries=$1 model=$2 out=$3 text
    mkdir -p "$out"
    in_checkout "$libraries" "$go" build -o "$out/generate" ./examples/generate
    text=$("$out/generate" -budget 33% -tokens 16 "$model" "The capital of France is")
    echo "$text"
    case "$text" in *Paris*) ;; *) fail "no Paris in the text" ;; esac
    ! "$out/generate" /no/such/model text && ! "$out/generate" -budget 1MiB "$model" text &&
        ! "$out/generate" -budget nonsense "$model" text && ! "$out/generate" 2> /dev/null || fail "what is wrong was a success"
}

serve() {
    local libraries=$1 model=$2 out=$3 python=$4
    mkdir -p "$out"
    [ "$(cat "$module"/examples/serve/{api,main}.go | wc -l)" -le 500 ] || fail "the server has more than 500 lines"
    in_checkout "$libraries" "$go" build -o "$out/serve" ./examples/serve
    ! "$out/serve" /no/such/model 2> /dev/null && ! "$out/serve" 2> /dev/null || fail "what is wrong was a success"
    "$python" scripts/serve_openai.py "$out/serve" "$model"
    "$python" scripts/serve_openai.py "$out/serve" "$model" --random 8
}

# Each whole program between ```go and ``` goes into a folder of its own below OUT.
programs() {
    awk -v out="$1" '
        /^```$/ && file { close(file); file = "" }
        file { print > file }
        /^```go$/ { folder = out "/program" ++count; system("mkdir -p " folder); file = folder "/main.go" }
    ' "${documents[@]}"
}

consumer() {
    local kind=$1 prefix=$2 out=$2-go-$1 lib tags= program count=0 version
    version=$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -1)
    rm -rf "$out"
    mkdir -p "$out/module"
    if [ "$kind" = static ]; then
        # As where the static library alone is installed: a linker that finds both takes the shared one.
        cp -R "$prefix" "$out/prefix"
        find "$out/prefix" \( -name 'liblayerline.so*' -o -name 'liblayerline*.dylib' \) -delete
        sed -i.bak "s|^prefix=.*|prefix=$out/prefix|" "$(find "$out/prefix" -name layerline.pc)"
        prefix=$out/prefix tags=layerline_static
    fi
    lib=$(dirname "$(find "$prefix" -name 'liblayerline.a')")
    export PKG_CONFIG_PATH=$lib/pkgconfig
    programs "$out/module"
    cp "$model" "$out/model.gguf"
    cd "$out/module"
    # As the README of the module says.
    "$go" mod init example.com/consumer 2> "$out/log"
    "$go" mod edit "-require=layerline@v$version" "-replace=layerline=$module"
    "$go" mod vendor
    cmp vendor/layerline/layerline.h "$root/include/layerline.h" || fail "the header does not travel with the module"
    # Nothing but what was vendored: the checkout is out of the way.
    "$go" mod edit -replace=layerline=../elsewhere
    sed -i.bak "s|$module|../elsewhere|" vendor/modules.txt
    for program in program*; do
        count=$((count + 1))
        GOFLAGS=-mod=vendor "$go" vet "./$program"
        GOFLAGS=-mod=vendor "$go" build -tags "$tags" -o "$out/$program" "./$program"
        if [ "$(uname -s)" = Linux ]; then
            readelf -d "$out/$program" | grep -q 'NEEDED.*\[liblayerline\.so\.0\]' && linked=shared || linked=static
            [ "$linked" = "$kind" ] || fail "$program is linked $linked"
        fi
        (cd "$out" && LD_LIBRARY_PATH="$lib${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}" "./$program") > "$out/$program.out" || {
            cat "$out/$program.out"
            fail "$program failed"
        }
        [ -s "$out/$program.out" ] || fail "$program prints nothing"
    done
    echo "$count programs, linked $kind"
    [ "$count" -ge 4 ] || fail "the documents have more programs than that"
}

case "${1:-} $#" in
    "tests 2" | "leaks 3" | "example 4" | "serve 5" | "consumer 3") "$@" ;;
    *) sed -n '2,12s/^# \{0,1\}//p' "$0" >&2; exit 2 ;;
esac
