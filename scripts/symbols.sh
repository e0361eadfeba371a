#!/usr/bin/env bash
# Prints the names that a shared library exports, one a line, sorted: symbols.sh LIBRARY
set -euo pipefail
[ $# -eq 1 ] || { echo "usage: symbols.sh LIBRARY" >&2; exit 2; }
case "$(uname -s)" in
    Darwin) nm -gU "$1" | awk '{ print $NF }' | sed 's/^_//' ;;
    *) nm -D --defined-only "$1" | awk '{ print $NF }' | sed 's/@.*//' ;;
esac | LC_ALL=C sort -u
