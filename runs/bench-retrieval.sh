#!/usr/bin/env bash
# Measures retrieval: the late-interaction index beside next-plaid on the same token vectors.
#
#   runs/bench-retrieval.sh MODEL PASSAGES QUESTIONS WORK [PYTHON]
#
# MODEL is an HF folder of all-MiniLM-L6-v2, PASSAGES a passages.tsv of at least 10,000 rows, QUESTIONS a file of questions with
# one JSON object a line, WORK a folder for vectors and indexes (1 GB; 15 GB with LARGE), PYTHON an interpreter with torch and
# transformers. From the environment: LARGE (500000 for the spliced corpus), PARTS (what is run again, each by itself: see
# runs/bench.sh), THREADS, N_QUESTIONS, N_LARGE_QUESTIONS.
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
if [ $# -lt 4 ] || [ $# -gt 5 ]; then
    sed -n 's/^#   //p' "$0" >&2
    exit 2
fi
model=$1 passages=$2 questions=$3 work=$4 python=${5:-python3}

if [ ! -e "$work/passages.lens" ]; then
    "$python" "$root/benches/late/encode.py" "$model" "$passages" "$questions" "$work" --threads "${THREADS:-$(nproc)}"
fi
"$root/runs/bench.sh" late "$work"
