#!/usr/bin/env bash
# Our side against a peer's, in turn in one run, as a table. Ratios are what counts: run it on a machine that does nothing else.
#
#   runs/bench.sh kernels                                            our f32 product against the gemm crate's
#   runs/bench.sh training MODEL [PYTHON]                            a training step against torch + transformers + peft
#   runs/bench.sh generation MODEL [PYTHON]                          prefill and decoding against transformers
#   runs/bench.sh trajectories CONFIG ADAPTER QUESTIONS [PYTHON]     `exsearch sample` against serial `generate`
#   runs/bench.sh late VECTORS                                          our late-interaction index against next-plaid
#
# VECTORS is a folder of benches/late/encode.py. LARGE=500000 adds a spliced corpus of that size, which takes 10 GB of disk.
# MODEL is an HF folder, PYTHON an interpreter with torch, transformers and peft (default python3), CONFIG a run
# configuration, ADAPTER a LoRA checkpoint or `none`, QUESTIONS a file of questions. From the environment: THREADS (default:
# all), STEPS, LENGTH, SIZES and TORCH_FLAGS of training; BATCHES, PROMPT and NEW of generation; N_QUESTIONS, N_SAMPLES and
# PEER_LIMIT of trajectories.
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
threads=${THREADS:-$(nproc)}
export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$root/target} RAYON_NUM_THREADS=$threads OMP_NUM_THREADS=$threads
export HF_HUB_OFFLINE=1 TRANSFORMERS_VERBOSITY=error HF_HUB_DISABLE_PROGRESS_BARS=1
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

usage() { sed -n 's/^#   //p' "$0" >&2; exit 2; }

# Builds a bench package and leaves the path of its binary in $binary.
build() {
    cargo build --quiet --release --manifest-path "$root/benches/$1/Cargo.toml"
    binary=$CARGO_TARGET_DIR/release/exsearch-bench-$1
}

say() { echo "$*" >&2; }

# Runs a peer quietly: what it says on standard error is shown only when it fails.
peer() { "$python" "$@" 2>"$work/peer.log" || { cat "$work/peer.log" >&2; return 1; }; }

kernels() { build kernels; "$binary"; }

training() {
    local model=$1 python=${2:-python3} steps=${STEPS:-5} length=${LENGTH:-512}
    local flags=(--threads "$threads" --start-adapter "$work/adapter")
    read -ra more <<<"${TORCH_FLAGS:-}"
    build training
    "$binary" "$model" start-adapter "$work/adapter"
    local method batch round
    IFS=, read -ra sizes <<<"${SIZES:-lora 1,lora 4,full 1,full 4}"
    for size in "${sizes[@]}"; do
        read -r method batch <<<"$size"
        for round in 1 2; do
            say "$method ${batch}x$length, round $round of 2"
            "$binary" "$model" "$method" "$batch" "$length" "$steps" >>"$work/lines"
            peer "$root/benches/training/torch_step.py" "$model" "$method" "$batch" "$length" "$steps" \
                "${flags[@]}" ${more[@]+"${more[@]}"} >>"$work/lines"
        done
    done
    echo "$threads threads, $steps steps twice after one that is not counted"
    "$python" "$root/benches/training/table.py" "$work/lines"
}

generation() {
    local model=$1 python=${2:-python3} batch round sizes
    sizes=("${PROMPT:-512}" "${NEW:-32}")
    build generation
    for batch in ${BATCHES:-1 8 32}; do
        for round in 1 2; do
            say "batch $batch, round $round of 2"
            "$binary" "$model" "$batch" "${sizes[@]}" >>"$work/lines"
            peer "$root/benches/generation/torch_generate.py" "$model" "$batch" "${sizes[@]}" --threads "$threads" >>"$work/lines"
        done
    done
    echo "$threads threads, prompts of ${sizes[0]} tokens, ${sizes[1]} new tokens"
    "$python" "$root/benches/generation/table.py" "$work/lines"
}

trajectories() {
    local config=$1 adapter=$2 questions=$3 python=${4:-python3} model ours=() flags=()
    local sample=(--limit "${N_QUESTIONS:-64}" --samples "${N_SAMPLES:-4}")
    if [ "$adapter" != none ]; then flags=(--adapter "$adapter"); fi
    cargo build --quiet --release --locked --manifest-path "$root/Cargo.toml" --bin exsearch
    # The configuration's `model`, relative to the configuration.
    model=$("$python" -c 'import pathlib, sys, tomllib
path = pathlib.Path(sys.argv[1]); print(path.parent / tomllib.loads(path.read_text())["model"])' "$config")
    # The whole process is timed: loading, searching and writing are part of ours.
    sample_once() {
        say "ours, run $1 of 2"
        local start=$EPOCHREALTIME
        "$CARGO_TARGET_DIR/release/exsearch" sample --config "$config" --questions "$questions" "${sample[@]}" \
            ${flags[@]+"${flags[@]}"} --out "$work/ours-$1.jsonl" >&2
        ours+=("$(awk "BEGIN { print $EPOCHREALTIME - $start }")")
    }
    sample_once 1
    say "serial transformers, ${PEER_LIMIT:-32} of the trajectories"
    peer "$root/benches/trajectories/serial_transformers.py" "$model" "$work/ours-1.jsonl" --threads "$threads" \
        --limit "${PEER_LIMIT:-32}" ${flags[@]+"${flags[@]}"} >"$work/peer.json"
    sample_once 2
    echo "$threads threads"
    "$python" "$root/benches/trajectories/table.py" "$work/ours-1.jsonl" "$work/peer.json" "${ours[@]}"
}

# VECTORS is a folder that benches/late/encode.py filled; what is built there stays for the next call.
late() {
    local vectors=$1 index=$1/indexes questions=${N_QUESTIONS:-300} large=${LARGE:-0} engine
    build late
    mkdir -p "$index"
    for engine in ours peer; do
        if [ ! -e "$index/$engine" ]; then
            say "building: $engine"
            rm -rf "$index/unfinished"
            # shellcheck disable=SC2046
            "$binary" build $engine "$vectors" "$index/unfinished" $([ $engine = peer ] || echo 10000)
            mv "$index/unfinished" "$index/$engine"
        fi
    done
    RAYON_NUM_THREADS=1 "$binary" search "$vectors" "$index/ours" "$index/peer" "$questions"
    RAYON_NUM_THREADS=1 "$binary" curve "$vectors" "$index/ours" "$questions"
    [ "$large" -gt 0 ] || return 0
    if [ ! -e "$index/ours-$large" ]; then
        "$binary" build ours "$vectors" "$index/unfinished" "$large"
        mv "$index/unfinished" "$index/ours-$large"
    fi
    if [ ! -e "$index/peer-$large" ]; then
        # With our centroids for the larger corpus, as many as it should have by either engine's rule.
        "$binary" build peer "$vectors" "$work/peer" "$index/ours-$large"
        "$binary" splice peer "$work/peer" "$index/unfinished" "$large"
        mv "$index/unfinished" "$index/peer-$large"
    fi
    RAYON_NUM_THREADS=1 "$binary" search "$vectors" "$index/ours-$large" "$index/peer-$large" "$questions"
    RAYON_NUM_THREADS=1 "$binary" curve "$vectors" "$index/ours-$large" "$questions"
    for engine in ours peer; do
        cp -r "$index/$engine-$large" "$work/added"
        "$binary" add $engine "$vectors" "$work/added"
        rm -r "$work/added"
    done
}

case ${1:-} in
    kernels) [ $# -eq 1 ] || usage ;;
    late) [ $# -eq 2 ] || usage ;;
    training | generation) [ $# -ge 2 ] && [ $# -le 3 ] || usage ;;
    trajectories) [ $# -ge 4 ] && [ $# -le 5 ] || usage ;;
    *) usage ;;
esac
"$@"
