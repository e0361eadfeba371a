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

# cross_cargo TARGET COMMAND ARGS...: cargo, with the standard library built for the target. What is compiled here runs once:
# half the optimisation takes half the time. RUSTFLAGS and the target's linker and runner are the caller's.
cross_cargo() {
    cross_target=$1 cross_command=$2
    shift 2
    RUSTC=$CROSS_RUSTC RUSTDOC=${CROSS_RUSTC%c}doc RUSTC_BOOTSTRAP=1 __CARGO_TESTS_ONLY_SRC_ROOT=$CROSS_LIBRARY \
        CARGO_TARGET_DIR=$CROSS_TARGET_DIR CARGO_PROFILE_DEV_DEBUG=0 CARGO_INCREMENTAL=0 \
        CARGO_PROFILE_DEV_OPT_LEVEL="${CARGO_PROFILE_DEV_OPT_LEVEL:-1}" \
        "${CARGO:-cargo}" "$cross_command" -Zbuild-std=std,panic_abort,panic_unwind --target "$cross_target" "$@"
}

# cross_program NAME FILE: of the programs that cargo says in FILE, as JSON, to have built, the last one of that name.
cross_program() {
    sed -n 's/.*"target":{[^}]*"name":"'"$1"'"[^}]*}.*"executable":"\([^"]*\)".*/\1/p' "$2" | tail -1
}

# same_logits PROGRAM...: what runs `logits` for another system, given a file and the tiny models, writes the very bytes that
# `make test` has found on this one.
same_logits() {
    logits_here=${CARGO_TARGET_DIR:-$PWD/target}/logits-scalar logits_there=$CROSS_TARGET_DIR/logits
    [ -f "$logits_here" ] || { echo "no $logits_here: make test writes it" >&2; return 1; }
    # shellcheck disable=SC2086,SC3009
    "$@" "$logits_there" "${CARGO_TARGET_DIR:-$PWD/target}"/golden/{arch,arch2,family,long,peer,quant,quant2}/*.gguf &&
        cmp "$logits_here" "$logits_there" && echo "the same logits, $(wc -c < "$logits_here") bytes"
}
