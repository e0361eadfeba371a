# For scripts that build for another system: `. scripts/cross.sh`, then `cross_cargo TARGET COMMAND ARGS...`.
#
# The machine's own toolchain has the standard library of this machine alone. Here it is built from source for each target,
# by Debian's compiler and the source of the same version: the packages rustc-web and rust-web-src. `cross_packages NAME...`
# installs what is missing of any packages; where it may not, the script ends with 77, and says what is missing.

CROSS_TARGET_DIR=${CROSS_TARGET_DIR:-${CARGO_TARGET_DIR:-$PWD/target}/cross}

cross_packages() {
    missing=
    for package in "$@"; do
        dpkg-query -W -f '${Status}' "$package" 2> /dev/null | grep -q "install ok" || missing="$missing $package"
    done
    [ -n "$missing" ] || return 0
    if ! command -v apt-get > /dev/null || [ "$(id -u)" != 0 ]; then
        echo "missing:$missing (Debian's packages; only root installs them)" >&2
        exit 77
    fi
    echo "installing$missing"
    # shellcheck disable=SC2086
    { apt-get update && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends $missing; } \
        > "${TMPDIR:-/tmp}/cross-packages.log" 2>&1 || { tail -5 "${TMPDIR:-/tmp}/cross-packages.log" >&2; exit 77; }
}

# The compiler that has its own source.
cross_toolchain() {
    cross_packages rustc-web rust-web-src || return 1
    CROSS_RUSTC=$(dpkg -L rustc-web | awk '/bin\/rustc$/ && !n++')
    CROSS_LIBRARY=$(dpkg -L rust-web-src | awk '/\/library$/ && !n++')
    [ -x "$CROSS_RUSTC" ] && [ -d "$CROSS_LIBRARY" ]
}

# The engine of grammars does not differ from system to system, and takes as long to compile as all the rest: it is left out.
cross_features="--no-default-features --features prefetch"

# cross_cargo TARGET COMMAND ARGS...: cargo, with the standard library built for the target. RUSTFLAGS and the target's linker
# and runner are the caller's. What is compiled here runs once, so most of the time is the compiler's: only this library is
# optimised, and not across its parts; and what runs templates, of which some are made to run for ever.
cross_cargo() {
    cross_target=$1 cross_command=$2
    shift 2
    RUSTC=$CROSS_RUSTC RUSTDOC=${CROSS_RUSTC%c}doc RUSTC_BOOTSTRAP=1 __CARGO_TESTS_ONLY_SRC_ROOT=$CROSS_LIBRARY \
        CARGO_TARGET_DIR=$CROSS_TARGET_DIR CARGO_INCREMENTAL=0 CARGO_PROFILE_DEV_DEBUG=0 CARGO_PROFILE_DEV_LTO=off \
        CARGO_PROFILE_DEV_DEBUG_ASSERTIONS=false CARGO_PROFILE_DEV_OVERFLOW_CHECKS=false \
        "${CARGO:-cargo}" "$cross_command" --config 'profile.dev.package."*".opt-level=0' \
        --config 'profile.dev.package.minijinja.opt-level=1' \
        -Zbuild-std=std,panic_abort,panic_unwind -Zbuild-std-features=panic-unwind --target "$cross_target" "$@"
}

# cross_logits TARGET FLAGS...: compiles scripts/logits.rs against the library that cross_cargo has built for the target, into
# $CROSS_TARGET_DIR/TARGET. As an example of the package it would want all that the tests use compiled as well.
cross_logits() {
    cross_folder=$CROSS_TARGET_DIR/$1
    RUSTC_BOOTSTRAP=1 "$CROSS_RUSTC" --edition 2024 --target "$@" -C opt-level=1 \
        -L "$cross_folder/debug/deps" -L "$CROSS_TARGET_DIR/debug/deps" --extern "layerline=$cross_folder/debug/liblayerline.rlib" \
        scripts/logits.rs --out-dir "$cross_folder"
}

# cross_program NAME FILE: of the programs that cargo says in FILE, as JSON, to have built, the last one of that name.
cross_program() {
    sed -n 's/.*"target":{[^}]*"name":"'"$1"'"[^}]*}.*"executable":"\([^"]*\)".*/\1/p' "$2" | tail -1
}

# same_logits all|formats PROGRAM...: what runs `logits` for another system, given a file and the tiny models, writes the very
# bytes that `make test` has found on this one: of all models, or of the first ones, which have all formats of weights.
same_logits() {
    logits_folder=${CARGO_TARGET_DIR:-$PWD/target} logits_of=$1
    shift
    [ -f "$logits_folder/logits-scalar" ] || { echo "no $logits_folder/logits-scalar: make test writes it" >&2; return 1; }
    logits_there=$CROSS_TARGET_DIR/logits logits_here=$logits_folder/logits-scalar
    set -- "$@" "$logits_there" "$logits_folder"/golden/quant/*.gguf "$logits_folder"/golden/quant2/*.gguf
    # shellcheck disable=SC3009
    [ "$logits_of" = formats ] || set -- "$@" "$logits_folder"/golden/{arch,arch2,family,long,peer}/*.gguf
    "$@" || return 1
    if [ "$logits_of" = formats ]; then
        logits_here=$CROSS_TARGET_DIR/logits-here
        head -c "$(wc -c < "$logits_there")" "$logits_folder/logits-scalar" > "$logits_here"
    fi
    [ -s "$logits_there" ] && cmp "$logits_here" "$logits_there" && echo "the same logits, $(wc -c < "$logits_there") bytes"
}
