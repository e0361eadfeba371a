#!/usr/bin/env bash
# The systems that this machine is not: what runs here under an emulator, and what is compiled for them. What cannot be had
# is skipped and named. After `make test`, whose library, tiny models and logits these are compared with.
#
#   CARGO, PYTHON           the programs to use
#   LAYERLINE_QUICK         1: for ARM and Windows the logits and the C suite, and not the library's own tests, which are to be
#                           compiled for each once more and take an emulator many minutes; for macOS and iOS a compile check
#   LAYERLINE_REQUIRE_ALL   1: what was skipped is a failure
#   LAYERLINE_UNTIL         a time in seconds since 1970: what has not ended by then is stopped and named, and no failure
set -u
cd "$(dirname "$0")/.."
target=${CARGO_TARGET_DIR:-$PWD/target}
logs=$target/platforms
results=$logs/results
mkdir -p "$logs"
: > "$results"
. scripts/times.sh
[ "$(uname -s)-$(uname -m)" = Linux-x86_64 ] || { echo "only on Linux and x86-64"; exit 77; }

# step NAME COMMAND...: 77 is for what cannot be had here.
step() {
    local name=$1 log=$logs/${1//[^a-zA-Z0-9]/-}.log start=$SECONDS status result left before
    shift
    processor_seconds
    before=$processor_seconds
    left=$((${LAYERLINE_UNTIL:-0} - $(date +%s)))
    if [ -z "${LAYERLINE_UNTIL:-}" ]; then
        "$@" > "$log" 2>&1
    elif [ $left -gt 0 ]; then
        timeout $left "$@" > "$log" 2>&1
    else
        (exit 124)
    fi
    status=$?
    processor_seconds
    case $status in
        0) result="passed ($((SECONDS - start)) s, of the processors $((processor_seconds - before)))" ;;
        124) result="left out, as the time was over" ;;
        77) result="skipped: $(tail -1 "$log")" ;;
        *) tail -60 "$log" && result="FAILED ($status)" ;;
    esac
    echo "-- $name: $result" | tee -a "$results"
}
counted() { grep -c -e "^-- .*: $1" "$results"; }

# At once, as two lanes may not install at the same time; what is missing afterwards is told by the steps.
users=(scripts/{cross,test_{aarch64,windows,wasm,musl}}.sh)
[ "${LAYERLINE_QUICK:-0}" = 1 ] || users+=(scripts/{test_pages,xcframework}.sh)
packages=$(sed -n 's/^ *cross_packages \([a-z0-9 +-]*\).*/\1/p' "${users[@]}" | tr '\n' ' ')
# shellcheck disable=SC2086
(. scripts/cross.sh && cross_packages $packages) > "$logs/packages.log" 2>&1

# Most of the time one file is compiled, by one thread: two lanes, each with a folder of its own. First what runs, then what
# is only compiled.
(
    export CROSS_TARGET_DIR=$target/cross
    step "64-bit ARM, emulated" scripts/test_aarch64.sh
    [ "${LAYERLINE_QUICK:-0}" = 1 ] || step "pages of 16 and 64 KiB" scripts/test_pages.sh
    step "Linux with musl" scripts/test_musl.sh "$target/golden"
    step "Android and 32 bits, compiled" scripts/check_targets.sh
) &
(
    export CROSS_TARGET_DIR=$target/cross-beside
    step "Windows, under wine" scripts/test_windows.sh
    step "WebAssembly, in wasmtime" scripts/test_wasm.sh "$target/release" "$target/golden" "$target/wasm"
    if [ "${LAYERLINE_QUICK:-0}" = 1 ]; then
        step "macOS and iOS, compiled" scripts/check_targets.sh {aarch64,x86_64}-apple-darwin aarch64-apple-ios
        step "Windows on ARM, compiled" scripts/check_targets.sh aarch64-pc-windows-msvc
    else
        step "macOS and iOS, compiled" scripts/xcframework.sh check
    fi
) &
wait

echo "platforms: $(counted passed) passed, $(counted FAILED) failed, $(counted skipped) skipped," \
    "$(counted 'left out') left out ($SECONDS s)"
[ "$(counted FAILED)" = 0 ] && { [ "$(counted skipped)" = 0 ] || [ "${LAYERLINE_REQUIRE_ALL:-0}" != 1 ]; }
