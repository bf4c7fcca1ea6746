#!/usr/bin/env bash
# The tests of untrusted bytes (model folders, index files, TSV and JSONL, GGUF, HTTP bodies) on cases that the gate never saw: the
# gate draws the same ones every time, this draws others in every round, until one fails or the rounds are over.
#   runs/fuzz.sh [ROUNDS]       20 by default
set -euo pipefail
cd "$(dirname "$0")/.."
for round in $(seq "${1:-20}"); do
    seed=$((RANDOM * 32768 + RANDOM))
    echo "round $round, PROPTEST_RNG_SEED=$seed"
    for target in "corpus --test garbage" "model --test garbage" "model --lib gguf" "model --lib weights" \
        "server --test serving garbage" "index --test index damage" "retriever --test retrievers" "retriever --test bm25"; do
        # shellcheck disable=SC2086 # A package and the arguments of its tests.
        PROPTEST_RNG_SEED=$seed cargo test --locked --quiet --package exsearch-$target
    done
done
