"""Tokens a second of transformers, prefill and decoding apart, for one batch size a process: the peer of src/main.rs, with the
same ids, greedy choices and output (one JSON line).

    python torch_generate.py MODEL BATCH PROMPT_TOKENS NEW_TOKENS --threads N

f32, sdpa attention, the model called directly with its KV cache: faster than `generate`, which adds its own work a token.
"""
import argparse
import json
import time

import torch
from transformers import AutoModelForCausalLM

N_REPEATS = 3


@torch.inference_mode()
def main():
    args = arguments()
    torch.set_num_threads(args.threads)
    model = AutoModelForCausalLM.from_pretrained(args.model, dtype=torch.float32, attn_implementation="sdpa").eval()
    prompts = ids(args.batch, args.prompt, model.config.vocab_size)
    prefill_secs, decode_secs = [], []
    for _ in range(N_REPEATS):
        start = time.perf_counter()
        output = model(prompts, use_cache=True, logits_to_keep=1)
        last = output.logits[:, -1].argmax(-1, keepdim=True)
        prefill_secs.append(time.perf_counter() - start)
        first = [last[0].item()]
        cache = output.past_key_values
        start = time.perf_counter()
        for _ in range(args.new - 1):
            last = model(last, past_key_values=cache, use_cache=True).logits[:, -1].argmax(-1, keepdim=True)
            first.append(last[0].item())
        decode_secs.append(time.perf_counter() - start)
    print(json.dumps({
        "side": "transformers", "batch": args.batch, "prefill_tokens": args.batch * args.prompt,
        "prefill_secs": prefill_secs, "decode_tokens": args.batch * (args.new - 1), "decode_secs": decode_secs,
        "first_ids": first,
    }))


def ids(batch, length, vocabulary):
    """The ids of main.rs: Knuth's MMIX generator."""
    state, drawn = 42, []
    for _ in range(batch * length):
        state = (state * 6364136223846793005 + 1442695040888963407) % 2**64
        drawn.append((state >> 33) % vocabulary)
    return torch.tensor(drawn).view(batch, length)


def arguments():
    parser = argparse.ArgumentParser()
    parser.add_argument("model")
    parser.add_argument("batch", type=int)
    parser.add_argument("prompt", type=int)
    parser.add_argument("new", type=int)
    parser.add_argument("--threads", type=int, required=True)
    return parser.parse_args()


if __name__ == "__main__":
    main()
