#!/usr/bin/env bash
# Locks, wake-ups and fences of the engine, of the turns of its sweeps and of the compute pool in many orders: the modules `interleaved` under shuttle.
#
#   LAYERLINE_SHUTTLE_RUNS   orders tried in each test, 2000 unless told
#   CARGO                    the program to use
set -eu
cd "$(dirname "$0")/.."
export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-target}/shuttle
RUSTFLAGS="${RUSTFLAGS:-} --cfg shuttle" exec "${CARGO:-cargo}" test --lib ::interleaved:: "$@"
