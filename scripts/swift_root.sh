#!/usr/bin/env bash
# A Debian 13 in a folder, with its Swift toolchain, for machines that have none: Debian 12 has no swiftlang. And with its
# cargo-c, which takes minutes to compile.
# Needs root, debootstrap and a machine whose apt knows a Debian mirror; three gigabytes and about five minutes.
#
#   swift_root.sh make [ROOT]             makes it, unless it is there already; target/swift-root by default
#   swift_root.sh run ROOT COMMAND...     runs a command in it, in the same folder, which it sees as /dev, /proc and the
#                                         project are seen here; environment as here, and Swift's libraries are found
#   swift_root.sh cinstall ROOT ARGUMENT...   `cargo cinstall`, here, with the toolchain that is here
#
# All mounts are made in a namespace of their own, which ends with the last process in it, however that ends.
set -euo pipefail
cd_from=$PWD
cd "$(dirname "$0")/.."
project=$PWD
suite=trixie
# swiftlang's compiler links with gcc against these; pkg-config tells SwiftPM where to look for .pc files.
packages="swiftlang gcc libc6-dev libstdc++-14-dev pkg-config cargo-c"
fail() { echo "swift_root.sh: $*" >&2; exit 1; }

# The mirror that the machine's own apt uses. Fresh images have no lists yet, and know none before an update.
mirrors() { apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' 'Origin: Debian' 'Label: Debian'; }
mirror() {
    local found
    found=$(mirrors)
    [ -n "$found" ] || { apt-get update -q >&2 && found=$(mirrors); }
    [ -n "$found" ] || fail "apt knows no Debian mirror here"
    echo "${found%%$'\n'*}"
}

# In the namespace: what is mounted below $1 is gone when this ends.
make_in_namespace() {
    local root=$1 mirror proxy=
    mirror=$(mirror)
    eval "$(apt-config shell proxy Acquire::http::Proxy)"
    [ -z "$proxy" ] || export http_proxy=$proxy
    export DEBIAN_FRONTEND=noninteractive LC_ALL=C
    rm -rf --one-file-system "$root"
    mkdir -p "$root/etc/dpkg/dpkg.cfg.d"
    # A root that a lost machine takes along need not survive it, and nobody reads manuals there.
    printf '%s\n' force-unsafe-io 'path-exclude=/usr/share/doc/*' 'path-exclude=/usr/share/man/*' \
        'path-exclude=/usr/share/locale/*' > "$root/etc/dpkg/dpkg.cfg.d/lean"
    debootstrap --variant=minbase "$suite" "$root" "$mirror" || { tail -20 "$root/debootstrap/debootstrap.log" >&2; fail "debootstrap failed"; }
    mountpoint -q "$root/proc" || mount -t proc proc "$root/proc"
    # shellcheck disable=SC2086
    chroot "$root" apt-get install -y -q --no-install-recommends $packages
    chroot "$root" apt-get clean
    chroot "$root" env LD_LIBRARY_PATH=/usr/libexec/swift/lib/swift/linux swift --version
    echo "$packages" > "$root/.complete"
}

run_in_namespace() {
    local root=$1 folder target=${CARGO_TARGET_DIR:-$project/target}
    shift
    mount -t proc proc "$root/proc"
    for folder in /dev "$project" "$target"; do
        [ -d "$folder" ] || continue
        mkdir -p "$root$folder"
        mount --rbind "$folder" "$root$folder"
    done
    LC_ALL=C.UTF-8 HOME=/root LD_LIBRARY_PATH=/usr/libexec/swift/lib/swift/linux${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH} \
        PATH=/usr/bin:/bin:/usr/sbin:/sbin \
        exec chroot "$root" /bin/sh -c 'cd "$0" && exec "$@"' "$cd_from" "$@"
}

# absolute PATH: as seen from the folder this was called in.
absolute() { case "$1" in /*) echo "$1" ;; *) echo "$cd_from/$1" ;; esac; }

case "${1:-}" in
    make)
        root=$(absolute "${2:-${CARGO_TARGET_DIR:-$project/target}/swift-root}")
        [ "$(cat "$root/.complete" 2> /dev/null)" != "$packages" ] || exit 0
        [ "$(id -u)" = 0 ] || fail "needs root"
        if ! command -v debootstrap > /dev/null; then
            apt-get update -q && DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends debootstrap
        fi
        exec unshare --mount --propagation private "$0" make-in-namespace "$root"
        ;;
    run)
        [ $# -ge 3 ] || fail "run ROOT COMMAND..."
        root=$(absolute "$2")
        [ -f "$root/.complete" ] || fail "$root is not complete: swift_root.sh make $root"
        shift 2
        cd "$cd_from"
        exec unshare --mount --propagation private "$project/scripts/swift_root.sh" run-in-namespace "$root" "$@"
        ;;
    cinstall)
        [ $# -ge 2 ] || fail "cinstall ROOT ARGUMENT..."
        root=$(absolute "$2")
        shift 2
        cd "$cd_from"
        # By the loader that belongs to its C library; what it starts finds its own.
        for loader in "$root"/lib{64,}/ld-linux-*.so.*; do
            [ ! -x "$loader" ] || exec "$loader" --library-path "$(echo "$root"/usr/lib/*-linux-gnu)" \
                "$root/usr/bin/cargo-cinstall" cinstall "$@"
        done
        fail "no loader in $root"
        ;;
    make-in-namespace) make_in_namespace "$2" ;;
    run-in-namespace) shift && run_in_namespace "$@" ;;
    *) sed -n '2,11s/^# \{0,1\}//p' "$0" >&2; exit 2 ;;
esac
