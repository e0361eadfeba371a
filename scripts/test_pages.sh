#!/usr/bin/env bash
# The library's tests of memory and storage where the system's pages have 16 KiB: in a whole emulated machine of
# 64-bit ARM, by Debian's kernel for such pages and the test program that test_aarch64.sh has built.
#
# Installs qemu-system-arm and gcc-aarch64-linux-gnu, Debian's packages, where they are missing and it may. The kernel is of
# the release trixie, from wherever the machine's own packages come, and is not installed.
#
# PYTHON   the program to use
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=scripts/cross.sh
. scripts/cross.sh
cross_packages qemu-system-arm gcc-aarch64-linux-gnu
unit=$(cross_program layerline "$CROSS_TARGET_DIR/aarch64-unknown-linux-gnu/built.json")
[ -x "$unit" ] || { echo "no test program: scripts/test_aarch64.sh builds it" >&2; exit 1; }

out=$CROSS_TARGET_DIR/pages
mkdir -p "$out/lists/partial" "$out/cache/archives/partial"
kernel=$(find "$out" -name 'vmlinuz-*-16k')
if [ -z "$kernel" ]; then
    mirror=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' 'Origin: Debian' | head -1)
    [ -n "$mirror" ] || { echo "missing: a mirror of Debian"; exit 77; }
    echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $mirror trixie main" > "$out/sources"
    options=(-o "Dir::State::lists=$out/lists" -o "Dir::State::status=/dev/null" -o "Dir::Cache=$out/cache"
        -o "Dir::Etc::sourcelist=$out/sources" -o "Dir::Etc::sourceparts=-" -o APT::Architecture=arm64
        -o APT::Architectures=arm64 -o "APT::Sandbox::User=$(id -un)")
    apt-get "${options[@]}" update > "$out/apt.log" 2>&1 || { tail -5 "$out/apt.log"; exit 77; }
    package=$(apt-cache "${options[@]}" depends linux-image-arm64-16k | sed -n 's/^ *Depends: \(linux-image-.*\)/\1/p')
    (cd "$out" && apt-get "${options[@]}" download "$package") >> "$out/apt.log" 2>&1 || { tail -5 "$out/apt.log"; exit 77; }
    dpkg-deb --fsys-tarfile "$out/$package"_*.deb | tar -x -C "$out" --wildcards './boot/vmlinuz-*'
    rm "$out/$package"_*.deb
    kernel=$(find "$out" -name 'vmlinuz-*-16k')
fi

aarch64-linux-gnu-gcc -static -O1 -Wall -Wextra -Werror scripts/machine/init.c -o "$out/init"
"${PYTHON:-python3}" scripts/machine/files.py "$out/files" init="$out/init" program="$unit" "${PWD#/}/tests/data=tests/data"
# What the kernel is given after `--` are arguments of the first process.
timeout 1800 qemu-system-aarch64 -machine virt -cpu max -m 3072 -smp "$(nproc)" -nic none -nographic -no-reboot -kernel "$kernel" \
    -initrd "$out/files" -append "quiet console=ttyAMA0 panic=-1 -- --test-threads=$(nproc) weights:: sys:: model:: gguf::" \
    < /dev/null 2>&1 | tr -d '\r' > "$out/machine.log" || true
grep -a -E '^pages of|^test result|^ended' "$out/machine.log" || true
grep -a -q '^pages of 16384 bytes' "$out/machine.log" && grep -a -q '^ended with 0' "$out/machine.log" || { tail -40 "$out/machine.log"; exit 1; }
