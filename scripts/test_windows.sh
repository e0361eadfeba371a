#!/usr/bin/env bash
# Windows, as far as a machine with Linux can tell: what compiles, and what runs under wine.
#
#   test_windows.sh          everything below
#   test_windows.sh check    the first two steps alone
#
# It compiles without warnings for both processors of windows-msvc and for x86_64-pc-windows-gnu, for which it runs the
# library's own tests and the C programs (shared and static) under wine, compares the logits of the tiny models with those
# that `make test` has found here, and looks at exported names, the libraries a program needs, and what `find_package` finds
# in an installed copy.
#
# Debian's packages, which root gets installed: rustc-web, rust-web-src (compiler and source of one version), wine64,
# gcc-mingw-w64-x86-64-posix and g++-mingw-w64-x86-64-posix (the ones with POSIX threads), cmake.
#
# CARGO, LAYERLINE_JOBS   the program to use; how many tests run at a time (2)
# LAYERLINE_QUICK         1: without the library's own tests and MSVC; the C programs with the shared library
set -euo pipefail
cd "$(dirname "$0")/.."
root=$PWD
# shellcheck source=scripts/cross.sh
. scripts/cross.sh
target=x86_64-pc-windows-gnu
tools=x86_64-w64-mingw32
jobs=${LAYERLINE_JOBS:-2}
folder=$CROSS_TARGET_DIR/windows
built=$CROSS_TARGET_DIR/$target/debug
mkdir -p "$folder"

step() { echo "== windows: $1 ($SECONDS s)"; }
fail() { echo "$*" >&2; exit 1; }
# Runs cargo and fails where it warns of anything in this crate.
without_warnings() {
    # shellcheck disable=SC2086
    cross_cargo "$@" $cross_features 2> "$folder/cargo.log" || { tail -40 "$folder/cargo.log" >&2; return 1; }
    ! grep -A 12 -E '^(warning|error)' "$folder/cargo.log" >&2 || fail "cargo $2 for $1 warns"
}

step packages
cross_toolchain
cross_packages wine64 gcc-mingw-w64-x86-64-posix g++-mingw-w64-x86-64-posix cmake
wine=$(dpkg -L wine64 | awk '/\/wine64$/ && !n++')

export CARGO_TARGET_X86_64_PC_WINDOWS_GNU_LINKER=$root/scripts/mingw_linker.sh
export CARGO_TARGET_X86_64_PC_WINDOWS_GNU_RUNNER=$wine
# Nothing of the machine's own wine; names of files are UTF-8.
export WINEPREFIX=$folder/wine WINEDEBUG=-all LC_ALL=C.UTF-8

[ "${LAYERLINE_QUICK:-0}" = 1 ] || {
    step "compile checks"
    without_warnings x86_64-pc-windows-msvc check --lib
    without_warnings aarch64-pc-windows-msvc check --lib
}
[ "${1:-}" != check ] || exit 0

step "building"
without_warnings "$target" build --lib
cross_logits "$target" -C linker="$root/scripts/mingw_linker.sh"
# Rust's standard library takes random numbers from here, and wine 8 has no such library: it lies beside each program.
cat > "$folder/bcryptprimitives.c" << 'END'
#include <windows.h>
#include <ntsecapi.h>
__declspec(dllexport) BOOL WINAPI ProcessPrng(PBYTE data, SIZE_T length)
{
    return RtlGenRandom(data, (ULONG)length);
}
END
$tools-gcc-posix -O2 -shared -o "$folder/bcryptprimitives.dll" "$folder/bcryptprimitives.c" -ladvapi32
for place in "$built/deps" "$built" "${built%/debug}"; do
    cp "$folder/bcryptprimitives.dll" "$place"
done

step "the same logits as here"
same_logits all "$wine" "${built%/debug}/logits.exe"

step "exported names and what the library needs"
$tools-objdump -p "$built/layerline.dll" > "$folder/layerline.dll.txt"
awk '/Name Pointer\] Table/ { on = 1; next } on && /^$/ { exit } on { print $NF }' "$folder/layerline.dll.txt" |
    LC_ALL=C sort | diff -u include/symbols.txt - || fail "other names than include/symbols.txt"
needs=$(sed -n 's/^\tDLL Name: //p' "$folder/layerline.dll.txt")
! grep -i -E 'gcc|pthread|stdc' <<< "$needs" || fail "layerline.dll needs a library of the compiler"

step "C programs"
models=${CARGO_TARGET_DIR:-$root/target}/golden
toolchain=(-DCMAKE_SYSTEM_NAME=Windows -DCMAKE_C_COMPILER=$tools-gcc-posix -DCMAKE_CXX_COMPILER=$tools-g++-posix
    -DCMAKE_RC_COMPILER=$tools-windres "-DCMAKE_EXE_LINKER_FLAGS=-static" "-DCMAKE_CROSSCOMPILING_EMULATOR=$wine")
cmake -S ctests -B "$folder/ctests" "${toolchain[@]}" -DLAYERLINE_LIB_DIR="$built" -DLAYERLINE_TEST_DATA="$models" \
    -DLAYERLINE_SHARED="${LAYERLINE_QUICK:-0}" \
    > "$folder/cmake.log" 2>&1 && cmake --build "$folder/ctests" -j "$jobs" >> "$folder/cmake.log" 2>&1 ||
    { tail -40 "$folder/cmake.log" >&2; fail "the C programs do not compile"; }
cp "$folder/bcryptprimitives.dll" "$folder/ctests"
(cd "$folder/ctests" && ctest -j "$jobs" --output-on-failure --no-tests=error > "$folder/ctest.log") ||
    { cat "$folder/ctest.log" >&2; fail "C programs fail"; }
tail -8 "$folder/ctest.log"
echo "not there: fork, cancel, saving, storm, budget, limits, torture and the examples, which use calls of POSIX"

step "an installed copy"
rm -rf "$folder/prefix"
PREFIX=$folder/prefix scripts/install.sh "$built"
for kind in shared static; do
    cmake -S ctests/consumer -B "$folder/consumer-$kind" "${toolchain[@]}" -DCMAKE_PREFIX_PATH="$folder/prefix" \
        -DCMAKE_FIND_ROOT_PATH="$folder/prefix" -DKIND=$kind -DMODEL="$root/tests/data/golden/arch/llama.gguf" \
        > "$folder/cmake.log" 2>&1 && cmake --build "$folder/consumer-$kind" >> "$folder/cmake.log" 2>&1 ||
        { tail -20 "$folder/cmake.log" >&2; fail "find_package, $kind"; }
    cp "$folder/bcryptprimitives.dll" "$folder/consumer-$kind"
    [ $kind = static ] || cp "$folder/prefix/bin/layerline.dll" "$folder/consumer-$kind"
    ctest --test-dir "$folder/consumer-$kind" --output-on-failure --no-tests=error | tail -4
done

[ "${LAYERLINE_QUICK:-0}" = 1 ] || {
    step "tests of the library"
    without_warnings "$target" test --no-run --lib
    # shellcheck disable=SC2086
    cross_cargo "$target" test --lib $cross_features -- --test-threads "$jobs" > "$folder/tests.log" 2>&1 ||
        { grep -a -E 'FAILED|panicked|^error' -A 3 "$folder/tests.log" >&2; fail "tests fail; see $folder/tests.log"; }
    grep -a -E '^test result|^skipped' "$folder/tests.log"
}
step "done"
