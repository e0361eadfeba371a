#!/usr/bin/env bash
# ThreadSanitizer over what runs on several threads: the engine, sessions, the compute pool, and the stress test.
# The standard library is built with it, so that nothing is taken for a race that is none. Ends with 77 where that cannot be.
#
#   LAYERLINE_STRESS_SECONDS   how long the stress test runs, 60 unless told
#   NIGHTLY                    rustup's name of the toolchain, "nightly" unless told
set -eu
cd "$(dirname "$0")/.."
target=x86_64-unknown-linux-gnu
nightly=${NIGHTLY:-nightly}

missing() {
    echo "tsan: $1" >&2
    exit 77
}
[ "$(uname -sm)" = "Linux x86_64" ] || missing "the script is written for Linux on x86-64"
sysroot=$(rustc "+$nightly" --print sysroot 2> /dev/null) ||
    missing "there is no nightly toolchain: rustup toolchain install $nightly"
[ -f "$sysroot/lib/rustlib/src/rust/library/std/Cargo.toml" ] ||
    missing "the nightly toolchain has no rust-src: rustup component add rust-src --toolchain $nightly"
ls "$sysroot/lib/rustlib/$target/lib/"*tsan*.a > /dev/null 2>&1 || missing "the nightly toolchain has no ThreadSanitizer runtime"

export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-target}/tsan
export RUSTFLAGS="${RUSTFLAGS:-} -Zsanitizer=thread"
export TSAN_OPTIONS="halt_on_error=0 exitcode=66 second_deadlock_stack=1 ${TSAN_OPTIONS:-}"
export LAYERLINE_STRESS_SECONDS=${LAYERLINE_STRESS_SECONDS:-60}
tests() { cargo "+$nightly" test -Zbuild-std --target "$target" "$@"; }

tests --lib -- weights:: session:: kernel::pool::
tests --test stress -- --nocapture
echo "tsan: no race was found"
