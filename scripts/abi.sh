#!/usr/bin/env bash
# Whether programs built with one header run with a library of another: what was added is told, what breaks fails.
#
#   abi.sh check             include/layerline.h against the last release's, ctests/abi/released.h
#   abi.sh compare OLD NEW   any two headers
#   abi.sh test              whether the check finds what it must, in headers broken on purpose
#   abi.sh release           makes ctests/abi/released.h from include/layerline.h: with every release, never otherwise
#
# A header becomes a library whose functions do nothing, so that both sides are made by one compiler and abidiff sees
# what callers see. That the real library has these functions and layouts is proved by include/symbols.txt,
# ctests/layout.c and src/ffi/layout.rs.
set -euo pipefail
cd "$(dirname "$0")/.."
header=include/layerline.h
released=ctests/abi/released.h
cc=${CC:-cc}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# The declarations of a header, without its prose.
bare() { "$cc" -fpreprocessed -dD -E -P "$1" | grep -v '^#define __\|^#define _STDC\|^#undef'; }

# library HEADER NAME: a shared library with all functions of the header.
library() {
    {
        echo "#include \"$2.h\""
        bare "$1" | awk '
            /^[a-z].*layerline_[a-z0-9_]*\(/ && !/^typedef/ { inside = 1 }
            inside { ended = sub(/\);[ \t]*$/, ") { __builtin_trap(); }"); print; if (ended) inside = 0 }'
    } > "$work/$2.c"
    cp "$1" "$work/$2.h"
    "$cc" -std=gnu11 -g -O0 -fPIC -shared -Wl,-soname,liblayerline.so.0 "$work/$2.c" -o "$work/$2.so"
}

# Names and values that programs have compiled in; abidiff does not see macros.
numbers() { bare "$1" | sed -n 's/^#define \(LAYERLINE_[A-Z0-9_]*\) \(.*\)$/\1 \2/p' | grep -v '^LAYERLINE_VERSION_' | LC_ALL=C sort; }

# Structs that begin with struct_size, which may grow at their end; and the fields of one, a line each.
growing() { bare "$1" | awk '/^typedef struct/ { name = $3 } / struct_size;$/ { print name }'; }
fields() { bare "$1" | awk -v name="$2" '/^}/ { inside = 0 } inside { print } /^typedef struct/ && /\{$/ { inside = $3 == name }'; }

compare() {
    local old=$1 new=$2 broken=0 name count
    library "$old" old
    library "$new" new
    numbers "$old" > "$work/old.numbers"
    numbers "$new" > "$work/new.numbers"
    echo "added:"
    abidiff --deleted-fns --added-fns "$work/old.so" "$work/new.so" | sed -n 's/^ *\[A\] //p' || true
    LC_ALL=C comm -13 "$work/old.numbers" "$work/new.numbers"
    LC_ALL=C comm -23 "$work/old.numbers" "$work/new.numbers" > "$work/lost"
    if [ -s "$work/lost" ]; then
        echo "numbers that are gone or others:" >&2
        cat "$work/lost" >&2
        broken=1
    fi
    # abidiff cannot tell growth at the end from every other change, so these structs are compared here: a later one
    # begins with all the fields that it had.
    : > "$work/growing.abignore"
    for name in $(growing "$old"); do
        printf '[suppress_type]\n  name = %s\n  type_kind = struct\n' "$name" >> "$work/growing.abignore"
        fields "$old" "$name" > "$work/old.fields"
        fields "$new" "$name" > "$work/new.fields"
        count=$(wc -l < "$work/old.fields")
        if ! head -n "$count" "$work/new.fields" | diff "$work/old.fields" - >&2; then
            echo "$name has changed otherwise than by growing" >&2
            broken=1
        fi
        tail -n +$((count + 1)) "$work/new.fields" | sed "s/^ */$name: /"
    done
    # Of all else, functions may come: nothing more.
    if ! abidiff --no-added-syms --suppressions "$work/growing.abignore" "$work/old.so" "$work/new.so" > "$work/report"; then
        cat "$work/report" >&2
        broken=1
    fi
    [ $broken = 0 ] || { echo "programs built with $old do not run with this" >&2; return 1; }
}

# expect passes|fails WHAT SED-SCRIPT
expect() {
    local result=passes
    sed "$3" "$header" > "$work/changed.h"
    ! cmp -s "$header" "$work/changed.h" || { echo "$2: the header has changed; so must this test" >&2; exit 1; }
    (compare "$header" "$work/changed.h") > "$work/out" 2>&1 || result=fails
    if [ $result != "$1" ]; then
        cat "$work/out" >&2
        echo "$2: the check $result, but must not" >&2
        exit 1
    fi
    echo "$2: the check $result"
}

check_notices() {
    expect passes "a new function" 's/^intptr_t layerline_model_event_handle/void layerline_new_one(void);\n&/'
    expect passes "a new number" 's/^#define LAYERLINE_IO_MMAP 3/&\n#define LAYERLINE_IO_NEW 4/'
    expect passes "a plan with a field at its end" '/^} layerline_plan;/i\    uint64_t more;'
    expect passes "statistics with two fields at their end" '/^} layerline_stats;/i\    uint64_t more;\n    uint64_t most;'
    expect fails "a function that is gone" 's/^intptr_t layerline_model_event_handle.*//'
    expect fails "another result" 's/^intptr_t layerline_model_event_handle/int16_t layerline_model_event_handle/'
    expect fails "another parameter" 's/float temperature);/double temperature);/'
    expect fails "one parameter more" 's/float temperature);/float temperature, int why);/'
    expect fails "a field inside a plan" 's/^    uint64_t floor_bytes;/    uint64_t more;\n&/'
    expect fails "a field that is gone" 's/^    uint64_t stall_ns;//'
    expect fails "a field of another type" 's/^    int32_t io;/    int64_t io;/'
    expect fails "an event with a field at its end" 's/^    uint64_t elapsed_ns;/&\n    uint64_t more;/'
    expect fails "another number" 's/^#define LAYERLINE_ERROR_BUSY -10/#define LAYERLINE_ERROR_BUSY -12/'
    expect fails "a number that is gone" 's/^#define LAYERLINE_LOGITS_NONE 2//'
    expect fails "a callback of another kind" 's/^typedef bool (\*layerline_token_callback)/typedef void (*layerline_token_callback)/'
}

case "${1:-}" in
    check) compare "$released" "$header" ;;
    compare) [ $# = 3 ] || { echo "usage: abi.sh compare OLD NEW" >&2; exit 2; }; compare "$2" "$3" ;;
    test) check_notices ;;
    release)
        version=$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -1)
        { echo "/* The declarations of layerline.h as version $version has them: what later ones are held to (scripts/abi.sh). */"
            bare "$header"; } > "$work/released.h"
        mv "$work/released.h" "$released"
        ;;
    *) sed -n '2,9s/^# \{0,1\}//p' "$0" >&2; exit 2 ;;
esac
