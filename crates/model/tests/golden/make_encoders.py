"""Writes the golden files of the text encoders: three tiny random BERT checkpoints and what their reference libraries compute.

Made on one CPU thread with torch 2.15.0 and
    python make_encoders.py sentence    transformers 5.23.0, sentence-transformers 6.2.0
    python make_encoders.py cross       transformers 5.23.0, sentence-transformers 6.2.0
    python make_encoders.py onnx        transformers 5.23.0, onnx 1.23.2, onnxruntime 1.31.1
    python make_encoders.py colbert     transformers 4.57.6, colbert-ai 0.2.22 (which does not work with transformers 5)
which write beside this script
  sentence/   a checkpoint as sentence-transformers saves it: mean pooling, prompts for both roles, 24 tokens at most
  cross/      a checkpoint as sentence-transformers saves a cross-encoder: BERT with a classifier of one label, 32 tokens at most
  sentence/onnx/  the checkpoint of sentence/, which must be there, as ONNX in f32 and quantized to int8
  colbert/    a checkpoint as colbert-ai saves it: BERT with a head and artifact.metadata (without the settings of training)

sentence/golden.json: `texts`, and of each its vector as a `query` and as a `passage`, both with prompts, and without a prompt
by `cls` and by `max` pooling, of length 1 each; `tokens`: the final hidden states of BertModel for the first three texts, of
length 1 each, without a prompt.
cross/golden.json: `texts`, and of each pair of them, a row a query, what CrossEncoder.predict gives (`scores`, behind a
sigmoid), and what BertForSequenceClassification gives (`logits`).
colbert/golden.json: `texts`, and of each the vectors that Checkpoint.queryFromText gives with attend_to_mask_tokens off
(`query`) and on (`query_attending`), and those of docFromText(keep_dims=False) (`passage`).
"""
import json
import pathlib
import string
import sys

import torch
import torch.nn.functional as F
from transformers import BertConfig, BertForSequenceClassification, BertModel, BertTokenizerFast

HERE = pathlib.Path(__file__).parent
TEXTS = [
    "what is the capital of france ?",
    "Paris is the capital, and the largest city, of France (population: 2,102,650).",
    "na\u00efve caf\u00e9s don't open; they're \u6771\u4eac-style!",
    "",
    "who wrote the plays of shakespeare and the sonnets and where was the house in which the city kept them until the fire of 1666 ?",
    "...",
    "\u2603 unknown",
]
WORDS = "the of and in is was what who wrote capital france paris city largest open query passage population play".split()
SETTINGS = {
    "query_token_id": "[unused0]", "doc_token_id": "[unused1]", "query_token": "[Q]", "doc_token": "[D]",
    "dim": 24, "doc_maxlen": 28, "mask_punctuation": True, "query_maxlen": 16, "attend_to_mask_tokens": False,
    "interaction": "colbert", "similarity": "cosine",
}


def main():
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    torch.manual_seed(0)
    {"sentence": sentence, "cross": cross, "onnx": onnx, "colbert": colbert}[sys.argv[1]](HERE / sys.argv[1])


def tokenizer(folder):
    """A WordPiece tokenizer that knows few words, so that most are spelled in pieces."""
    folder.mkdir(exist_ok=True)
    letters = string.ascii_lowercase + string.digits
    special = ["[PAD]", "[unused0]", "[unused1]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    pieces = special + list(string.punctuation) + list(letters) + ["##" + x for x in letters] + WORDS + ["##s", "##ed", "\u6771"]
    vocabulary = folder / "vocab.txt"
    vocabulary.write_text("\n".join(dict.fromkeys(pieces)) + "\n")
    result = BertTokenizerFast(str(vocabulary), do_lower_case=True, model_max_length=64)
    vocabulary.unlink()
    assert len(result) == len(dict.fromkeys(pieces)), "the vocabulary was read"
    return result


def randomize(model, seed):
    """Weights large enough, and norms uneven enough, for every mistake to show."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "LayerNorm.weight" in name:
                weight.copy_(torch.rand(weight.shape, generator=generator) + 0.5)
            else:
                weight.copy_(torch.randn(weight.shape, generator=generator) * 0.2)
    return model.eval()


def sentence(folder):
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Pooling

    tok = tokenizer(folder)
    config = BertConfig(vocab_size=len(tok), hidden_size=48, num_hidden_layers=2, num_attention_heads=3, intermediate_size=96,
                        max_position_embeddings=64, hidden_act="gelu", layer_norm_eps=1e-12)
    randomize(BertModel(config, add_pooling_layer=False), 1).save_pretrained(folder)
    tok.save_pretrained(folder)
    model = SentenceTransformer(str(folder), device="cpu", prompts={"query": "query: ", "document": "passage: "})
    model.max_seq_length = 24
    golden = {"texts": TEXTS}
    encode = dict(normalize_embeddings=True)
    golden["query"] = [rounded(model.encode_query(text, **encode)) for text in TEXTS]
    golden["passage"] = [rounded(model.encode_document(text, **encode)) for text in TEXTS]
    for mode in ["cls", "max"]:
        pooled = SentenceTransformer(modules=[model[0], Pooling(48, mode)], device="cpu")
        golden[mode] = [rounded(pooled.encode(text, **encode)) for text in TEXTS]
    with torch.no_grad():
        inputs = [tok(text, return_tensors="pt", truncation=True, max_length=24) for text in TEXTS[:3]]
        golden["tokens"] = [rounded(F.normalize(model[0].auto_model(**each)[0][0], dim=-1)) for each in inputs]
    model.save(str(folder), create_model_card=False)
    (folder / "golden.json").write_text(json.dumps(golden) + "\n")


def cross(folder):
    from sentence_transformers import CrossEncoder

    tok = tokenizer(folder)
    tok.model_max_length = 32
    config = BertConfig(vocab_size=len(tok), hidden_size=40, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64,
                        max_position_embeddings=48, hidden_act="gelu", layer_norm_eps=1e-12, num_labels=1)
    bert = randomize(BertForSequenceClassification(config), 3)
    bert.save_pretrained(folder)
    tok.save_pretrained(folder)
    model = CrossEncoder(str(folder), device="cpu")
    golden = {"texts": TEXTS, "scores": [], "logits": []}
    for query in TEXTS:
        golden["scores"].append(rounded([model.predict([(query, passage)])[0] for passage in TEXTS]))
        # In lists: an empty text alone would pass for no second text.
        pairs = [tok([query], [passage], return_tensors="pt", truncation="longest_first") for passage in TEXTS]
        assert max(pair["input_ids"].shape[1] for pair in pairs) == 32, "long pairs are cut"
        with torch.no_grad():
            golden["logits"].append(rounded([bert(**pair).logits[0, 0] for pair in pairs]))
    model.save(str(folder), create_model_card=False)
    (folder / "golden.json").write_text(json.dumps(golden) + "\n")


def onnx(_):
    from onnxruntime.quantization import QuantType, quantize_dynamic

    source, folder = HERE / "sentence", HERE / "sentence" / "onnx"
    folder.mkdir(exist_ok=True)
    bert = BertModel.from_pretrained(source, add_pooling_layer=False, attn_implementation="eager").eval()

    class Hidden(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.bert = bert

        def forward(self, input_ids, attention_mask, token_type_ids):
            return self.bert(input_ids, attention_mask, token_type_ids).last_hidden_state

    names = ["input_ids", "attention_mask", "token_type_ids"]
    example = tuple(torch.ones(2, 16, dtype=torch.long) for _ in names)
    axes = {name: {0: "batch", 1: "length"} for name in [*names, "last_hidden_state"]}
    path = folder / "model.onnx"
    torch.onnx.export(Hidden(), example, str(path), input_names=names, output_names=["last_hidden_state"], dynamic_axes=axes,
                      dynamo=False, opset_version=17)
    quantize_dynamic(str(path), str(folder / "model_quantized.onnx"), weight_type=QuantType.QInt8)


def colbert(folder):
    from colbert.infra import ColBERTConfig
    from colbert.modeling.checkpoint import Checkpoint
    from colbert.modeling.colbert import ColBERT
    from colbert.modeling.hf_colbert import class_factory

    ColBERT.loaded_extensions = True  # the C++ of its search is not needed here
    tok = tokenizer(folder)
    # head size 36 is more than a panel of the product kernel; the activation is the other one.
    config = BertConfig(vocab_size=len(tok), hidden_size=72, num_hidden_layers=1, num_attention_heads=2, intermediate_size=80,
                        max_position_embeddings=64, hidden_act="gelu_new", layer_norm_eps=1e-5)
    config.save_pretrained(folder)
    tok.save_pretrained(folder)
    hf_colbert = class_factory(str(folder))
    randomize(hf_colbert(config, ColBERTConfig(dim=SETTINGS["dim"])), 2).save_pretrained(folder)
    (folder / "artifact.metadata").write_text(json.dumps(SETTINGS, indent=4) + "\n")
    golden = {"texts": TEXTS}
    for name, attending in [("query", False), ("query_attending", True)]:
        settings = SETTINGS | {"attend_to_mask_tokens": attending, "checkpoint": str(folder)}
        checkpoint = Checkpoint(str(folder), ColBERTConfig(**settings), verbose=0)
        golden[name] = [rounded(checkpoint.queryFromText([text])[0]) for text in TEXTS]
    golden["passage"] = [rounded(rows) for rows in checkpoint.docFromText(TEXTS, keep_dims=False)]
    (folder / "golden.json").write_text(json.dumps(golden) + "\n")


def rounded(values):
    values = torch.as_tensor(values).tolist()
    return [[round(x, 7) for x in row] for row in values] if values and isinstance(values[0], list) else [round(x, 7) for x in values]


if __name__ == "__main__":
    main()
