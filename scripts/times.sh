# For scripts that run steps: `. scripts/times.sh`, then `processor_seconds`: what everything that this shell has started and
# waited for has taken of the processors, into the variable of that name.
processor_seconds() {
    local file
    file=$(mktemp)
    times > "$file"
    processor_seconds=$(awk 'NR == 2 { for (i = 1; i <= 2; i++) { split($i, t, /[ms]/); sum += 60 * t[1] + t[2] } print int(sum) }' "$file")
    rm "$file"
}
