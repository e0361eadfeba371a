#!/usr/bin/env bash
# The static library with musl: programs of the C suite, linked statically, run on this machine: test_musl.sh MODELS, which
# is the folder of the tiny models. Installs musl-tools, rustc-web and rust-web-src, Debian's packages, where they are missing
# and it may.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/cross.sh
cross_packages musl-tools
cross_toolchain
models=$(cd "$1" && pwd)
triple=$(uname -m)-unknown-linux-musl
out=$CROSS_TARGET_DIR/musl
mkdir -p "$out"
# It runs for seconds: most of the time is the compiler's.
# shellcheck disable=SC2086
CARGO_PROFILE_DEV_OPT_LEVEL=1 cross_cargo "$triple" rustc --lib --crate-type staticlib $cross_features
library=$CROSS_TARGET_DIR/$triple/debug/liblayerline.a
# Debian's libgcc is made for the GNU C library, of which it asks this; refused, it goes on as with musl's own.
echo 'int _dl_find_object(void *at, void *found) { (void)at; (void)found; return -1; }' > "$out/unwind.c"
export LAYERLINE_QUICK=1
for name in version_error options plan model_open session sampler_generate prefetch_events submit threads text chat state; do
    musl-gcc -static -std=c11 -D_GNU_SOURCE -O1 -Wall -Wextra -Werror -Iinclude "-DLAYERLINE_TEST_DATA=\"$models\"" \
        "-DLAYERLINE_REAL_MODEL=\"$PWD/models/SmolLM2-135M-Instruct.Q4_1.gguf\"" \
        "-DLAYERLINE_ADAPTER=\"$PWD/tests/data/lora.gguf\"" "ctests/$name.c" ctests/support.c "$out/unwind.c" "$library" -o "$out/$name"
    (cd "$out" && "./$name") > "$out/$name.log" 2>&1 || { tail -20 "$out/$name.log"; echo "$name failed"; exit 1; }
    echo "$name"
done
