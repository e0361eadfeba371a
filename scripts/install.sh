#!/usr/bin/env bash
# Installs what `make lib` has built, with what every system has: no cargo-c.
#
#   install.sh LIBRARIES
#
# LIBRARIES is the folder where cargo put them. The shared library is stripped; where there is objcopy its debug
# information goes to .debug beside it, where debuggers look. Of libraries for Windows, whichever system has built them,
# layerline.dll goes to PREFIX/bin, and what programs are linked with to LIBDIR.
#
#   PREFIX    /usr/local unless told
#   LIBDIR    PREFIX/lib unless told
#   DESTDIR   put before every path, for packagers; it appears in no file
#   KINDS     "shared static" unless told: the libraries to install
#   RUSTC     the program that says what the static library needs of the system; where it is not there, it is taken to be
#             what Rust asks for on Linux with the GNU C library, or on macOS; for Windows always what it asks for there
set -euo pipefail

[ $# -eq 1 ] || { sed -n '2,17s/^# \{0,1\}//p' "$0" >&2; exit 2; }
libraries=$(cd "$1" && pwd)
cd "$(dirname "$0")/.."
prefix=${PREFIX:-/usr/local}
case $prefix in /*) ;; *) prefix=$PWD/$prefix ;; esac
libdir=${LIBDIR:-$prefix/lib}
case $libdir in /*) ;; *) libdir=$prefix/$libdir ;; esac
to=${DESTDIR:-}
kinds=${KINDS:-shared static}
case " $kinds " in *" shared "* | *" static "*) ;; *) echo "install.sh: KINDS is \"$kinds\": there are shared and static" >&2; exit 2 ;; esac
version=$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -1)
have() { command -v "$1" > /dev/null 2>&1; }

# put MODE FILE PLACE: a new file, so that a program which runs with the one before keeps it.
put() {
    mkdir -p "$(dirname "$to$3")"
    install -m "$1" "$2" "$to$3"
}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# The system libraries that a static Rust library needs, in rustc's own words; no dependency of this one adds any.
windows=no
[ ! -f "$libraries/layerline.dll" ] && [ ! -f "$libraries/layerline.lib" ] || windows=yes
if [ $windows = yes ]; then
    needs="-lkernel32 -lntdll -luserenv -lws2_32 -ldbghelp"
elif have "${RUSTC:-rustc}"; then
    echo 'pub fn nothing() {}' > "$work/probe.rs"
    needs=$("${RUSTC:-rustc}" --crate-type staticlib --print native-static-libs -o "$work/probe.a" "$work/probe.rs" 2>&1 |
        sed -n 's/.*native-static-libs: //p' | tail -1)
elif [ "$(uname -s)" = Darwin ]; then
    needs="-liconv -lSystem -lc -lm"
else
    needs="-lgcc_s -lutil -lrt -lpthread -lm -ldl -lc"
fi
[ -n "$needs" ] || { echo "install.sh: ${RUSTC:-rustc} does not say what a static library needs" >&2; exit 1; }

put_shared() {
    local file links link
    if [ $windows = yes ]; then
        put 755 "$libraries/layerline.dll" "$prefix/bin/layerline.dll"
        # rustc names it after the linker that it is for.
        for file in liblayerline.dll.a layerline.dll.lib; do
            [ ! -f "$libraries/$file" ] || put 644 "$libraries/$file" "$libdir/$file"
        done
        return
    fi
    if [ "$(uname -s)" = Darwin ]; then
        file=liblayerline.$version.dylib links="liblayerline.0.dylib liblayerline.dylib"
        cp "$libraries/liblayerline.dylib" "$work/shared"
        strip -x "$work/shared"
        install_name_tool -id "$libdir/liblayerline.0.dylib" "$work/shared"
    else
        file=liblayerline.so.$version links="liblayerline.so.0 liblayerline.so"
        cp "$libraries/liblayerline.so" "$work/shared"
        if have objcopy; then
            objcopy --only-keep-debug "$work/shared" "$work/$file.debug"
            objcopy --strip-unneeded "$work/shared"
            (cd "$work" && objcopy --add-gnu-debuglink="$file.debug" shared)
            put 644 "$work/$file.debug" "$libdir/.debug/$file.debug"
        elif have strip; then
            strip --strip-unneeded "$work/shared"
        fi
    fi
    put 755 "$work/shared" "$libdir/$file"
    for link in $links; do
        ln -sf "$file" "$to$libdir/$link"
    done
}
put_static() {
    if [ $windows = yes ]; then
        for file in liblayerline.a layerline.lib; do
            [ ! -f "$libraries/$file" ] || put 644 "$libraries/$file" "$libdir/$file"
        done
        return
    fi
    cp "$libraries/liblayerline.a" "$work/static"
    ! have strip || strip -S "$work/static"
    put 644 "$work/static" "$libdir/liblayerline.a"
}

for kind in $kinds; do
    put_"$kind"
done
for header in include/layerline.h include/layerline.hpp; do
    put 644 "$header" "$prefix/include/${header##*/}"
done
for part in include/cmake/*.cmake; do
    put 644 "$part" "$prefix/share/cmake/layerline/${part##*/}"
done
cat > "$work/layerline.pc" << END
prefix=$prefix
libdir=$(case $libdir in "$prefix"/*) printf '${prefix}%s' "${libdir#"$prefix"}" ;; *) printf %s "$libdir" ;; esac)
includedir=\${prefix}/include

Name: layerline
Description: Runs GGUF language models inside a memory budget
Version: $version
Libs: -L\${libdir} -llayerline
Libs.private: $needs
Cflags: -I\${includedir}
END
put 644 "$work/layerline.pc" "$libdir/pkgconfig/layerline.pc"
echo "installed below $to$prefix"
