#!/usr/bin/env bash
# Tests the library for 64-bit ARM under an emulator: the logits of the tiny models with each level of instructions against
# those that `make test` has found here, the C suite against the static library, the unit tests and the products with all
# instructions that the emulator knows, and the kernels once more as processors without some of them have them.
#
#   LAYERLINE_QUICK   1: the first two of these, and all models with the best instructions alone
#
# Installs qemu-user-static, gcc-aarch64-linux-gnu, g++-aarch64-linux-gnu, rustc-web and rust-web-src, Debian's packages, where
# they are missing and it may. Everything is linked statically: the emulator then needs no libraries for the other processor.
# It keeps the order in which this machine's processor reads and writes memory, which is stricter than that of ARM: what these
# tests say of threads is not proved by them.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/cross.sh
cross_packages qemu-user-static gcc-aarch64-linux-gnu g++-aarch64-linux-gnu
cross_toolchain

target=aarch64-unknown-linux-gnu
folder=$CROSS_TARGET_DIR/$target
run() { # PROCESSOR PROGRAM ARGS...
    local processor=$1
    shift
    echo "== $processor: ${1##*/} ${*:2}"
    qemu-aarch64-static -cpu "$processor" "$@"
}

export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER=aarch64-linux-gnu-gcc
export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUSTFLAGS="-C target-feature=+crt-static"
export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUNNER="qemu-aarch64-static -cpu max"
mkdir -p "$folder"
log=$folder/build.log
# shellcheck disable=SC2086
{ cross_cargo $target rustc --quiet $cross_features --lib --crate-type staticlib,rlib &&
    cross_logits $target -C linker=aarch64-linux-gnu-gcc -C target-feature=+crt-static; } > "$log" 2>&1 || { tail -20 "$log"; exit 1; }
names=$(qemu-aarch64-static -cpu max "$folder/logits" --instructions)
for name in $names; do
    of=formats
    [ "${LAYERLINE_QUICK:-0}" = 1 ] && [ "$name" != "${names##*$'\n'}" ] || of=all
    same_logits $of qemu-aarch64-static -cpu max "$folder/logits" --instructions "$name"
done

command -v cmake > /dev/null || { echo "the C suite: cmake is missing" >&2; exit 1; }
cmake -S ctests -B "$folder/ctests" -DCMAKE_SYSTEM_NAME=Linux -DCMAKE_SYSTEM_PROCESSOR=aarch64 \
    -DCMAKE_C_COMPILER=aarch64-linux-gnu-gcc -DCMAKE_CXX_COMPILER=aarch64-linux-gnu-g++ -DCMAKE_EXE_LINKER_FLAGS=-static \
    -DCMAKE_CROSSCOMPILING_EMULATOR="$(command -v qemu-aarch64-static);-cpu;max" -DLAYERLINE_STATIC=ON \
    -DLAYERLINE_LIB_DIR="$folder/debug" -DLAYERLINE_NATIVE_LIBS="-lutil -lrt -lpthread -lm -ldl -lc" \
    -DLAYERLINE_TEST_DATA="${CARGO_TARGET_DIR:-$PWD/target}/golden" > "$log" 2>&1 &&
    cmake --build "$folder/ctests" -j "$(nproc)" >> "$log" 2>&1 || { tail -40 "$log"; exit 1; }
# What is left out looks at the process's own memory, which is the emulator's here, or starts itself as another process,
# which the system does not know how to run.
(cd "$folder/ctests" && ctest -j "$(nproc)" --output-on-failure --no-tests=error -E '^(budget|limits|storm|saving)_')
[ "${LAYERLINE_QUICK:-0}" != 1 ] || exit 0

# shellcheck disable=SC2086
cross_cargo $target test --no-run $cross_features --lib --test matmul --message-format=json > "$folder/built.json" 2> "$log" ||
    { grep -E -A8 '^(error|warning)' "$log" || tail -20 "$log"; exit 1; }
unit=$(cross_program layerline "$folder/built.json")
matmul=$(cross_program matmul "$folder/built.json")

# One test starts itself too.
run max "$unit" --quiet --skip panics_outside_of_calls_reach_the_hosts_hook
run max "$matmul" --quiet
# With neither dot products nor products of matrices, and with the first alone.
for processor in cortex-a53 cortex-a76; do
    run $processor "$unit" --quiet kernel::matmul kernel::vector kernel::attention
    run $processor "$matmul" --quiet
done
