"""tokens/<name>/: the two small tokenizers and their ids, truncated to 12 tokens and padded to the longest row."""

from pathlib import Path

from .common import save_json
from .tokenizer import bert_tokenizer, roberta_tokenizer, set_fixed_padding

MAX_LENGTH = 12
CAPTIONS = [
    "",
    " ",
    "dot",
    "a red circle on a blue ground",
    "A Red CIRCLE on a BLUE ground",
    "a sharp red triangle points up on a sheet of white paper by the sea at night",
    "naïve café, Ångström",
    "赤い円 on the table",
    "🐝 bee",
    "don't  stop - ever!?",
    "tab\tand\nline",
    "unpronounceable xylophones",
]


def write(folder: Path) -> None:
    for name, tokenizer in (("bert", bert_tokenizer()), ("roberta", roberta_tokenizer())):
        tokenizer.save_pretrained(folder / name)
        if name == "bert":
            set_fixed_padding(folder / name)
        encoded = tokenizer(CAPTIONS, truncation=True, max_length=MAX_LENGTH, padding="longest")
        whole = tokenizer(CAPTIONS, truncation=False, padding=False)
        expected = {
            "captions": CAPTIONS,
            "max_length": MAX_LENGTH,
            "pad_token_id": tokenizer.pad_token_id,
            "input_ids": encoded.input_ids,
            "attention_mask": encoded.attention_mask,
            "untruncated_lengths": [len(ids) for ids in whole.input_ids],
        }
        assert max(expected["untruncated_lengths"]) > MAX_LENGTH
        save_json(folder / name / "expected.json", expected)
