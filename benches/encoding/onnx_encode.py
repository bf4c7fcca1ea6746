"""Passages a CPU-second of onnxruntime: the side of src/main.rs that is the peer's. One JSON line for each way to run it.

    python onnx_encode.py MODEL PASSAGES.tsv N THREADS REPEATS WORK

MODEL is exported to ONNX once, into WORK, as it is and fused by onnxruntime's own optimizer for BERT (`fused`, where this
version of it can), and with INT8 in the environment quantized to int8 (dynamically, a scale a channel). Batches hold passages of
similar length, padded to the longest; the sizes tried are 8 and 32. Needs torch, transformers, onnx, onnxscript and onnxruntime.
"""
import csv
import json
import os
import pathlib
import sys
import time

import numpy as np
import onnxruntime
from tokenizers import Tokenizer


def main():
    model, passages, n, threads, repeats, work = sys.argv[1:]
    texts = spread(passages, int(n))
    tokenizer = Tokenizer.from_file(f"{model}/tokenizer.json")
    tokenizer.no_padding()
    tokenizer.enable_truncation(json.loads(pathlib.Path(model, "sentence_bert_config.json").read_text())["max_seq_length"])
    for name, path in export(model, pathlib.Path(work)).items():
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = int(threads)
        options.inter_op_num_threads = 1
        # Spinning threads would be counted as CPU time; without it onnxruntime uses less of it.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        for batch in (8, 32):
            encode(session, tokenizer, texts[:8], batch)
            cpu_secs, wall_secs = [], []
            for _ in range(int(repeats)):
                start, cpu = time.perf_counter(), time.process_time()
                vectors = encode(session, tokenizer, texts, batch)
                cpu_secs.append(time.process_time() - cpu)
                wall_secs.append(time.perf_counter() - start)
            print(json.dumps({
                "side": f"onnxruntime {name}, batch {batch}", "threads": threads, "n_passages": len(texts),
                "cpu_secs": cpu_secs, "wall_secs": wall_secs, "vectors": vectors.tolist(),
            }), flush=True)


def spread(path, n):
    """The passages of `spread` in src/main.rs."""
    with open(path, newline="") as lines:
        rows = list(csv.reader(lines, delimiter="\t"))[1:]
    step = max(len(rows) // n, 1)
    return [f"{title} | {text}" for _, text, title in rows[::step][:n]]


def export(model, work):
    plain, fused = work / "plain.onnx", work / "fused.onnx"
    if not plain.exists():
        import torch
        from transformers import AutoModel

        class Hidden(torch.nn.Module):
            def __init__(self):
                super().__init__()
                self.bert = AutoModel.from_pretrained(model, attn_implementation="eager").eval()

            def forward(self, input_ids, attention_mask, token_type_ids):
                return self.bert(input_ids, attention_mask, token_type_ids).last_hidden_state

        names = ["input_ids", "attention_mask", "token_type_ids"]
        example = tuple(torch.ones(2, 16, dtype=torch.long) for _ in names)
        axes = {name: {0: "batch", 1: "length"} for name in [*names, "hidden"]}
        torch.onnx.export(Hidden(), example, str(plain), input_names=names, output_names=["hidden"], dynamic_axes=axes,
                          dynamo=False, opset_version=17)
    paths = {"plain": str(plain)}
    if os.environ.get("INT8"):
        int8 = work / "int8.onnx"
        if not int8.exists():
            from onnxruntime.quantization import QuantType, quantize_dynamic
            quantize_dynamic(str(plain), str(int8), weight_type=QuantType.QInt8, per_channel=True)
        paths["int8"] = str(int8)
    if not fused.exists():
        from onnxruntime.transformers import optimizer
        config = json.loads(pathlib.Path(model, "config.json").read_text())
        result = optimizer.optimize_model(str(plain), model_type="bert", num_heads=config["num_attention_heads"],
                                          hidden_size=config["hidden_size"])
        print("fused:", result.get_fused_operator_statistics(), file=sys.stderr)
        result.save_model_to_file(str(fused))
    return paths | {"fused": str(fused)}


def encode(session, tokenizer, texts, batch):
    ids = [encoding.ids for encoding in tokenizer.encode_batch(texts)]
    order = sorted(range(len(ids)), key=lambda idx: -len(ids[idx]))
    vectors = None
    for start in range(0, len(order), batch):
        rows = order[start:start + batch]
        longest = max(len(ids[idx]) for idx in rows)
        inputs, mask = np.zeros((2, len(rows), longest), np.int64)
        for row, idx in enumerate(rows):
            inputs[row, :len(ids[idx])] = ids[idx]
            mask[row, :len(ids[idx])] = 1
        feeds = {"input_ids": inputs, "attention_mask": mask, "token_type_ids": np.zeros_like(inputs)}
        hidden = session.run(None, feeds)[0]
        pooled = (hidden * mask[:, :, None].astype(np.float32)).sum(1) / mask.sum(1)[:, None]
        pooled /= np.linalg.norm(pooled, axis=1, keepdims=True)
        if vectors is None:
            vectors = np.zeros((len(ids), pooled.shape[1]), np.float32)
        vectors[rows] = pooled
    return vectors


if __name__ == "__main__":
    main()
