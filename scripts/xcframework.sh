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
    # Debian gives some programs of it no plain name.
    lipo=$(ls /usr/lib/llvm-*/bin/llvm-lipo | tail -1) libraries=$CROSS_TARGET_DIR
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
for library in "$out"/*/liblayerline.a; do
    for architecture in $($lipo -archs "$library"); do
        defined=$target/apple/defined
        "$lipo" "$library" -thin "$architecture" -output "$target/apple/thin.a" 2> /dev/null || cp "$library" "$target/apple/thin.a"
        llvm-nm --defined-only --extern-only "$target/apple/thin.a" 2> /dev/null | awk '$2 == "T" { print substr($3, 2) }' | sort -u > "$defined"
        missing=$(sort include/symbols.txt | comm -23 - "$defined")
        [ -z "$missing" ] || { echo "$library, $architecture: not defined: $missing"; exit 1; }
        echo "$library, $architecture: $(wc -l < include/symbols.txt) functions"
    done
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
