#!/usr/bin/env bash
# Compiles the library for systems that this machine is not, without warnings: check_targets.sh [TARGET...]. Nothing is run.
# Installs rustc-web and rust-web-src, Debian's packages, where they are missing and it may.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/cross.sh
cross_toolchain

# What no other script builds for: Android, and Linux in 32 bits.
[ $# -gt 0 ] || set -- aarch64-linux-android armv7-unknown-linux-gnueabihf
failed=
for target; do
    log=$CROSS_TARGET_DIR/$target.log
    mkdir -p "$CROSS_TARGET_DIR"
    features=$cross_features
    case $target in wasm*) features=--no-default-features ;; esac
    # shellcheck disable=SC2086
    if RUSTFLAGS="-D warnings" cross_cargo "$target" check --lib $features > "$log" 2>&1; then
        echo "$target: compiles"
    else
        failed+=" $target"
        grep -E -A8 '^(error|warning)' "$log" | head -40 || tail -20 "$log"
    fi
done
[ -z "$failed" ] || { echo "does not compile for$failed"; exit 1; }
