#!/usr/bin/env bash
# The library as WebAssembly: compiled for wasm32-wasip1 without a warning and run in wasmtime, held against the native
# library in LIBRARIES (liblayerline.so, with the golden models in MODELS); and compiled for wasm32-unknown-unknown,
# which nothing here runs.
#
#   test_wasm.sh LIBRARIES MODELS OUT
#
# Installs, where they are missing and it may: Debian's rustc-web and rust-web-src (the standard library is built from
# source), clang, lld, wasi-libc and libclang-rt-dev-wasm32; and PyPI's wasmtime into OUT.
#
# CARGO, PYTHON   the programs to use
set -euo pipefail
cd "$(dirname "$0")/.."
libraries=$1 models=$2 out=$3
python=${PYTHON:-python3}
mkdir -p "$out"
. scripts/cross.sh
cross_toolchain
cross_packages clang lld wasi-libc libclang-rt-dev-wasm32
sysroot=/usr/lib/wasm32-wasi

if [ ! -x "$out/venv/bin/python" ]; then "$python" -m venv "$out/venv"; fi
"$out/venv/bin/python" -c 'import wasmtime' 2> /dev/null ||
    "$out/venv/bin/pip" install --quiet --disable-pip-version-check wasmtime

# What Debian's C library is too old for.
clang --target=wasm32-wasi -O2 -Wall -Wextra -Werror -c scripts/wasm/libc.c -o "$out/libc.o"
# Threads and the loader are not there; warnings are errors.
export RUSTFLAGS="-D warnings"

# A module for hosts, which exports the C functions, the allocator, and a table that takes the host's callbacks; and the
# library for programs. They run for seconds: most of the time is the compiler's.
CARGO_PROFILE_DEV_OPT_LEVEL=1 cross_cargo wasm32-wasip1 rustc --lib --no-default-features --crate-type cdylib,staticlib -- -C linker=wasm-ld -C link-self-contained=no \
    -C link-arg="-L$sysroot" -C link-arg="$sysroot/crt1-reactor.o" -C link-arg="$out/libc.o" -C link-arg=--export=malloc -C link-arg=--export=free \
    -C link-arg=--export-table -C link-arg=--growable-table
module=$CROSS_TARGET_DIR/wasm32-wasip1/debug/layerline.wasm
LAYERLINE_LIBRARY=$libraries/liblayerline.so "$out/venv/bin/python" -B scripts/wasm_host.py "$module" "$models"

# A program for WASI in C, which reads a file of a folder that it is given.
clang --target=wasm32-wasi --sysroot=/usr -I/usr/include/wasm32-wasi -std=c11 -O2 -Wall -Wextra -pedantic -Werror -Iinclude \
    examples/source.c "$CROSS_TARGET_DIR/wasm32-wasip1/debug/liblayerline.a" "$out/libc.o" -o "$out/source.wasm"
program() {
    "$out/venv/bin/python" -B scripts/wasm_host.py --program "$out/source.wasm" tests/data/golden/arch "$@"
}
text=$(program /models/llama.gguf)
cc -std=c11 -O2 -Iinclude examples/source.c -o "$out/source" "-L$libraries" -llayerline "-Wl,-rpath,$libraries"
[ -n "$text" ] && [ "$text" = "$("$out/source" tests/data/golden/arch/llama.gguf)" ] || { echo "other text: $text"; exit 1; }
! program /models/none.gguf 2> "$out/errors" || { echo "opened what is not there"; exit 1; }
grep -q 'none.gguf' "$out/errors"

RUSTFLAGS="$RUSTFLAGS --cfg getrandom_backend=\"unsupported\"" cross_cargo wasm32-unknown-unknown check --lib --no-default-features
