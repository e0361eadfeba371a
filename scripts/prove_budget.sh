#!/usr/bin/env bash
# Proves that a budget is one: a model runs in a memory cgroup that has little more room than its budget.
#
#   prove_budget.sh GENERATE MODEL
#
# GENERATE is the example program. At 25 % of the file and at the floor, 32 tokens are generated in a group limited to
# the budget and 24 MiB for the program itself. The prompt is long enough to fill the scratch memory of a chunk, and
# nearly the context, because memory that is promised but never touched would prove nothing; nothing may be killed and the library's own peak must stay below the
# budget. Below the floor there must be a refusal with both figures. Ends with 77 where there are no cgroups.
set -u

[ $# -eq 2 ] || { echo "usage: prove_budget.sh GENERATE MODEL" >&2; exit 2; }
generate=$1
model=$2
here=$(cd "$(dirname "$0")" && pwd)
program_bytes=$((24 * 1024 * 1024))
common=(--threads 2 --context 512)
prompt=$(printf 'one %.0s' $(seq 440))
log=$(mktemp)
trap 'rm -f "$log"' EXIT
failed=0

fail() {
    echo "FAILED: $1" >&2
    failed=1
}

plan=$("$generate" "$model" --plan "${common[@]}") || { echo "FAILED: no plan" >&2; exit 1; }
field() { awk -v name="$1" '$1 == name { print $2 }' <<< "$plan"; }
file_bytes=$(field file_bytes)
floor_bytes=$(field floor_bytes)
full_bytes=$(field full_bytes)
echo "file $file_bytes, floor $floor_bytes, full $full_bytes bytes"

in_group() {
    local name=$1 budget=$2 status peak
    "$here/cgroup_budget.sh" $((budget + program_bytes)) \
        "$generate" "$model" "$prompt" --budget "$budget" --tokens 32 "${common[@]}" > /dev/null 2> "$log"
    status=$?
    if [ $status = 77 ]; then
        cat "$log" >&2
        exit 77
    fi
    peak=$(sed -n 's/^ *peak .*(\([0-9]*\) bytes)$/\1/p' "$log")
    grep '^cgroup:' "$log" | sed "s/^cgroup:/$name, budget $budget, peak ${peak:-unknown};/"
    if [ $status != 0 ]; then
        cat "$log" >&2
        fail "$name: the program ended with $status"
    elif [ -z "$peak" ] || [ "$peak" -gt "$budget" ]; then
        fail "$name: peak ${peak:-unknown} is over the budget of $budget bytes"
    fi
}

in_group "a quarter of the file" $((file_bytes / 4))
in_group "the floor" "$floor_bytes"

# The path is taken out of the message first: its own digits prove nothing.
below=$((floor_bytes - 1))
if "$generate" "$model" "One two" --budget $below --tokens 1 "${common[@]}" > /dev/null 2> "$log"; then
    fail "below the floor: it ran all the same"
elif [ "$(sed "s|$model||g; s|$(basename "$model")||g" "$log" | grep -oE '[0-9]+([.,][0-9]+)*' | wc -l)" -lt 2 ]; then
    cat "$log" >&2
    fail "below the floor: the message lacks the figures"
else
    echo "below the floor: $(head -1 "$log")"
fi
exit $failed
