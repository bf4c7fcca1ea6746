"""Writes the golden files of the decoder's tests: two tiny random Llama checkpoints and what transformers computes.

Made with torch 2.15.0, transformers 5.23.0 (attn_implementation="eager"), peft 0.21.2, on one CPU thread:
    python crates/model/tests/golden/make_llama.py
writes llama_tied/ and llama_untied/ beside this script, each with config.json, model.safetensors (f32), golden.json and
adapter/ (PEFT's format, the LoRA weights before the first step).

golden.json
  input_ids          batch of two rows of equal length
  logit_positions    positions whose logits are kept, the same for both rows
  logits             [row][position][vocabulary]
  logprobs           [row][t] = log p(input_ids[t+1] | input_ids[..=t]), in nats
  greedy             for prompt = row 0's first `prompt_length` ids: the 20 ids that greedy decoding gives
  steps.loss         loss = sum_rows weight_row * sum_t mask_{t+1} * nll_t / sum_rows sum_t mask_{t+1}
                     (mask as long as the row, its first value unused; weight counts in the numerator only)
  steps.grad_norm    L2 norm over all trained parameters before clipping to norm 1.0
  full / lora        two AdamW steps each (lr 1e-3, betas .9/.999, eps 1e-8, weight_decay 0.01), and the logits of row 0 at
                     the last position after both steps
"""
import json
import pathlib

import torch
from peft import LoraConfig, get_peft_model
from transformers import LlamaConfig, LlamaForCausalLM

HERE = pathlib.Path(__file__).parent
PROJECTIONS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
POSITIONS = [0, 1, 7, 18, 23]


def main():
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    # Rows of 320 x 64 twice would pass the size limit for two f32 checkpoints, so the untied one is narrower.
    tied = dict(hidden_size=64, intermediate_size=128, num_attention_heads=4, num_key_value_heads=2, head_dim=16,
                vocab_size=320, tie_word_embeddings=True, rope_parameters={"rope_type": "default", "rope_theta": 100000.0})
    llama3 = {"rope_type": "llama3", "rope_theta": 10000.0, "factor": 8.0, "low_freq_factor": 1.0,
              "high_freq_factor": 4.0, "original_max_position_embeddings": 16}
    # head_dim * heads (48) differs from hidden_size (32) here.
    untied = dict(hidden_size=32, intermediate_size=96, num_attention_heads=4, num_key_value_heads=1, head_dim=12,
                  vocab_size=320, tie_word_embeddings=False, rope_parameters=llama3)
    make("llama_tied", 1, tied)
    make("llama_untied", 2, untied)


def make(name, seed, shape):
    torch.manual_seed(seed)
    folder = HERE / name
    config = LlamaConfig(num_hidden_layers=2, rms_norm_eps=1e-5, max_position_embeddings=256, bos_token_id=1,
                         eos_token_id=2, initializer_range=0.2, attn_implementation="eager", **shape)
    model = LlamaForCausalLM(config).eval()
    with torch.no_grad():
        for key, weight in model.named_parameters():
            if "norm" in key:
                weight.uniform_(0.5, 1.5)
    model.save_pretrained(folder)
    generator = torch.Generator().manual_seed(seed + 100)
    ids = torch.randint(3, config.vocab_size, (2, 24), generator=generator)
    mask = torch.zeros(2, 24)
    mask[0, 5:12] = 1
    mask[0, 20:] = 1
    mask[1, 9:] = 1
    weights = torch.tensor([0.75, 0.25])
    with torch.no_grad():
        logits = model(ids).logits
        logprobs = logits.log_softmax(-1)[:, :-1].gather(-1, ids[:, 1:, None])[..., 0]
        greedy = ids[:1, :8]
        for _ in range(20):
            greedy = torch.cat([greedy, model(greedy).logits[:, -1:].argmax(-1)], 1)
    golden = {
        "versions": {"torch": torch.__version__},
        "input_ids": ids.tolist(), "logit_positions": POSITIONS,
        "logits": logits[:, POSITIONS].tolist(), "logprobs": logprobs.tolist(),
        "prompt_length": 8, "greedy": greedy[0, 8:].tolist(),
        "loss_mask": mask.int().tolist(), "weights": weights.tolist(),
        "optimizer": {"lr": 1e-3, "betas": [0.9, 0.999], "eps": 1e-8, "weight_decay": 0.01, "max_grad_norm": 1.0},
        "full": train(LlamaForCausalLM.from_pretrained(folder, attn_implementation="eager"), ids, mask, weights),
        "lora": lora(folder, seed, ids, mask, weights),
    }
    (folder / "golden.json").write_text(json.dumps(golden) + "\n")


def lora(folder, seed, ids, mask, weights):
    torch.manual_seed(seed + 200)
    model = LlamaForCausalLM.from_pretrained(folder, attn_implementation="eager")
    model = get_peft_model(model, LoraConfig(r=4, lora_alpha=8, lora_dropout=0.0, target_modules=PROJECTIONS,
                                             task_type="CAUSAL_LM"))
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
    steps = []
    for _ in range(2):
        nll = -model(ids).logits.log_softmax(-1)[:, :-1].gather(-1, ids[:, 1:, None])[..., 0]
        counted = mask[:, 1:]
        loss = (weights[:, None] * counted * nll).sum() / counted.sum()
        optimizer.zero_grad()
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        steps.append({"loss": loss.item(), "grad_norm": norm.item()})
    model.eval()
    with torch.no_grad():
        after = model(ids[:1]).logits[0, -1]
    return {"steps": steps, "logits_after": after.tolist()}


if __name__ == "__main__":
    main()
