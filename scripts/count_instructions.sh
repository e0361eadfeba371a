#!/usr/bin/env bash
# Counts the instructions that the kernels for 64-bit ARM take for a weight, or for a weight and a token, beside
# llama.cpp's: count_instructions.sh LLAMA_CPP_FOLDER [TOKENS]. It is a count, not a time: no such processor is needed.
#
# An emulator runs one instruction at a time and names each; the difference between three calls and one is that of two.
# Installs qemu-user-static, gcc-aarch64-linux-gnu, g++-aarch64-linux-gnu, rustc-web and rust-web-src, Debian's packages, where
# they are missing and it may.
set -euo pipefail
cd "$(dirname "$0")/.."
ggml=${1:?the folder of llama.cpp\'s source}/ggml/src
prompt=${2:-128}
rows=32
columns=2048
. scripts/cross.sh
cross_packages qemu-user-static gcc-aarch64-linux-gnu g++-aarch64-linux-gnu
cross_toolchain

target=aarch64-unknown-linux-gnu
folder=$CROSS_TARGET_DIR/instructions
mkdir -p "$folder"
export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER=aarch64-linux-gnu-gcc
export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUSTFLAGS="-C target-feature=+crt-static"
export CARGO_PROFILE_BENCH_CODEGEN_UNITS=${CARGO_PROFILE_BENCH_CODEGEN_UNITS:-16}
cross_cargo $target bench --no-run --bench instructions --message-format=json > "$folder/built.json"
ours=$(sed -n 's/.*"name":"instructions".*"executable":"\([^"]*\)".*/\1/p' "$folder/built.json" | tail -1)

# Both with everything that the emulated processor has.
flags=(-O3 -DNDEBUG -march=armv8.2-a+dotprod+i8mm+fp16 -ffunction-sections -D_GNU_SOURCE
    -I"$ggml/../include" -I"$ggml" -I"$ggml/ggml-cpu")
aarch64-linux-gnu-gcc "${flags[@]}" -c "$ggml/ggml-cpu/arch/arm/quants.c" -o "$folder/quants.o"
aarch64-linux-gnu-g++ -std=c++17 "${flags[@]}" -c "$ggml/ggml-cpu/arch/arm/repack.cpp" -o "$folder/repack.o"
aarch64-linux-gnu-gcc "${flags[@]}" -c benches/instructions/peer.c -o "$folder/peer.o"
# Of what else these files want nothing is called.
aarch64-linux-gnu-g++ -static -Wl,--gc-sections -Wl,--unresolved-symbols=ignore-all "$folder"/{peer,quants,repack}.o -o "$folder/peer"

executed() { qemu-aarch64-static -cpu max -singlestep -d nochain,exec -D /dev/stdout "$@" | grep -c '^Trace'; }
count() { # TOKENS PROGRAM WHAT...
    local tokens=$1 one three
    shift
    one=$(executed "$@" "$tokens" $rows $columns 1)
    three=$(executed "$@" "$tokens" $rows $columns 3)
    awk -v n=$((three - one)) -v of=$((2 * rows * columns * tokens)) -v tokens="$tokens" -v what="${*:2}" \
        'BEGIN { printf "%-24s %4d tokens: %.4f\n", what, tokens, n / of }'
}
for format in Q4_K Q8_0; do
    for tokens in 1 "$prompt"; do
        for isa in neon neon-dotprod neon-i8mm; do count "$tokens" "$ours" $isa $format; done
    done
done
for kernel in dot_q4_K dot_q8_0 gemv_q4_K_8x4 gemv_q4_K_8x8 gemv_q8_0_4x4 gemv_q8_0_4x8; do count 1 "$folder/peer" $kernel; done
for kernel in dots_q4_K dots_q8_0 gemm_q4_K_8x4 gemm_q4_K_8x8 gemm_q8_0_4x4 gemm_q8_0_4x8; do
    count "$prompt" "$folder/peer" $kernel
done
