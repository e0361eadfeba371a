#!/usr/bin/env bash
# What `make install` and `cargo cinstall` install, and programs that use it from there as other people's builds do.
#
#   test_install.sh make PREFIX LIBRARIES        what is in the folder LIBRARIES into PREFIX, and is it all there
#   test_install.sh cargo-c PREFIX               the same by cargo-c, which builds the library itself
#   test_install.sh pkg-config shared PREFIX     ctests/consumer by pkg-config
#   test_install.sh pkg-config static PREFIX
#   test_install.sh find_package PREFIX          ... by CMake, in all its ways
#
# CARGO, CC, CXX   the programs to use
# CARGO_C_ROOT     made by swift_root.sh: its cargo-c in place of the machine's
set -euo pipefail
cd "$(dirname "$0")/.."
consumer=$PWD/ctests/consumer
model=$PWD/tests/data/golden/arch/llama.gguf
cc=${CC:-cc}
cxx=${CXX:-c++}
fail() { echo "$*" >&2; exit 1; }

# The folder of the libraries in a prefix: Debian's installer puts the architecture into its name.
libdir() { dirname "$(find "$1" -name 'liblayerline.a')"; }

by_make() {
    local prefix=$1 libraries=$2 lib version file
    version=$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -1)
    rm -rf "$prefix" "$prefix-staged"
    PREFIX=$prefix scripts/install.sh "$libraries"
    is_complete "$prefix"
    lib=$(libdir "$prefix")
    # For packagers: the same files elsewhere, and no word of where they lie meanwhile.
    DESTDIR=$prefix-staged PREFIX=$prefix scripts/install.sh "$libraries"
    diff -r "$prefix" "$prefix-staged$prefix" || fail "with DESTDIR other files are installed"
    rm -rf "$prefix-staged"
    [ "$(uname -s)" != Darwin ] && command -v objcopy > /dev/null || return 0
    file=$lib/liblayerline.so.$version
    ! readelf -SW "$file" | grep -qE '\.(debug_|symtab)' || fail "$file is not stripped"
    readelf -p .gnu_debuglink "$file" | grep -q "liblayerline.so.$version.debug" || fail "$file does not name its debug information"
    readelf -SW "$lib/.debug/liblayerline.so.$version.debug" | grep -q '\.symtab' || fail "the debug information is empty"
}

by_cargo_c() {
    local prefix=$1
    rm -rf "$prefix"
    local command=("${CARGO:-cargo}" cinstall)
    [ -z "${CARGO_C_ROOT:-}" ] || command=(scripts/swift_root.sh cinstall "$CARGO_C_ROOT")
    # Not optimised: what is looked at is what is installed, not how fast it is.
    CARGO_PROFILE_DEV_OPT_LEVEL=0 CARGO_PROFILE_DEV_DEBUG=0 \
        "${command[@]}" --debug --prefix "$prefix" --manifest-path Cargo.toml
    is_complete "$prefix"
}

is_complete() {
    local prefix=$1 lib version file
    lib=$(libdir "$prefix")
    version=$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -1)
    for file in "$prefix"/include/layerline.{h,hpp} "$prefix"/share/cmake/layerline/layerlineConfig{,Version}.cmake \
        "$lib/liblayerline.a" "$lib/pkgconfig/layerline.pc"; do
        [ -s "$file" ] || fail "not installed: $file"
    done
    grep -qx "Version: $version" "$lib/pkgconfig/layerline.pc" || fail "layerline.pc has another version than $version"
    grep -q '^Libs.private: .*-l' "$lib/pkgconfig/layerline.pc" || fail "layerline.pc does not say what the static library needs"
    if [ "$(uname -s)" = Darwin ]; then
        [ -e "$lib/liblayerline.0.dylib" ] || fail "no liblayerline.0.dylib"
        return
    fi
    [ -f "$lib/liblayerline.so.$version" ] || fail "no liblayerline.so.$version"
    for file in liblayerline.so liblayerline.so.0; do
        [ "$(readlink "$lib/$file")" = "liblayerline.so.$version" ] || fail "$file is not a link to liblayerline.so.$version"
    done
    readelf -d "$lib/liblayerline.so" | grep -q 'SONAME.*\[liblayerline\.so\.0\]' || fail "another soname than liblayerline.so.0"
    readelf -d "$lib/liblayerline.so" | grep -q 'FLAGS_1.*NODELETE' || fail "the library may be unloaded: -z nodelete is lost"
    scripts/symbols.sh "$lib/liblayerline.so" | diff -u include/symbols.txt - || fail "other symbols than include/symbols.txt"
}

# runs PROGRAM shared|static [LIBDIR]: what was built needs the shared library, or does not, and works.
runs() {
    local program=$1 kind=$2 lib=${3:-} needs=static
    if [ "$(uname -s)" = Darwin ]; then
        ! otool -L "$program" | grep -q liblayerline || needs=shared
    else
        ! readelf -d "$program" | grep -q 'NEEDED.*\[liblayerline\.so\.0\]' || needs=shared
    fi
    [ "$needs" = "$kind" ] || fail "$program is linked $needs"
    LD_LIBRARY_PATH="$lib${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}" "$program" "$model"
}

by_pkg_config() {
    local kind=$1 prefix=$2 lib out options=()
    out=$prefix-pkg-config-$kind
    rm -rf "$out"
    mkdir -p "$out"
    if [ "$kind" = static ]; then
        # As where the static library alone is installed: a linker that finds both takes the shared one.
        cp -R "$prefix" "$out/prefix"
        rm "$(libdir "$out/prefix")"/liblayerline.{so,dylib}* "$(libdir "$out/prefix")"/liblayerline.*.dylib 2> /dev/null || true
        prefix=$out/prefix
        options=(--static --define-variable="prefix=$prefix")
    fi
    lib=$(libdir "$prefix")
    export PKG_CONFIG_PATH=$lib/pkgconfig
    # What pkg-config prints is meant to be split into words.
    # shellcheck disable=SC2046
    "$cc" -std=c99 -Wall -Wextra -Werror "$consumer/consumer.c" -o "$out/consumer_c" \
        $(pkg-config ${options[@]+"${options[@]}"} --cflags --libs layerline)
    # shellcheck disable=SC2046
    "$cxx" -std=c++17 -Wall -Wextra -Werror "$consumer/consumer.cpp" -o "$out/consumer_cpp" \
        $(pkg-config ${options[@]+"${options[@]}"} --cflags --libs layerline)
    runs "$out/consumer_c" "$kind" "$lib"
    runs "$out/consumer_cpp" "$kind" "$lib"
}

# configure PREFIX FOLDER ARGUMENT...
configure() {
    local prefix=$1 folder=$2
    shift 2
    rm -rf "$folder"
    cmake -S "$consumer" -B "$folder" -DCMAKE_PREFIX_PATH="$prefix" -DMODEL="$model" "$@"
}

by_find_package() {
    local prefix=$1 out=$1-find-package kind language
    rm -rf "$out"
    mkdir -p "$out"
    # Moved as a whole, it is found where it is now.
    cp -R "$prefix" "$out/moved"
    for kind in shared static; do
        configure "$out/moved" "$out/$kind" -DKIND=$kind
        cmake --build "$out/$kind"
        for language in c cpp; do
            runs "$out/$kind/consumer_$language" $kind
        done
    done
    configure "$out/moved" "$out/default" && cmake --build "$out/default"
    runs "$out/default/consumer_c" shared
    rm "$(libdir "$out/moved")"/liblayerline.so*
    configure "$out/moved" "$out/default" && cmake --build "$out/default"
    runs "$out/default/consumer_c" static
    # What cannot be had is said, by name.
    ! configure "$out/moved" "$out/no" -DKIND=shared 2> "$out/errors" || fail "found a shared library that is not there"
    grep -q 'no shared library of layerline' "$out/errors"
    ! configure "$out/moved" "$out/no" -DKIND=plain 2> "$out/errors" || fail "found a component that is none"
    grep -q 'no component' "$out/errors"
    sed 's/layerline 0.2 REQUIRED/layerline 1.0 REQUIRED/' "$consumer/CMakeLists.txt" > "$out/moved/CMakeLists.txt"
    ! (consumer=$out/moved configure "$out/moved" "$out/no") 2> "$out/errors" || fail "0.x was taken for 1.0"
    grep -q 'version: 0\.' "$out/errors"
}

case "${1:-} ${2:-}" in
    "make "?*) by_make "$2" "$3" ;;
    "cargo-c "?*) by_cargo_c "$2" ;;
    "pkg-config shared" | "pkg-config static") by_pkg_config "$2" "$3" ;;
    "find_package "?*) by_find_package "$2" ;;
    *) sed -n '2,10s/^# \{0,1\}//p' "$0" >&2; exit 2 ;;
esac
