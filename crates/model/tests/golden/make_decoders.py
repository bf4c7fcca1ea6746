"""Writes the golden files of the decoder's tests: tiny random checkpoints of every family and what transformers computes.

Made with torch 2.15.0, transformers 5.23.0 (attn_implementation="eager"), peft 0.21.2, on one CPU thread:
    python crates/model/tests/golden/make_decoders.py [NAME...]
writes a folder for each name (all of CASES without one) beside this script, each with config.json, model.safetensors (f32),
golden.json and adapter/ (PEFT's format, the LoRA weights before the first step).

golden.json
  input_ids          batch of two rows of equal length
  logit_positions    positions whose logits are kept, the same for both rows
  logits             [row][position][vocabulary]
  logprobs           [row][t] = log p(input_ids[t+1] | input_ids[..=t]), in nats
  greedy             for prompt = row 0's first `prompt_length` ids: the 20 ids that greedy decoding gives
  steps.loss         loss = sum_rows weight_row * sum_t mask_{t+1} * nll_t / sum_rows sum_t mask_{t+1}
                     (mask as long as the row, its first value unused; weight counts in the numerator only)
  steps.grad_norm    L2 norm over all trained parameters before clipping to norm 1.0
  full / lora        twenty AdamW steps each (lr 1e-3, betas .9/.999, eps 1e-8, weight_decay 0.01), and the logits of row 0 at
                     the last position after the first two
"""
import json
import pathlib
import sys

import torch
import transformers
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM

HERE = pathlib.Path(__file__).parent
PROJECTIONS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]

# By name: the seed, the length of the rows, the class of the configuration and its fields.
# Rows of 320 x 64 twice would pass the size limit for two f32 checkpoints, so the untied one is narrower; in it
# head_dim * heads (48) differs from hidden_size (32). Rows of 100 tokens pass the decoder's blocks of 64 queries and 32 keys,
# so that windows leave whole blocks out.
SMALL = dict(hidden_size=24, intermediate_size=40, num_attention_heads=3, vocab_size=80, initializer_range=0.4)
CASES = {
    "llama_tied": (1, 24, "LlamaConfig", dict(
        hidden_size=64, intermediate_size=128, num_attention_heads=4, num_key_value_heads=2, head_dim=16, vocab_size=320,
        tie_word_embeddings=True, rope_parameters={"rope_type": "default", "rope_theta": 100000.0})),
    "llama_untied": (2, 24, "LlamaConfig", dict(
        hidden_size=32, intermediate_size=96, num_attention_heads=4, num_key_value_heads=1, head_dim=12, vocab_size=320,
        tie_word_embeddings=False, rope_parameters={
            "rope_type": "llama3", "rope_theta": 10000.0, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
            "original_max_position_embeddings": 16})),
    "llama_biased": (3, 24, "LlamaConfig", dict(
        SMALL, num_key_value_heads=3, attention_bias=True, mlp_bias=True, tie_word_embeddings=True,
        rope_parameters={"rope_type": "dynamic", "rope_theta": 10000.0, "factor": 2.0})),
    "mistral": (4, 100, "MistralConfig", dict(
        SMALL, num_key_value_heads=1, head_dim=12, sliding_window=20, tie_word_embeddings=False,
        rope_parameters={"rope_type": "linear", "rope_theta": 10000.0, "factor": 2.0})),
    "qwen2": (5, 100, "Qwen2Config", dict(
        SMALL, num_key_value_heads=1, use_sliding_window=True, sliding_window=9, max_window_layers=1,
        tie_word_embeddings=False, rope_parameters={
            "rope_type": "yarn", "rope_theta": 10000.0, "factor": 4.0, "original_max_position_embeddings": 64})),
    "qwen3": (6, 24, "Qwen3Config", dict(
        SMALL, num_key_value_heads=1, head_dim=10, tie_word_embeddings=True,
        rope_parameters={"rope_type": "default", "rope_theta": 10000.0})),
    "gemma3": (7, 100, "Gemma3TextConfig", dict(
        SMALL, num_key_value_heads=1, head_dim=12, sliding_window=33, query_pre_attn_scalar=20,
        layer_types=["sliding_attention", "sliding_attention", "full_attention"], tie_word_embeddings=True,
        rope_parameters={"full_attention": {"rope_type": "linear", "rope_theta": 1000000.0, "factor": 8.0},
                         "sliding_attention": {"rope_type": "default", "rope_theta": 10000.0}})),
}


def main():
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    for name in sys.argv[1:] or CASES:
        make(name, *CASES[name])


def make(name, seed, length, config_class, shape):
    torch.manual_seed(seed)
    folder = HERE / name
    n_layers = 2 if name in ("llama_tied", "llama_untied") else 3
    config = getattr(transformers, config_class)(
        num_hidden_layers=n_layers, rms_norm_eps=1e-5, max_position_embeddings=256, bos_token_id=1, eos_token_id=2,
        attn_implementation="eager", **{"initializer_range": 0.2, **shape})
    model = AutoModelForCausalLM.from_config(config).eval()
    # Gemma's files hold a norm's distance from 1.
    one = 0.0 if name == "gemma3" else 1.0
    with torch.no_grad():
        for key, weight in model.named_parameters():
            if name == "gemma3" and "post_" in key:
                # Its scaled embedding would drown out the layers otherwise, and a tied head repeat its input.
                weight.uniform_(1.0, 4.0)
            elif "norm" in key:
                weight.uniform_(one - 0.5, one + 0.5)
            elif key.endswith("bias"):
                weight.uniform_(-0.5, 0.5)
    model.save_pretrained(folder)
    positions = [0, 1, 7, length * 3 // 4, length - 1]
    generator = torch.Generator().manual_seed(seed + 100)
    ids = torch.randint(3, config.vocab_size, (2, length), generator=generator)
    mask = torch.zeros(2, length)
    mask[0, 5:12] = 1
    mask[0, length - 4:] = 1
    mask[1, 9:] = 1
    weights = torch.tensor([0.75, 0.25])
    n_prompt = length // 3
    with torch.no_grad():
        logits = model(ids).logits
        logprobs = logits.log_softmax(-1)[:, :-1].gather(-1, ids[:, 1:, None])[..., 0]
        greedy = ids[:1, :n_prompt]
        for _ in range(20):
            greedy = torch.cat([greedy, model(greedy).logits[:, -1:].argmax(-1)], 1)
    golden = {
        "versions": {"torch": torch.__version__},
        "input_ids": ids.tolist(), "logit_positions": positions,
        "logits": logits[:, positions].tolist(), "logprobs": logprobs.tolist(),
        "prompt_length": n_prompt, "greedy": greedy[0, n_prompt:].tolist(),
        "loss_mask": mask.int().tolist(), "weights": weights.tolist(),
        "optimizer": {"lr": 1e-3, "betas": [0.9, 0.999], "eps": 1e-8, "weight_decay": 0.01, "max_grad_norm": 1.0},
        "full": train(load(folder), ids, mask, weights),
        "lora": lora(folder, seed, ids, mask, weights),
    }
    (folder / "golden.json").write_text(json.dumps(golden) + "\n")


def load(folder):
    return AutoModelForCausalLM.from_pretrained(folder, attn_implementation="eager", dtype=torch.float32)


def lora(folder, seed, ids, mask, weights):
    torch.manual_seed(seed + 200)
    model = get_peft_model(load(folder), LoraConfig(
        r=4, lora_alpha=8, lora_dropout=0.0, target_modules=PROJECTIONS, task_type="CAUSAL_LM"))
    with torch.no_grad():
        for key, weight in model.named_parameters():
            if "lora_" in key:
                weight.normal_(0, 0.1)
    model.save_pretrained(folder / "adapter")
    (folder / "adapter" / "README.md").unlink(missing_ok=True)
    path = folder / "adapter" / "adapter_config.json"
    adapter = json.loads(path.read_text())
    # PEFT writes where the model lay on this machine, and its modules in the order of a set.
    adapter["base_model_name_or_path"] = folder.name
    adapter["target_modules"] = PROJECTIONS
    path.write_text(json.dumps(adapter, indent=2) + "\n")
    with torch.no_grad():
        before = model(ids[:1]).logits[0, -1].tolist()
    result = train(model, ids, mask, weights)
    result["logits_before"] = before
    return result


def train(model, ids, mask, weights):
    model.train()
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=1e-3, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.01)
    steps, after = [], None
    for step in range(20):
        if step == 2:
            with torch.no_grad():
                after = model(ids[:1]).logits[0, -1].tolist()
        nll = -model(ids).logits.log_softmax(-1)[:, :-1].gather(-1, ids[:, 1:, None])[..., 0]
        counted = mask[:, 1:]
        loss = (weights[:, None] * counted * nll).sum() / counted.sum()
        optimizer.zero_grad()
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        steps.append({"loss": loss.item(), "grad_norm": norm.item()})
    model.eval()
    return {"steps": steps, "logits_after": after}


if __name__ == "__main__":
    main()
