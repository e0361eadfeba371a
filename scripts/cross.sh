# For scripts that build for another system: `. scripts/cross.sh`, then `cross_cargo TARGET COMMAND ARGS...`.
#
# The machine's own toolchain has the standard library of this machine alone. Here it is built from source for each target,
# by Debian's compiler and the source of the same version: the packages rustc-web and rust-web-src. `cross_packages NAME...`
# installs what is missing of any packages, where it may.

CROSS_TARGET_DIR=${CARGO_TARGET_DIR:-$PWD/target}/cross

# Installs Debian's packages that are not there. Fails, and says which, where it must not or they cannot be had.
cross_packages() {
    missing=
    for package in "$@"; do
        dpkg-query -W -f '${Status}' "$package" 2> /dev/null | grep -q "install ok" || missing="$missing $package"
    done
    [ -n "$missing" ] || return 0
    if ! command -v apt-get > /dev/null || [ "$(id -u)" != 0 ]; then
        echo "missing:$missing (Debian's packages; only root installs them)" >&2
        return 1
    fi
    echo "installing$missing"
    # shellcheck disable=SC2086
    { apt-get update && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends $missing; } \
        > "${TMPDIR:-/tmp}/cross-packages.log" 2>&1 || { tail -5 "${TMPDIR:-/tmp}/cross-packages.log" >&2; return 1; }
}

# The compiler that has its own source.
cross_toolchain() {
    cross_packages rustc-web rust-web-src || return 1
    CROSS_RUSTC=$(dpkg -L rustc-web | grep -m 1 'bin/rustc$')
    CROSS_LIBRARY=$(dpkg -L rust-web-src | grep -m 1 '/library$')
    [ -x "$CROSS_RUSTC" ] && [ -d "$CROSS_LIBRARY" ]
}

# cross_cargo TARGET COMMAND ARGS...: cargo, with the standard library built for the target. RUSTFLAGS and the target's
# linker and runner are the caller's.
cross_cargo() {
    target=$1 command=$2
    shift 2
    RUSTC=$CROSS_RUSTC RUSTDOC=${CROSS_RUSTC%c}doc RUSTC_BOOTSTRAP=1 __CARGO_TESTS_ONLY_SRC_ROOT=$CROSS_LIBRARY \
        CARGO_TARGET_DIR=$CROSS_TARGET_DIR CARGO_PROFILE_DEV_DEBUG=0 \
        "${CARGO:-cargo}" "$command" -Zbuild-std=std,panic_abort,panic_unwind --target "$target" "$@"
}
