#!/usr/bin/env bash
# Compiles the library for systems that this machine is not, without warnings: check_targets.sh [TARGET...]. Nothing is run.
# Installs rustc-web and rust-web-src, Debian's packages, where they are missing and it may.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/cross.sh
cross_toolchain

# Linux on other processors and with another C library, Apple's systems, Android, Windows, WebAssembly without threads.
[ $# -gt 0 ] || set -- aarch64-unknown-linux-gnu armv7-unknown-linux-gnueabihf i686-unknown-linux-gnu x86_64-unknown-linux-musl \
    aarch64-apple-darwin x86_64-apple-darwin aarch64-apple-ios aarch64-linux-android x86_64-linux-android \
    x86_64-pc-windows-msvc aarch64-pc-windows-msvc wasm32-wasip1
failed=
for target; do
    log=$CROSS_TARGET_DIR/$target.log
    mkdir -p "$CROSS_TARGET_DIR"
    features=()
    case $target in wasm*) features=(--no-default-features) ;; esac
    if RUSTFLAGS="-D warnings" cross_cargo "$target" check --lib ${features[@]+"${features[@]}"} > "$log" 2>&1; then
        echo "$target: compiles"
    else
        failed+=" $target"
        grep -E -A8 '^(error|warning)' "$log" | head -40 || tail -20 "$log"
    fi
done
[ -z "$failed" ] || { echo "does not compile for$failed"; exit 1; }
