#!/usr/bin/env bash
# The systems that this machine is not: what runs here under an emulator, and what is compiled for them. What cannot be had
# is skipped and named. After `make test`, whose library and tiny models WebAssembly is compared with.
#
#   CARGO, PYTHON           the programs to use
#   LAYERLINE_REQUIRE_ALL   1: what was skipped is a failure
set -u
cd "$(dirname "$0")/.."
target=${CARGO_TARGET_DIR:-$PWD/target}
logs=$target/platforms
mkdir -p "$logs"
[ "$(uname -s)-$(uname -m)" = Linux-x86_64 ] || { echo "only on Linux and x86-64"; exit 77; }
failed=()
skipped=()

# step NAME COMMAND...: 77 is for what cannot be had here.
step() {
    local name=$1 log=$logs/${1//[^a-zA-Z0-9]/-}.log start=$SECONDS status
    shift
    "$@" > "$log" 2>&1
    status=$?
    case $status in
        0) echo "-- $name: passed ($((SECONDS - start)) s)" ;;
        77) skipped+=("$name") && echo "-- $name: skipped: $(tail -1 "$log")" ;;
        *) failed+=("$name") && tail -60 "$log" && echo "-- $name: FAILED ($status)" ;;
    esac
}

step "64-bit ARM, emulated" scripts/test_aarch64.sh
step "Windows, under wine" scripts/test_windows.sh
step "WebAssembly, in wasmtime" scripts/test_wasm.sh "$target/release" "$target/golden" "$target/wasm"
step "Linux with musl" scripts/test_musl.sh "$target/golden"
step "macOS and iOS, compiled" scripts/xcframework.sh check
step "Android and 32 bits, compiled" scripts/check_targets.sh

echo "platforms: ${#failed[@]} failed (${failed[*]-}), ${#skipped[@]} skipped (${skipped[*]-})"
[ ${#failed[@]} = 0 ] && { [ ${#skipped[@]} = 0 ] || [ "${LAYERLINE_REQUIRE_ALL:-0}" != 1 ]; }
