#!/usr/bin/env bash
# Says how large libraries are without their symbols and debugging sections. Fails if the last one is larger than 7 MB, and
# names its largest functions then: size.sh LIBRARY...
set -euo pipefail
[ $# -ge 1 ] || { echo "usage: size.sh LIBRARY..." >&2; exit 2; }
limit=7000000
stripped=$(mktemp)
trap 'rm -f "$stripped"' EXIT
for library; do
    # What `strip -x` leaves on macOS are the names that programs link to.
    case "$(uname -s)" in
        Darwin) strip -x -o "$stripped" "$library" ;;
        *) strip -o "$stripped" "$library" ;;
    esac
    bytes=$(($(wc -c < "$stripped")))
    echo "$library: $bytes bytes"
done
if [ "$bytes" -gt "$limit" ]; then
    echo "$library is larger than $limit bytes; its largest parts:"
    nm --size-sort -S -C "$library" | tail -n 30 | awk '{ $1 = ""; print }'
    exit 1
fi
