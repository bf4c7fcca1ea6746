"""Writes templates.json (what transformers renders) and tiny_tokenizer/ with tiny_ids.json (what it tokenizes).

Made with transformers 5.23.0 and tokenizers 0.23:
    python crates/model/tests/golden/make_templates.py
templates.json: [{template, messages, add_generation_prompt, now, rendered | error}], bos_token <s>, eos_token </s>.
tiny_tokenizer/: byte-level BPE of 512 tokens trained on this file's texts, digits one by one as SmolLM2's, with its
template. tiny_ids.json: apply_chat_template(tokenize=True) for each conversation.
"""
import datetime
import json
import pathlib
from unittest import mock

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast
from transformers.utils import chat_template_utils

HERE = pathlib.Path(__file__).parent
NOW = datetime.datetime(2026, 3, 7, 9, 5, 1)
MESSAGES = {
    "user": [("user", "What is the capital of France?")],
    "system": [("system", "Answer briefly."), ("user", "Who wrote \"Faust\"?")],
    "turns": [("user", "Hi"), ("assistant", "Hello! How can I help?"), ("user", "Name 3 rivers.")],
    "system_turns": [("system", "You search.\nUse tools."), ("user", "q1"), ("assistant", "So the next query is: x"),
                     ("user", "Document [1]\nTitle: A & B <c>\n"), ("assistant", "'fact' 2024"), ("user", "end?")],
    "spaces": [("user", "  leading and trailing  \n"), ("assistant", "\n answer \t"), ("user", "\n\nnext\n\n")],
    "unicode": [("system", "Ünïcödé ✓"), ("user", "東京はどこ? 🙂 naïve café"), ("assistant", "日本"),
                ("user", "e\u0301\u200d\u00a0end")],
    "quotes": [("user", "it's {{ not }} a {% template %} \\n \"quoted\" 'single' <b>&amp;</b>"),
               ("assistant", "{\"a\": [1, 2]}"), ("user", "<think>no</think>\nyes")],
    "empty": [("user", ""), ("assistant", ""), ("user", "12345 67")],
}


class FixedDate(datetime.datetime):
    @classmethod
    def now(cls, tz=None):
        return NOW


def main():
    rows = []
    for path in sorted((HERE / "templates").glob("*.jinja")):
        source = path.read_text()
        for turns in MESSAGES.values():
            messages = [{"role": role, "content": content} for role, content in turns]
            for prompt in (True, False):
                row = {"template": path.name, "messages": messages, "add_generation_prompt": prompt}
                try:
                    with mock.patch("transformers.utils.chat_template_utils.datetime", FixedDate):
                        row["rendered"] = render(source, messages, prompt)
                except Exception as error:
                    row["error"] = str(error)
                rows.append(row)
    now = int(NOW.replace(tzinfo=datetime.timezone.utc).timestamp())
    (HERE / "templates.json").write_text(json.dumps({"now_unix_secs": now, "rows": rows}, indent=0) + "\n")
    tokenizer = train()
    ids = [{"messages": [{"role": r, "content": c} for r, c in turns]} for turns in MESSAGES.values()]
    for row in ids:
        row["ids"] = tokenizer.apply_chat_template(row["messages"], add_generation_prompt=True, return_dict=False)
    (HERE / "tiny_ids.json").write_text(json.dumps(ids, indent=0) + "\n")


def render(source, messages, add_generation_prompt):
    compiled = chat_template_utils._compile_jinja_template(source)
    return compiled.render(messages=messages, tools=None, documents=None, bos_token="<s>", eos_token="</s>",
                           add_generation_prompt=add_generation_prompt)


def train():
    folder = HERE / "tiny_tokenizer"
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)])
    tokenizer.decoder = decoders.ByteLevel()
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    trainer = trainers.BpeTrainer(vocab_size=512, special_tokens=special, show_progress=False,
                                  initial_alphabet=pre_tokenizers.ByteLevel.alphabet())
    tokenizer.train_from_iterator([pathlib.Path(__file__).read_text()], trainer)
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<|im_start|>", eos_token="<|im_end|>",
                                   unk_token="<|endoftext|>", pad_token="<|im_end|>")
    fast.chat_template = (HERE / "templates" / "smollm2.jinja").read_text()
    fast.save_pretrained(folder)
    config = {"architectures": ["LlamaForCausalLM"], "vocab_size": 512, "bos_token_id": 1, "eos_token_id": 2}
    (folder / "config.json").write_text(json.dumps(config) + "\n")
    return fast


if __name__ == "__main__":
    main()
