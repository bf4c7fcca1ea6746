"""Writes quants.json and the GGUF files for the tests of the GGUF reader.

Made with the PyPI package gguf (see "version" in quants.json) and numpy:
    python crates/model/tests/golden/make_gguf.py
quants.json: per kind, random blocks as hexadecimal bytes (valid half-precision scales) and gguf.quants.dequantize of them.
tiny_llama.gguf: the checkpoint in llama_tied/ as a GGUF file with f16 and f32 tensors, q and k permuted as llama.cpp's
converter does, and tiny_tokenizer/ as its vocabulary. llama_tied/ has 320 embedding rows; the first 320 tokens are kept.
tiny_llama3.gguf: one layer of zeros with Llama 3.2's rope (theta 500000, factor 32), whose divisors convert_hf_to_gguf.py
writes as the tensor rope_freqs.weight, and an output matrix of its own in Q8_0.
tiny_qwen2.gguf, tiny_qwen3.gguf, tiny_gemma3.gguf: the checkpoints in qwen2/, qwen3/ and gemma3/, with the first 80 tokens of
tiny_tokenizer/. Neither windows of Qwen nor YaRN are in a GGUF file; Gemma's norms have 1 added, as llama.cpp's converter does.
"""
import importlib.metadata
import json
import pathlib

import gguf
import numpy as np
from gguf import GGMLQuantizationType as Kind
from safetensors.numpy import load_file

HERE = pathlib.Path(__file__).parent
# Where a block has half-precision numbers.
SCALES = {"Q4_0": [0], "Q4_1": [0, 2], "Q5_0": [0], "Q5_1": [0, 2], "Q8_0": [0], "Q4_K": [0, 2], "Q5_K": [0, 2],
          "Q6_K": [208], "F16": [0], "BF16": []}


def main():
    quants()
    config = json.loads((HERE / "llama_tied/config.json").read_text())
    tiny(HERE / "tiny_llama.gguf", "llama", config, load_file(HERE / "llama_tied/model.safetensors"), "smollm")
    tiny_llama3()
    for name in ["qwen2", "qwen3", "gemma3"]:
        config = json.loads((HERE / name / "config.json").read_text())
        config.setdefault("head_dim", config["hidden_size"] // config["num_attention_heads"])
        tensors = load_file(HERE / name / "model.safetensors")
        if name == "gemma3":
            tensors = {key: tensor + 1 if key.endswith("norm.weight") else tensor for key, tensor in tensors.items()}
            config["rope_parameters"] = config["rope_parameters"]["full_attention"]
        tiny(HERE / f"tiny_{name}.gguf", name, config, tensors, "qwen2" if name != "gemma3" else "default")


def quants():
    rng = np.random.default_rng(7)
    golden = {"version": importlib.metadata.version("gguf"), "kinds": {}}
    for name, scales in SCALES.items():
        n_numbers, n_bytes = gguf.GGML_QUANT_SIZES[Kind[name]]
        n_blocks = 2 if n_numbers == 256 else 4
        if n_numbers == 1:
            values = rng.normal(size=16).astype(np.float32)
            raw = gguf.quants.quantize(values, Kind[name]).view(np.uint8).reshape(1, -1)
        else:
            raw = rng.integers(0, 256, (n_blocks, n_bytes), dtype=np.uint8)
            for start in scales:
                raw[:, start:start + 2] = rng.normal(0, 0.02, (n_blocks, 1)).astype(np.float16).view(np.uint8)
        numbers = gguf.quants.dequantize(raw, Kind[name]).astype(np.float32)
        golden["kinds"][name] = {"bytes": raw.tobytes().hex(), "numbers": numbers.flatten().tolist()}
    (HERE / "quants.json").write_text(json.dumps(golden) + "\n")


def tiny_llama3():
    theta, factor, low, high, original, head_dim, n = 500000.0, 32.0, 1.0, 4.0, 8192, 64, 64
    divisors = []
    for frequency in 1.0 / theta ** (np.arange(0, head_dim, 2) / head_dim):
        wavelength = 2 * np.pi / frequency
        smooth = (original / wavelength - low) / (high - low)
        if wavelength < original / high:
            divisors.append(1.0)
        elif wavelength > original / low:
            divisors.append(factor)
        else:
            divisors.append(1 / ((1 - smooth) / factor + smooth))
    config = {"vocab_size": 320, "hidden_size": n, "num_hidden_layers": 1, "intermediate_size": n, "head_dim": head_dim,
              "num_attention_heads": 1, "num_key_value_heads": 1, "max_position_embeddings": 131072,
              "rope_parameters": {"rope_theta": theta}, "rms_norm_eps": 1e-5}
    matrices = [f"self_attn.{part}_proj" for part in "qkvo"] + [f"mlp.{part}_proj" for part in ["gate", "up", "down"]]
    tensors = {f"model.layers.0.{name}.weight": np.zeros((n, n), np.float32) for name in matrices}
    for name in ["model.norm", "model.layers.0.input_layernorm", "model.layers.0.post_attention_layernorm"]:
        tensors[f"{name}.weight"] = np.ones(n, np.float32)
    tensors["model.embed_tokens.weight"] = np.zeros((320, n), np.float32)
    tensors["lm_head.weight"] = np.repeat(np.arange(320, dtype=np.float32)[:, None], n, 1)
    tiny(HERE / "tiny_llama3.gguf", "llama", config, tensors, "llama-bpe", np.array(divisors, np.float32))


def tiny(path, arch, config, tensors, pre, divisors=None):
    tokenizer = json.loads((HERE / "tiny_tokenizer/tokenizer.json").read_text())
    ids = {id: token for token, id in tokenizer["model"]["vocab"].items() if id < config["vocab_size"]}
    tokens = [ids[id] for id in range(config["vocab_size"])]
    merges = [" ".join(merge) for merge in tokenizer["model"]["merges"] if "".join(merge) in tokens]
    if not merges:
        # 80 tokens are bytes only, and the writer leaves out an empty list: the last token becomes a merge of two others.
        merges, tokens[-1] = [f"{tokens[3]} {tokens[4]}"], tokens[3] + tokens[4]
    writer = gguf.GGUFWriter(path, arch)
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_rope_dimension_count(config["head_dim"])
    if arch != "llama":
        writer.add_key_length(config["head_dim"])
    if arch == "gemma3":
        writer.add_sliding_window(config["sliding_window"])
        writer.add_rope_scaling_type(gguf.RopeScalingType.LINEAR)
        writer.add_rope_scaling_factor(config["rope_parameters"]["factor"])
    writer.add_rope_freq_base(config["rope_parameters"]["rope_theta"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(pre)
    writer.add_token_list(tokens)
    writer.add_token_merges(merges)
    writer.add_token_types([3] * 3 + [1] * (len(tokens) - 3))
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_chat_template((HERE / "templates/smollm2.jinja").read_text())
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH[arch.upper()], config["num_hidden_layers"])
    for name, weight in tensors.items():
        for part, n_heads in [("q_proj", config["num_attention_heads"]), ("k_proj", config["num_key_value_heads"])]:
            if part in name and arch == "llama":
                shape = (n_heads, 2, weight.shape[0] // n_heads // 2, weight.shape[1])
                weight = weight.reshape(shape).swapaxes(1, 2).reshape(weight.shape)
        gguf_name = names.get_name(name, try_suffixes=(".weight", ".bias"))
        if name == "lm_head.weight" and arch == "llama":
            writer.add_tensor(gguf_name, gguf.quants.quantize(weight, Kind.Q8_0), raw_dtype=Kind.Q8_0)
            continue
        dtype = np.float16 if weight.ndim == 2 else np.float32
        writer.add_tensor(gguf_name, np.ascontiguousarray(weight.astype(dtype)))
    if divisors is not None:
        writer.add_tensor("rope_freqs.weight", divisors)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


if __name__ == "__main__":
    main()
