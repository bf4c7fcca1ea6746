"""Loads what interop.rs wrote with the real transformers and PEFT and prints the logits.

    python interop.py CASES.json

CASES.json is a list of {model, adapter (a folder or null), ids}; printed is a list of logits, flat [t * v], in its order.
"""
import json
import sys

import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM


def main():
    with open(sys.argv[1]) as text:
        cases = json.load(text)
    print(json.dumps([logits(case) for case in cases]))


@torch.inference_mode()
def logits(case):
    model, report = AutoModelForCausalLM.from_pretrained(case["model"], dtype=torch.float32, output_loading_info=True)
    # transformers only warns where a checkpoint's tensors and the model's do not fit and fills up with random ones.
    assert not any(report.values()), f"{case['model']}: {report}"
    if case["adapter"]:
        model = PeftModel.from_pretrained(model, case["adapter"])
    return model.eval()(torch.tensor([case["ids"]])).logits.flatten().tolist()


if __name__ == "__main__":
    main()
