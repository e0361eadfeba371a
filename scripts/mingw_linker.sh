#!/usr/bin/env bash
# The linker for x86_64-pc-windows-gnu: mingw's gcc, which exports from layerline.dll what include/symbols.txt lists.
#
#   export CARGO_TARGET_X86_64_PC_WINDOWS_GNU_LINKER=$PWD/scripts/mingw_linker.sh
#
# rustc writes every C function of every crate into the list of exports that it gives the linker, those of a grammar
# engine too, and has no option against it. On other systems build.rs has the linker drop them; mingw's drops nothing
# that such a list names. So this takes them out of the list.
#
# MINGW_CC   the compiler that links: x86_64-w64-mingw32-gcc-posix, or without -posix where there is no such name
set -euo pipefail
cc=${MINGW_CC:-x86_64-w64-mingw32-gcc-posix}
command -v "$cc" > /dev/null || cc=x86_64-w64-mingw32-gcc
list=$(cd "$(dirname "$0")/.." && pwd)/include/symbols.txt
# A long command line comes in a file.
for argument in "$@"; do
    case $argument in
        @*) words=$(tr -d '"' < "${argument#@}") ;;
        *) words=$argument ;;
    esac
    while read -r def; do
        # Of a library of somebody else's nothing is changed.
        grep -q layerline_ "$def" || continue
        { echo EXPORTS && sed 's/^/    /' "$list"; } > "$def"
    done < <(grep -E '\.def$' <<< "$words" || true)
done
exec "$cc" "$@"
