"""The lines of llama-batched-bench to one line of the form that benches/generation prints.

    llama-batched-bench ... --output-format jsonl | python llama_lines.py SIDE GGUF
"""
import json
import os
import sys

runs = [json.loads(line) for line in sys.stdin if line.startswith("{")]
first = runs[0]
print(json.dumps({
    "side": sys.argv[1], "batch": first["pl"], "weight_bytes": os.path.getsize(sys.argv[2]),
    "prefill_tokens": first["pl"] * first["pp"], "prefill_secs": [run["t_pp"] for run in runs],
    "decode_tokens": first["pl"] * first["tg"], "decode_secs": [run["t_tg"] for run in runs],
}))
