#!/usr/bin/env bash
# Loads what we write with the real transformers and PEFT. Not part of the gate: torch alone is several GB.
#
#   runs/interop.sh [PYTHON]     an interpreter with torch, transformers and peft (default python3)
set -euo pipefail
cd "$(dirname "$0")/.."
EXSEARCH_TEST_PYTHON=${1:-python3} cargo test -p exsearch-cli --test interop -- --ignored --nocapture
