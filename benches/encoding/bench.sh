#!/usr/bin/env bash
# Our text encoder beside onnxruntime in f32, in turn in one run, as a table. Ratios are what counts.
#
#   benches/encoding/bench.sh MODEL PASSAGES.tsv [PYTHON]
#
# MODEL is a sentence-transformers folder (`exsearch model pull minilm`), PASSAGES a TSV in DPR's format, PYTHON an
# interpreter with torch, transformers, onnx, onnxscript and onnxruntime. From the environment: THREADS (default: all), N
# (passages, default 256), REPEATS (default 3).
set -euo pipefail
root=$(cd "$(dirname "$0")/../.." && pwd)
model=$1 passages=$2 python=${3:-python3}
threads=${THREADS:-$(nproc)} n=${N:-256} repeats=${REPEATS:-3}
export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$root/target} HF_HUB_OFFLINE=1 TOKENIZERS_PARALLELISM=true
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
if [ -z "${BINARY:-}" ]; then
    cargo build --quiet --release --manifest-path "$root/benches/encoding/Cargo.toml"
    BINARY=$CARGO_TARGET_DIR/release/exsearch-bench-encoding
fi
for round in 1 2; do
    echo "round $round of 2" >&2
    "$BINARY" "$model" "$passages" "$n" "$threads" "$repeats" >>"$work/lines"
    "$python" "$root/benches/encoding/onnx_encode.py" "$model" "$passages" "$n" "$threads" "$repeats" "$work" \
        >>"$work/lines" 2>"$work/peer.log" || { cat "$work/peer.log" >&2; exit 1; }
done
"$python" "$root/benches/encoding/table.py" "$work/lines"
