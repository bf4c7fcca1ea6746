"""Token vectors of MiniLM, projected to 128 dimensions: passages.tsv and questions.jsonl in, raw little-endian files out.

Writes {out}/passages.f32 (n_tokens x 128), {out}/passages.lens (i32 a passage), {out}/questions.f32, {out}/questions.lens.
The map is 128 orthonormal columns from a seeded QR decomposition; projected vectors have length 1. Passages are cut at 180
tokens. The encoder runs under bfloat16 autocast: these vectors are for measuring indexes, not retrieval quality.
"""
import argparse
import csv
import json
import pathlib

import numpy as np
import torch
from transformers import AutoModel, AutoTokenizer

DIM = 128


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", help="an HF folder of all-MiniLM-L6-v2")
    parser.add_argument("passages", type=pathlib.Path)
    parser.add_argument("questions", type=pathlib.Path)
    parser.add_argument("out", type=pathlib.Path)
    parser.add_argument("--n-passages", type=int, default=10_000)
    parser.add_argument("--n-questions", type=int, default=300)
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    tokenizer = AutoTokenizer.from_pretrained(args.model)
    model = AutoModel.from_pretrained(args.model).eval()
    basis, _ = np.linalg.qr(np.random.default_rng(0).standard_normal((model.config.hidden_size, DIM)))
    basis = torch.from_numpy(basis.astype(np.float32))
    args.out.mkdir(parents=True, exist_ok=True)
    with args.passages.open(newline="") as file:
        rows = csv.reader(file, delimiter="\t")
        next(rows)
        passages = [f"{title} | {text}" for (_, text, title), _ in zip(rows, range(args.n_passages))]
    questions = [json.loads(line)["question"] for line in args.questions.open()][: args.n_questions]
    for name, texts in (("questions", questions), ("passages", passages)):
        vectors = encode(texts, tokenizer, model, basis)
        np.concatenate(vectors).tofile(args.out / f"{name}.f32")
        np.array([len(rows) for rows in vectors], np.int32).tofile(args.out / f"{name}.lens")
        print(name, len(vectors), "texts", sum(map(len, vectors)), "vectors", flush=True)


@torch.no_grad()
def encode(texts, tokenizer, model, basis, batch_size=32):
    """The vectors of each text, n_tokens x 128."""
    vectors = [None] * len(texts)
    order = sorted(range(len(texts)), key=lambda idx: len(texts[idx]))
    for start in range(0, len(order), batch_size):
        idxs = order[start : start + batch_size]
        batch = tokenizer([texts[idx] for idx in idxs], return_tensors="pt", padding=True, truncation=True, max_length=180)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            hidden = model(**batch).last_hidden_state
        hidden = torch.nn.functional.normalize(hidden.float() @ basis, dim=-1).numpy()
        for row, idx in enumerate(idxs):
            vectors[idx] = hidden[row, : int(batch["attention_mask"][row].sum())]
    return vectors


if __name__ == "__main__":
    main()
