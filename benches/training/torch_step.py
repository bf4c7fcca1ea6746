"""Seconds an optimizer step and peak memory of torch + transformers (+ peft), for one method and size a process: the peer of
src/main.rs, with the same ids, settings and output (one JSON line).

    python torch_step.py MODEL (lora|full) BATCH LENGTH STEPS --threads N [--start-adapter DIR] [--fused] [--accumulate]
        [--checkpointing]

f32, sdpa attention, no gradient checkpointing unless asked for, AdamW with torch's defaults for CPU. --start-adapter is what
`exsearch-bench-training MODEL start-adapter DIR` wrote; without it LoRA starts from peft's own draw and only the first loss
can be compared. --fused takes torch's fused AdamW. --accumulate computes one sequence at a time and adds the gradients, as
ours does: less memory, the same loss. --checkpointing keeps each layer's input alone and computes the layer again.
"""
import argparse
import json
import time

import torch
from transformers import AutoModelForCausalLM

PROJECTIONS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


def main():
    args = arguments()
    torch.set_num_threads(args.threads)
    torch.manual_seed(42)
    library_bytes = memory_bytes("VmRSS")
    model = AutoModelForCausalLM.from_pretrained(args.model, dtype=torch.float32, attn_implementation="sdpa")
    model.config.use_cache = False
    rows = ids(args.batch, args.length, model.config.vocab_size)
    if args.method == "lora":
        model = with_adapter(model, args.start_adapter)
    if args.checkpointing:
        model.gradient_checkpointing_enable({"use_reentrant": False})
    model.train()
    parameters = [it for it in model.parameters() if it.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=1e-4, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.01, fused=args.fused)
    losses, step_secs = [], []
    for _ in range(args.steps + 1):
        start = time.perf_counter()
        losses.append(step(model, rows, parameters, optimizer, 1 if args.accumulate else args.batch))
        step_secs.append(time.perf_counter() - start)
    # The first step allocates the gradients and moments and is not counted.
    print(json.dumps({
        "side": "torch", "config": f"{args.method} {args.batch}x{args.length}{' checkpointed' if args.checkpointing else ''}", "losses": losses,
        "step_secs": step_secs[1:], "peak_bytes": memory_bytes("VmHWM"), "library_bytes": library_bytes,
    }))


def step(model, rows, parameters, optimizer, rows_at_once):
    optimizer.zero_grad(set_to_none=True)
    total = 0.0
    for part in rows.split(rows_at_once):
        inputs, targets = part[:, :-1], part[:, 1:]
        logits = model(inputs).logits
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), targets.flatten())
        loss = loss * len(part) / len(rows)
        # The logits are the largest tensor; without this they would live through the backward pass.
        del logits
        loss.backward()
        total += loss.item()
    torch.nn.utils.clip_grad_norm_(parameters, 1.0)
    optimizer.step()
    return total


def with_adapter(model, start_adapter):
    from peft import LoraConfig, PeftModel, get_peft_model

    if start_adapter:
        return PeftModel.from_pretrained(model, start_adapter, is_trainable=True)
    return get_peft_model(model, LoraConfig(r=16, lora_alpha=32, lora_dropout=0.0, target_modules=PROJECTIONS))


def ids(batch, length, vocabulary):
    """The ids of main.rs: Knuth's MMIX generator."""
    state, drawn = 42, []
    for _ in range(batch * (length + 1)):
        state = (state * 6364136223846793005 + 1442695040888963407) % 2**64
        drawn.append((state >> 33) % vocabulary)
    return torch.tensor(drawn).view(batch, length + 1)


def memory_bytes(field):
    """VmHWM: the most memory that the process ever held, mapped files included; VmRSS: what it holds now."""
    with open("/proc/self/status") as status:
        line = next(line for line in status if line.startswith(field + ":"))
    return int(line.split()[1]) * 1024


def arguments():
    parser = argparse.ArgumentParser()
    parser.add_argument("model")
    parser.add_argument("method", choices=["lora", "full"])
    parser.add_argument("batch", type=int)
    parser.add_argument("length", type=int)
    parser.add_argument("steps", type=int)
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--start-adapter")
    parser.add_argument("--fused", action="store_true")
    parser.add_argument("--accumulate", action="store_true")
    parser.add_argument("--checkpointing", action="store_true")
    return parser.parse_args()


if __name__ == "__main__":
    main()
