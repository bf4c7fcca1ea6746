"""Trajectories a minute over transformers `generate`, one call at a time as the reference code does, for the work that
`exsearch sample` did.

    python serial_transformers.py MODEL TRAJECTORIES.jsonl --threads N [--adapter DIR] [--limit N]

Replays trajectories: for every turn of the model, `generate` is called on the whole dialogue before it and writes as many
tokens as that turn has, sampling at temperature 1 in f32 with a KV cache inside the call. What it draws is thrown away and
the recorded turn goes on, so that both sides compute dialogues of the same lengths. The adapter is merged into the model.

In the peer's favour: only `generate` is timed. Loading, retrieval, tokenizing and parsing are not, while ours counts the whole
process. Prints one JSON line.
"""
import argparse
import json
import time

import torch
from transformers import AutoModelForCausalLM, GenerationConfig


def main():
    args = arguments()
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    with open(args.trajectories) as lines:
        trajectories = [turns(json.loads(line)) for line in lines]
    chosen = evenly(trajectories, args.limit)
    model = AutoModelForCausalLM.from_pretrained(args.model, dtype=torch.float32, attn_implementation="sdpa")
    if args.adapter:
        from peft import PeftModel

        model = PeftModel.from_pretrained(model, args.adapter).merge_and_unload()
    model.eval()
    first_context, _ = next(turn for trajectory in chosen for turn in trajectory)
    generate(model, first_context, 2)
    start = time.perf_counter()
    for trajectory in chosen:
        for context, n_tokens in trajectory:
            generate(model, context, n_tokens)
    secs = time.perf_counter() - start
    print(json.dumps({
        "side": "serial transformers", "n_trajectories": len(chosen), "secs": secs,
        "tokens_a_trajectory": sampled_tokens(chosen), "tokens_a_trajectory_of_all": sampled_tokens(trajectories),
        "turns_a_trajectory": sum(map(len, chosen)) / len(chosen),
        "turns_a_trajectory_of_all": sum(map(len, trajectories)) / len(trajectories),
        "context_tokens_a_turn": context_tokens(chosen), "context_tokens_a_turn_of_all": context_tokens(trajectories),
    }))


def turns(trajectory):
    """A (context ids, tokens to write) for each turn that the model wrote; a select turn is a chat of its own."""
    selections = [step["select"]["segments"] for step in trajectory["steps"] if step.get("select")]
    found = []
    for segments in [trajectory["segments"], *selections]:
        context = []
        for segment in segments:
            if segment["author"] == "model":
                found.append((list(context), len(segment["ids"])))
            context += segment["ids"]
    return found


@torch.inference_mode()
def generate(model, context, n_tokens):
    # min_new_tokens keeps a turn from ending early. top_k=0 and top_p=1: the model as it is, like ours.
    config = GenerationConfig(
        do_sample=True, temperature=1.0, top_k=0, top_p=1.0, min_new_tokens=n_tokens, max_new_tokens=n_tokens,
        eos_token_id=model.generation_config.eos_token_id, pad_token_id=0,
    )
    ids = torch.tensor([context])
    written = model.generate(ids, attention_mask=torch.ones_like(ids), generation_config=config)
    assert written.shape[1] == len(context) + n_tokens, f"{written.shape[1] - len(context)} tokens, not {n_tokens}"


def evenly(rows, limit):
    """At most `limit` rows, spread over all of them: trajectories of one question lie side by side."""
    if limit is None or limit >= len(rows):
        return rows
    return [rows[idx * len(rows) // limit] for idx in range(limit)]


def sampled_tokens(trajectories):
    return sum(n_tokens for trajectory in trajectories for _, n_tokens in trajectory) / len(trajectories)


def context_tokens(trajectories):
    lengths = [len(context) for trajectory in trajectories for context, _ in trajectory]
    return sum(lengths) / len(lengths)


def arguments():
    parser = argparse.ArgumentParser()
    parser.add_argument("model")
    parser.add_argument("trajectories")
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--adapter")
    parser.add_argument("--limit", type=int)
    return parser.parse_args()


if __name__ == "__main__":
    main()
