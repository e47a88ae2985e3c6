#!/bin/sh
# Builds the fuzzers with the stable compiler: with libFuzzer's counters, without a sanitizer.
cd "$(dirname "$0")" || exit 1
RUSTFLAGS="--cfg fuzzing -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
-Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
-Cllvm-args=-sanitizer-coverage-trace-compares -Ccodegen-units=1" \
    exec cargo build --release --target "$(rustc --print host-tuple)" "$@"
