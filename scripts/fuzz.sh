#!/usr/bin/env bash
# Runs the fuzz targets one after another, from a small corpus of seeds, and says what each has done.
#
#   fuzz.sh [TARGET...]   all of them unless told
#
#   SECONDS_EACH   how long each runs, 60 unless told
#
# Needs cargo-fuzz (`cargo install cargo-fuzz`); any compiler will do. Ends with 77 where it is missing.
set -u
cd "$(dirname "$0")/../fuzz"
cargo=${CARGO:-cargo}
"$cargo" fuzz --version > /dev/null 2>&1 || { echo "fuzz: there is no cargo-fuzz: $cargo install cargo-fuzz" >&2; exit 77; }
# What it asks of the compiler is in every one, but only nightly ones give it without this.
export RUSTC_BOOTSTRAP=1
seconds=${SECONDS_EACH:-60}
[ $# -gt 0 ] || set -- $(sed -n 's/^name = "\(.*\)"/\1/p' Cargo.toml | grep -v '^layerline-fuzz$')
./seed.sh || exit 1
failed=0
for target in "$@"; do
    options=(-max_total_time="$seconds" -print_final_stats=1 -rss_limit_mb=512)
    case $target in
        gguf) options+=(-dict=gguf.dict -max_len=16384 -malloc_limit_mb=64) ;;
        chat) options+=(-max_len=4096 -timeout=10) ;;
        budgets) options+=(-max_len=130 -timeout=20) ;;
        constraint) options+=(-max_len=2048 -timeout=20 -dict=constraint.dict) ;;
        text) options+=(-max_len=4096 -malloc_limit_mb=64) ;;
        *) options+=(-max_len=8192 -malloc_limit_mb=64) ;;
    esac
    log=target/$target.log
    mkdir -p target
    if "$cargo" fuzz run "$target" --fuzz-dir . -- "${options[@]}" > "$log" 2>&1; then
        echo "$target: $(sed -n 's/^stat::number_of_executed_units: *//p' "$log") executions, $(
            grep -o 'cov: [0-9]* ft: [0-9]*' "$log" | tail -1) after $seconds s"
    else
        failed=1
        tail -40 "$log"
        echo "$target: FAILED; what breaks it is in fuzz/artifacts/$target"
    fi
done
exit $failed
