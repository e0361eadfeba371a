#!/usr/bin/env bash
# The library's tests of memory and storage where the system's pages are larger than 4 KiB, in whole emulated machines with
# Debian's kernels: 64-bit ARM with pages of 16 KiB, by the test program that test_aarch64.sh has built, and 64-bit PowerPC
# with pages of 64 KiB, for which it builds one.
#
#   test_pages.sh [16|64]   one of them; both unless told
#
# Installs, where they are missing and it may, Debian's packages qemu-system-arm, gcc-aarch64-linux-gnu, qemu-system-ppc,
# gcc-powerpc64le-linux-gnu, libc6-dev-ppc64el-cross, rustc-web and rust-web-src. The kernels are of the release trixie, from
# wherever the machine's own packages come, and are not installed.
#
# CARGO, PYTHON   the programs to use
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=scripts/cross.sh
. scripts/cross.sh
out=$CROSS_TARGET_DIR/pages

# kernel_of ARCHITECTURE NAMES: the newest of Debian's kernels of such names that can be fetched.
kernel_of() {
    local place=$out/$1 mirror package options
    mkdir -p "$place/lists/partial" "$place/cache/archives/partial"
    kernel=$(find "$place" -path '*/boot/vmlinu*' | head -1)
    [ -z "$kernel" ] || return 0
    mirror=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' 'Origin: Debian' | head -1)
    [ -n "$mirror" ] || { echo "missing: a mirror of Debian"; exit 77; }
    echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $mirror trixie main" > "$place/sources"
    options=(-o "Dir::State::lists=$place/lists" -o "Dir::State::status=/dev/null" -o "Dir::Cache=$place/cache"
        -o "Dir::Etc::sourcelist=$place/sources" -o "Dir::Etc::sourceparts=-" -o "APT::Architecture=$1"
        -o "APT::Architectures=$1" -o "APT::Sandbox::User=$(id -un)")
    apt-get "${options[@]}" update > "$place/apt.log" 2>&1 || { tail -5 "$place/apt.log"; exit 77; }
    # A mirror may know of one that it does not have yet.
    for package in $(apt-cache "${options[@]}" search --names-only "$2" | cut -d ' ' -f 1 | sort -rV); do
        (cd "$place" && apt-get "${options[@]}" download "$package") >> "$place/apt.log" 2>&1 || continue
        dpkg-deb --fsys-tarfile "$place/$package"_*.deb | tar -x -C "$place" --wildcards './boot/vmlinu*'
        rm "$place/$package"_*.deb
        break
    done
    kernel=$(find "$place" -path '*/boot/vmlinu*' | head -1)
    [ -n "$kernel" ] || { tail -5 "$place/apt.log"; echo "missing: a kernel for $1"; exit 77; }
}

# tests_in_machine BYTES COMPILER PROGRAM CONSOLE QEMU ARGS...: the tests with pages of so many bytes, without those that
# $without says.
tests_in_machine() {
    local bytes=$1 compiler=$2 program=$3 console=$4 log=$out/machine-$1.log
    shift 4
    "$compiler" -static -O1 -Wall -Wextra -Werror scripts/machine/init.c -o "$out/init-$bytes"
    "${PYTHON:-python3}" scripts/machine/files.py "$out/files-$bytes" init="$out/init-$bytes" program="$program" \
        "${PWD#/}/tests/data=tests/data"
    # What the kernel is given after `--` are arguments of the first process.
    timeout 1800 "$@" -m 3072 -smp "$(nproc)" -nic none -nographic -no-reboot -kernel "$kernel" -initrd "$out/files-$bytes" \
        -append "quiet console=$console panic=-1 -- --test-threads=$(nproc) weights:: sys:: model:: gguf::$without" \
        < /dev/null 2>&1 | tr -d '\r' > "$log" || true
    grep -a -E '^pages of|^test result|^ended' "$log" || true
    grep -a -q "^pages of $bytes bytes" "$log" && grep -a -q '^ended with 0' "$log" || { tail -40 "$log"; exit 1; }
}

[ $# -gt 0 ] || set -- 16 64
for pages; do
    without=
    case $pages in
        16)
            cross_packages qemu-system-arm gcc-aarch64-linux-gnu
            unit=$(cross_program layerline "$CROSS_TARGET_DIR/aarch64-unknown-linux-gnu/built.json")
            [ -x "$unit" ] || { echo "no test program: scripts/test_aarch64.sh builds it" >&2; exit 1; }
            kernel_of arm64 '^linux-image-[0-9].*-arm64-16k$'
            tests_in_machine 16384 aarch64-linux-gnu-gcc "$unit" ttyAMA0 qemu-system-aarch64 -machine virt -cpu max
            ;;
        64)
            cross_packages qemu-system-ppc gcc-powerpc64le-linux-gnu libc6-dev-ppc64el-cross
            cross_toolchain
            target=powerpc64le-unknown-linux-gnu
            mkdir -p "$out"
            # shellcheck disable=SC2086
            CARGO_TARGET_POWERPC64LE_UNKNOWN_LINUX_GNU_LINKER=powerpc64le-linux-gnu-gcc \
                CARGO_TARGET_POWERPC64LE_UNKNOWN_LINUX_GNU_RUSTFLAGS="-C target-feature=+crt-static" \
                cross_cargo $target test --no-run $cross_features --lib --message-format=json > "$out/built.json" 2> "$out/build.log" ||
                { grep -E -A8 '^(error|warning)' "$out/build.log" || tail -20 "$out/build.log"; exit 1; }
            # Their experts and layers are so small that neighbours share blocks of this size: more is read than they count.
            without=" --skip profile_tests --skip passes_reach_the_bound_of_storage_and_arithmetic_at_every_budget"
            kernel_of ppc64el '^linux-image-[0-9].*-powerpc64le-64k$'
            tests_in_machine 65536 powerpc64le-linux-gnu-gcc "$(cross_program layerline "$out/built.json")" hvc0 \
                qemu-system-ppc64 -machine pseries -vga none
            ;;
        *) sed -n '2,8p' "$0" >&2; exit 2 ;;
    esac
done
