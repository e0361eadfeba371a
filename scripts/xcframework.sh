#!/usr/bin/env bash
# Builds CLayerline.xcframework, which the Swift package and Xcode take: static libraries for macOS, iOS and its simulator,
# with the header and its module. Runs on a Mac, and on Linux, where a static library needs no linker.
#
#   xcframework.sh make [FOLDER]    released libraries for all systems; FOLDER is bindings/swift unless told
#   xcframework.sh check            unoptimised ones for macOS and iOS in the target folder, and what can be checked without
#                                   a Mac: the names that they define, the module, and the layout
#
# On Linux it installs rustc-web, rust-web-src, clang and llvm, Debian's packages, where they are missing and it may.
set -euo pipefail
cd "$(dirname "$0")/.."
target=${CARGO_TARGET_DIR:-$PWD/target}
export MACOSX_DEPLOYMENT_TARGET=13.0 IPHONEOS_DEPLOYMENT_TARGET=16.0

mode=${1:-}
case $mode in
    make) folder=${2:-bindings/swift} profile=release options=(--release) ;;
    check) folder=$target/apple profile=debug options=(--no-default-features --features prefetch) ;;
    *) sed -n '2,9p' "$0" >&2; exit 2 ;;
esac

if [ "$(uname -s)" = Darwin ]; then
    lipo=lipo libraries=$target
    compile() { rustup target add "$1" && "${CARGO:-cargo}" rustc --lib --crate-type staticlib --target "$@"; }
else
    . scripts/cross.sh
    cross_packages clang llvm
    cross_toolchain
    lipo=join libraries=$CROSS_TARGET_DIR
    # What lipo does, that of Debian's LLVM being too old for what the compiler writes: a head that says where the file of
    # each architecture begins (Apple's mach-o/fat.h).
    join() { # -create FILE... -output FILE
        "${PYTHON:-python3}" - "${@:2}" << 'END'
import pathlib, struct, sys
*files, _, out = sys.argv[1:]
kinds = {"aarch64": (0x0100000C, 0), "x86_64": (0x01000007, 3)}
parts = [(kinds[pathlib.Path(f).parts[-3].split("-")[0]], pathlib.Path(f).read_bytes()) for f in files]
align = 1 << 12
head, body, at = struct.pack(">II", 0xCAFEBABE, len(parts)), b"", align
for (kind, variant), data in parts:
    head += struct.pack(">IIIII", kind, variant, at, len(data), 12)
    body += data + bytes(-len(data) % align)
    at += len(data) + -len(data) % align
pathlib.Path(out).write_bytes(head.ljust(align, b"\0") + body)
END
    }
    compile() {
        local triple=$1
        shift
        cross_cargo "$triple" rustc --lib --crate-type staticlib "$@"
    }
fi
if [ "$mode" = check ]; then
    export CARGO_PROFILE_DEV_OPT_LEVEL=0
fi

# "system architectures targets" of each part.
parts=("macos arm64+x86_64 aarch64-apple-darwin+x86_64-apple-darwin" "ios arm64 aarch64-apple-ios")
[ "$mode" = check ] || parts+=("ios-simulator arm64+x86_64 aarch64-apple-ios-sim+x86_64-apple-ios")

out=$folder/CLayerline.xcframework
rm -rf "$out"
for part in "${parts[@]}"; do
    read -r system architectures triples <<< "$part"
    place=$out/$system-${architectures//+/_}
    mkdir -p "$place/Headers"
    made=()
    for triple in ${triples//+/ }; do
        compile "$triple" "${options[@]}"
        made+=("$libraries/$triple/$profile/liblayerline.a")
    done
    if [ ${#made[@]} = 1 ]; then cp "${made[0]}" "$place/liblayerline.a"; else $lipo -create "${made[@]}" -output "$place/liblayerline.a"; fi
    cp include/layerline.h "$place/Headers"
    # The name that the Swift sources import.
    printf 'module CLayerline {\n    header "layerline.h"\n    export *\n}\n' > "$place/Headers/module.modulemap"
done

"${PYTHON:-python3}" - "$out" "${parts[@]}" << 'END'
import pathlib, plistlib, sys
out = pathlib.Path(sys.argv[1])
libraries = []
for part in sys.argv[2:]:
    system, architectures, _ = part.split()
    platform, _, variant = system.partition("-")
    entry = {
        "LibraryIdentifier": f"{system}-{architectures.replace('+', '_')}",
        "LibraryPath": "liblayerline.a", "HeadersPath": "Headers",
        "SupportedPlatform": platform, "SupportedArchitectures": architectures.split("+"),
    }
    if variant:
        entry["SupportedPlatformVariant"] = variant
    libraries.append(entry)
about = {"AvailableLibraries": libraries, "CFBundlePackageType": "XFWK", "XCFrameworkFormatVersion": "1.0"}
(out / "Info.plist").write_bytes(plistlib.dumps(about))
END
echo "$out"
[ "$mode" = check ] || exit 0

# Every function of the header is defined for each architecture, under Apple's name for it.
for triple in aarch64-apple-darwin x86_64-apple-darwin aarch64-apple-ios; do
    llvm-nm --defined-only --extern-only "$libraries/$triple/$profile/liblayerline.a" 2> /dev/null |
        awk '$2 == "T" { print substr($3, 2) }' | LC_ALL=C sort -u > "$target/apple/defined"
    missing=$(LC_ALL=C sort include/symbols.txt | comm -23 - "$target/apple/defined")
    [ -z "$missing" ] || { echo "$triple: not defined: $missing"; exit 1; }
    echo "$triple: $(wc -l < include/symbols.txt) functions"
done
# The module compiles for both systems: the compiler has the headers that it includes.
for triple in arm64-apple-macos13 arm64-apple-ios16; do
    for headers in "$out"/*/Headers; do
        echo '@import CLayerline; int main(void) { return layerline_version() == 0; }' |
            clang -x objective-c -fmodules -fmodules-cache-path="$target/apple/modules" -ffreestanding -fsyntax-only -Werror \
                --target=$triple -I "$headers" -
    done
done
# What the description names is there.
"${PYTHON:-python3}" - "$out" << 'END'
import pathlib, plistlib, sys
out = pathlib.Path(sys.argv[1])
for library in plistlib.loads((out / "Info.plist").read_bytes())["AvailableLibraries"]:
    place = out / library["LibraryIdentifier"]
    assert (place / library["LibraryPath"]).is_file() and (place / library["HeadersPath"] / "module.modulemap").is_file(), place
END
