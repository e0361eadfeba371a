#!/usr/bin/env bash
# The long forms of what `make test` does in short ones: system calls that fail, processes that are killed, signals, forged
# control tokens, memory against the kernel's figures, texts with drafts and in company. About an hour on two cores.
#
#   torture.sh [LIBRARIES]   LIBRARIES: the folder of the built libraries, target/release unless told
#
#   SECONDS_EACH   how long the storm of signals lasts, 300 unless told
#   KILLS          how many processes are killed while they save, 500 unless told
#   FORGERIES      how many conversations try to make a control token, 1000000 unless told
#   TURNS          operations of each budget test, 600 unless told
#   TEXT_TOKENS    tokens of real models that each way of generating them must agree on, 10000 unless told
#   SEEDS          "1 2 3" unless told: which orders of operations
set -u
cd "$(dirname "$0")/.."
target=${CARGO_TARGET_DIR:-target}
libraries=${1:-$target/release}
out=$target/torture
failed=0

run() {
    local name=$1
    shift
    echo "== $name"
    "$@" || { echo "-- $name: FAILED ($?)"; failed=1; }
}

"${CARGO:-cargo}" run --release --quiet --example golden -- "$target/golden" || exit 1
cmake -S ctests -B "$out" -DLAYERLINE_LIB_DIR="$(cd "$libraries" && pwd)" -DLAYERLINE_TEST_DATA="$(cd "$target/golden" && pwd)" > "$out.log" &&
    cmake --build "$out" --target torture_shared saving_shared storm_shared budget_shared hostile_shared >> "$out.log" 2>&1 ||
    { tail -40 "$out.log"; exit 1; }
run "every system call fails in turn" env LAYERLINE_TORTURE=1 "$out/torture_shared"
run "killed while saving" env LAYERLINE_KILLS="${KILLS:-500}" "$out/saving_shared"
run "a storm of signals" env LAYERLINE_SECONDS="${SECONDS_EACH:-300}" "$out/storm_shared"
run "hostile files" env LAYERLINE_HOSTILE_CUTS=2000 LAYERLINE_HOSTILE_FLIPS=15000 "$out/hostile_shared"
for model in models/SmolLM2-135M-Instruct.Q4_1.gguf models/gemma-3-270m-Q4_K_M.gguf; do
    [ -f "$model" ] || { echo "skipped: $model is not fetched"; continue; }
    for seed in ${SEEDS:-1 2 3}; do
        limit=$(($(LAYERLINE_WAYS=all "$out/budget_shared" "$model" --limit) + 24 * 1024 * 1024))
        run "memory of $model, order $seed" \
            env LAYERLINE_WAYS=all LAYERLINE_TURNS="${TURNS:-600}" LAYERLINE_SEED="$seed" scripts/cgroup_budget.sh $limit "$out/budget_shared" "$model"
    done
done
run "forged control tokens" env LAYERLINE_FORGERIES="${FORGERIES:-1000000}" \
    "${CARGO:-cargo}" test --release --test forgery -- --nocapture
run "texts with drafts and in company" env LAYERLINE_EQUAL_TOKENS="${TEXT_TOKENS:-10000}" \
    "${CARGO:-cargo}" test --release --test golden -- --ignored --nocapture ten_thousand_tokens
[ $failed = 0 ]
