#!/usr/bin/env bash
# Our text encoder beside onnxruntime in f32, in turn in one run, as a table. Ratios are what counts.
#
#   benches/encoding/bench.sh MODEL PASSAGES.tsv [PYTHON]
#
# MODEL is a sentence-transformers folder (`exsearch model pull minilm`), PASSAGES a TSV in DPR's format, PYTHON an
# interpreter with torch, transformers, onnx, onnxscript and onnxruntime. From the environment: THREADS (default: all), N
# (passages, default 256), REPEATS (default 3); INT8=1 also measures the model quantized to int8, in onnxruntime and as an ONNX
# file of ours, with the library of the Python package.
set -euo pipefail
root=$(cd "$(dirname "$0")/../.." && pwd)
model=$1 passages=$2 python=${3:-python3}
threads=${THREADS:-$(nproc)} n=${N:-256} repeats=${REPEATS:-3}
export INT8=${INT8:-}
export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$root/target} HF_HUB_OFFLINE=1 TOKENIZERS_PARALLELISM=true
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
if [ -z "${BINARY:-}" ]; then
    cargo build --quiet --release --locked --manifest-path "$root/benches/encoding/Cargo.toml" ${INT8:+--features ort}
    BINARY=$CARGO_TARGET_DIR/release/exsearch-bench-encoding
fi
if [ -n "$INT8" ]; then
    ORT_DYLIB_PATH=$("$python" -c 'import glob, onnxruntime; print(glob.glob(onnxruntime.__path__[0] + "/capi/libonnxruntime.*")[0])')
    export ORT_DYLIB_PATH
fi
for round in 1 2; do
    echo "round $round of 2" >&2
    "$BINARY" "$model" "$passages" "$n" "$threads" "$repeats" >>"$work/lines"
    "$python" "$root/benches/encoding/onnx_encode.py" "$model" "$passages" "$n" "$threads" "$repeats" "$work" \
        >>"$work/lines" 2>"$work/peer.log" || { cat "$work/peer.log" >&2; exit 1; }
    if [ -n "$INT8" ]; then
        # An ONNX file lies in a folder of its model.
        [ -e "$work/model" ] || { cp -rs "$(realpath "$model")" "$work/model"; mkdir -p "$work/model/onnx"; }
        ln -sf "$work/int8.onnx" "$work/model/onnx/int8.onnx"
        "$BINARY" "$work/model/onnx/int8.onnx" "$passages" "$n" "$threads" "$repeats" >>"$work/lines"
    fi
done
"$python" "$root/benches/encoding/table.py" "$work/lines"
