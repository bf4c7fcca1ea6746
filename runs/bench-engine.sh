#!/usr/bin/env bash
# Our engine beside llama.cpp and transformers on this machine: trajectories a minute, and tokens a second in prefill and decoding.
# Ratios are what counts: run it on a machine that does nothing else.
#
#   runs/bench-engine.sh QUICKSTART LLAMA_CPP RESULTS [PYTHON]
#
# QUICKSTART is a finished folder of `exsearch quickstart --out`: its world, index and settings are used, and its model with the
# adapter of warm-up merged into it, by all sides. LLAMA_CPP is a source folder of llama.cpp with llama-server and llama-batched-bench
# in build/bin (or in LLAMA_BIN). PyPI has it:
#
#   pip download --no-deps --no-binary llama-cpp-python llama-cpp-python     and unpacked, in vendor/llama.cpp:
#   cmake -B build -DCMAKE_BUILD_TYPE=Release -DLLAMA_OPENSSL=OFF -DLLAMA_USE_PREBUILT_UI=OFF
#   cmake --build build --target llama-server llama-batched-bench
#
# PYTHON has torch, transformers and gguf (default python3). RESULTS keeps what each part left, a part that is there is not run again,
# and the tables are of what is there. PARTS names what is run (again), out of: model limits sample-ours sample-int8 sample-llama-TYPE
# sample-serial tokens-f32-BATCH tokens-int8-BATCH tokens-llama-TYPE-BATCH tokens-transformers-BATCH. All but limits need model,
# sample-serial needs sample-ours. From the environment: THREADS (default: all), TYPES (of llama.cpp's weights, default "f32 q8_0"; ours
# are f32 and int8), BATCHES ("1 8 32 64"), PROMPT (512), NEW (32), N_QUESTIONS (64), N_SAMPLES (4), PEER_LIMIT (32: trajectories of the
# serial loop), PORT (8089).
set -euo pipefail
if [ $# -lt 3 ] || [ $# -gt 4 ]; then sed -n 's/^#   //p' "$0" >&2; exit 2; fi
root=$(cd "$(dirname "$0")/.." && pwd)
mkdir -p "$3"
quickstart=$(cd "$1" && pwd) llama=$(cd "$2" && pwd) results=$(cd "$3" && pwd) python=${4:-python3}
bin=${LLAMA_BIN:-$llama/build/bin}
threads=${THREADS:-$(nproc)}
types=${TYPES:-f32 q8_0} batches=${BATCHES:-1 8 32 64} prompt=${PROMPT:-512} new=${NEW:-32}
export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$root/target} RAYON_NUM_THREADS=$threads OMP_NUM_THREADS=$threads
export HF_HUB_OFFLINE=1 TRANSFORMERS_VERBOSITY=error HF_HUB_DISABLE_PROGRESS_BARS=1
exsearch=$CARGO_TARGET_DIR/release/exsearch
server=
trap 'code=$?; [ -z "$server" ] || kill "$server"; [ $code = 0 ] || tail -n 20 "$results/log" >&2' EXIT

main() {
    local part parts=(model limits sample-ours sample-int8) type batch
    for type in $types; do parts+=("sample-llama-$type"); done
    parts+=(sample-serial)
    for batch in $batches; do
        parts+=("tokens-f32-$batch" "tokens-int8-$batch")
        for type in $types; do parts+=("tokens-llama-$type-$batch"); done
        parts+=("tokens-transformers-$batch")
    done
    if [ -n "${PARTS:-}" ]; then read -ra parts <<<"$PARTS"; fi
    : >"$results/log"
    cargo build --quiet --release --locked --manifest-path "$root/Cargo.toml" --bin exsearch
    cargo build --quiet --release --manifest-path "$root/benches/generation/Cargo.toml"
    for part in "${parts[@]}"; do
        if [ -z "${PARTS:-}" ] && [ -e "$results/$part.json" ]; then continue; fi
        echo "$part" >&2
        run_part "$part" >"$results/part" 2>"$results/log"
        mv "$results/part" "$results/$part.json"
    done
    "$python" "$root/benches/engine/table.py" "$results"
}

# Prints JSON lines.
run_part() {
    local part=$1 side=${1%-*}
    case $part in
        model) make_model ;;
        limits) "$python" "$root/benches/engine/limits.py" "$threads" ;;
        sample-ours) sample ours ;;
        sample-int8)
            sed '$a [generator]\nweights = "int8"' "$results/run.toml" >"$results/int8.toml"
            config=int8.toml sample "ours int8"
            ;;
        sample-llama-*) with_server "${part##*-}" sample "llama.cpp ${part##*-}" --server "http://127.0.0.1:${PORT:-8089}" \
            --server-protocol llama-cpp --concurrency 8 ;;
        sample-serial) "$python" "$root/benches/trajectories/serial_transformers.py" "$results/model" \
            "$results/ours.jsonl" --threads "$threads" --limit "${PEER_LIMIT:-32}" ;;
        tokens-transformers-*) "$python" "$root/benches/generation/torch_generate.py" "$results/model" "${part##*-}" \
            "$prompt" "$new" --threads "$threads" ;;
        tokens-llama-*) llama_tokens "${side##*-}" "${part##*-}" ;;
        tokens-f32-* | tokens-int8-*)
            "$CARGO_TARGET_DIR/release/exsearch-bench-generation" speed "$results/model" "${side##*-}" "${part##*-}" "$prompt" "$new"
            ;;
        *) echo "there is no part $part" >&2; return 2 ;;
    esac
}

# The model of all sides, and settings that name it.
make_model() {
    local base type
    base=$(sed -n 's/^model = "\(.*\)"$/\1/p' "$quickstart/quickstart.toml")
    rm -rf "$results/model"
    (cd "$quickstart" && "$exsearch" model merge --model "$base" --adapter run/warmup/checkpoint --out "$results/model") >&2
    for type in $types; do
        "$python" "$llama/convert_hf_to_gguf.py" "$results/model" --outtype "$type" --outfile "$results/$type.gguf" >&2
    done
    sed -e "s|^model = .*|model = \"$results/model\"|" -e "s|\"index\"|\"$quickstart/index\"|" \
        -e "s|\"world/|\"$quickstart/world/|g" "$quickstart/quickstart.toml" >"$results/run.toml"
    "$python" -c 'import json, os, sys
folder, threads = sys.argv[1:]
config = json.load(open(folder + "/config.json"))
head = 4 * config["vocab_size"] * config["hidden_size"]
print(json.dumps({"bytes": os.path.getsize(folder + "/model.safetensors"), "head_bytes": head, "threads": int(threads)}))' \
        "$results/model" "$threads"
}

# The whole process is timed: opening, searching and writing are part of it.
sample() {
    local side=$1 out=$results/${1// /-}.jsonl start=$EPOCHREALTIME
    shift
    rm -f "$out" "$out.partial"
    "$exsearch" sample --config "$results/${config:-run.toml}" --questions "$quickstart/world/train.jsonl" \
        --limit "${N_QUESTIONS:-64}" --samples "${N_SAMPLES:-4}" "$@" --out "$out" >&2
    echo "{\"side\": \"$side\", \"secs\": $(awk "BEGIN { print $EPOCHREALTIME - $start }"), \"trajectories\": \"$out\"}"
}

# A llama-server of 8 slots around a command. Loading is not timed.
with_server() {
    local type=$1 port=${PORT:-8089}
    shift
    "$bin/llama-server" -m "$results/$type.gguf" --host 127.0.0.1 --port "$port" -np 8 -c 8192 -t "$threads" -tb "$threads" \
        >"$results/server.log" 2>&1 &
    server=$!
    until curl -sf "http://127.0.0.1:$port/health" >&2; do
        kill -0 "$server" || { tail -n 20 "$results/server.log" >&2; return 1; }
        sleep 0.2
    done
    "$@"
    kill "$server"
    wait "$server" || true
    server=
}

# Three times in one process, as the other sides do. The cache of keys and values is f16, llama.cpp's default.
llama_tokens() {
    local type=$1 batch=$2 per_sequence=$((prompt + new))
    "$bin/llama-batched-bench" -m "$results/$type.gguf" -c $((batch * per_sequence)) -b 2048 -ub 512 -npp "$prompt" -ntg "$new" \
        -npl "$batch,$batch,$batch" -t "$threads" -tb "$threads" --output-format jsonl 2>>"$results/log" |
        "$python" "$root/benches/engine/llama_lines.py" "llama.cpp $type" "$results/$type.gguf"
}

main
