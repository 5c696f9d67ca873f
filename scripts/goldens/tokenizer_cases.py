"""tokenizer_cases/cases.json: what AutoTokenizer makes of a `tokenizer.json` that the files beside it contradict.

Each case changes a tokenizer of the section `ids`: `config` sets keys of tokenizer_config.json, `remove` takes keys
out, `tokenizer` sets values of tokenizer.json by JSON pointer, and `files` adds files.
"""

import json
import shutil
import tempfile
from pathlib import Path

from transformers import AutoTokenizer

from .common import save_json

IDS = Path(__file__).resolve().parents[2] / "tests" / "goldens" / "ids"
MAX_LENGTH = 14
TEXTS = [
    "A Photo of TWO Dogs, running!",
    "naïve café, Ångström & Müller's ﬁsh",
    "赤い円 on the table",
    " a red <new> circle  and [EXTRA] on a <Named> blue ground",
    "[MASK] a<mask> [CLS] don't `` stop '' 3.14",
    "a sharp red triangle points up on a sheet of white paper by the sea at night, under the lamp of the old house",
]


def token(content: str, **flags) -> dict:
    plain = {"content": content, "lstrip": False, "normalized": False, "rstrip": False, "single_word": False}
    return {**plain, "special": True, **flags}


WORD = token("<new>", normalized=True, special=False)
CASES = [
    ("bert", {"config": {"do_lower_case": False}}),
    ("bert", {"config": {"strip_accents": False}}),
    ("bert", {"config": {"tokenize_chinese_chars": False}}),
    ("bert", {"remove": ["do_lower_case"], "tokenizer": {"/normalizer/lowercase": False}}),
    ("bert", {"tokenizer": {"/normalizer/strip_accents": False}}),
    ("bert", {"config": {"extra_special_tokens": ["[EXTRA]"]}}),
    ("bert", {"config": {"additional_special_tokens": ["[EXTRA]", "<Named>"]}}),
    ("bert", {"config": {"extra_special_tokens": {"named_token": "<Named>"}}}),
    ("bert", {"config": {"named_token": "<Named>"}}),
    ("bert", {"config": {"added_tokens_decoder": {"159": WORD}}}),
    ("bert", {"config": {"added_tokens_decoder": {"0": token("[PAD]"), "40": token("<new>", lstrip=True)}}}),
    ("bert", {"files": {"added_tokens.json": {"<new>": 159}}}),
    ("bert", {"files": {"special_tokens_map.json": {"additional_special_tokens": ["[EXTRA]"]}}}),
    ("bert", {"files": {"special_tokens_map.json": {"mask_token": token("[MASK]", lstrip=True)}}}),
    ("bert", {"config": {"cls_token": "[SEP]"}}),
    ("bert", {"config": {"unk_token": "[MASK]"}}),
    ("bert", {"config": {"split_special_tokens": True}}),
    ("bert", {"tokenizer": {"/model/max_input_chars_per_word": 3}}),
    ("bert", {"tokenizer": {"/truncation": {"direction": "Left", "max_length": 8, "strategy": "LongestFirst", "stride": 0}}}),
    (
        "bert",
        {
            "config": {"truncation_side": "right"},
            "tokenizer": {"/truncation": {"direction": "Left", "max_length": 8, "strategy": "LongestFirst", "stride": 0}},
        },
    ),
    ("bert", {"config": {"tokenizer_class": "PreTrainedTokenizerFast", "do_lower_case": False}}),
    ("bert", {"config": {"tokenizer_class": "TokenizersBackend", "extra_special_tokens": ["[EXTRA]"]}}),
    ("bert", {"config": {"tokenizer_class": "ElectraTokenizer", "do_lower_case": False}}),
    ("bert", {"config": {"tokenizer_class": "DistilBertTokenizerFast", "do_lower_case": False}}),
    (
        "bert",
        {
            "remove": ["tokenizer_class"],
            "config": {"do_lower_case": False},
            "files": {"config.json": {"model_type": "bert"}},
        },
    ),
    ("bert", {"config": {"do_lower_case": False}, "files": {"config.json": {"model_type": "modernbert"}}}),
    ("bert_cased", {"remove": ["do_lower_case"]}),
    ("mpnet", {"config": {"do_lower_case": False}}),
    ("mpnet", {"config": {"strip_accents": False, "extra_special_tokens": ["[EXTRA]"]}}),
    ("roberta", {"config": {"add_prefix_space": True}}),
    ("roberta", {"tokenizer": {"/normalizer": {"type": "Lowercase"}}}),
    ("roberta", {"config": {"extra_special_tokens": ["[EXTRA]"], "added_tokens_decoder": {"340": WORD}}}),
    ("clip", {"tokenizer": {"/normalizer": None}}),
    ("clip", {"config": {"extra_special_tokens": ["[EXTRA]"]}}),
    ("xlm_roberta", {"config": {"add_prefix_space": False}}),
    ("xlm_roberta", {"tokenizer": {"/normalizer": {"type": "Lowercase"}}}),
    ("xlm_roberta", {"tokenizer": {"/model/unk_id": 1}}),
    ("albert", {"config": {"do_lower_case": False}}),
    ("albert", {"config": {"keep_accents": True}}),
    ("deberta_v2", {"config": {"do_lower_case": True, "split_by_punct": True}}),
    ("deberta_v2", {"config": {"add_prefix_space": False}}),
    ("xlm_roberta", {"config": {"tokenizer_class": "CamembertTokenizer"}}),
    ("xlm_roberta", {"config": {"tokenizer_class": "T5Tokenizer"}}),
    ("modernbert", {"config": {"extra_special_tokens": ["[EXTRA]"]}}),
    ("modernbert", {"config": {"tokenizer_class": "Qwen2Tokenizer"}}),
    ("modernbert", {"config": {"tokenizer_class": "GPT2Tokenizer", "add_prefix_space": True}}),
    ("siglip2", {"config": {"tokenizer_class": "GemmaTokenizer"}}),
    ("siglip2", {"config": {"tokenizer_class": "LlamaTokenizer"}}),
    ("siglip2", {"config": {"tokenizer_class": "LlamaTokenizer", "legacy": True}}),
    ("bert_files", {"config": {"extra_special_tokens": ["[EXTRA]"]}}),
]


def set_pointer(value, pointer: str, new) -> None:
    *parents, last = pointer.strip("/").split("/")
    for key in parents:
        value = value[key]
    value[last] = new


def changed(kind: str, change: dict, folder: Path) -> None:
    shutil.copytree(IDS / kind, folder, dirs_exist_ok=True)
    path = folder / "tokenizer_config.json"
    config = json.loads(path.read_text(encoding="utf-8")) | change.get("config", {})
    for key in change.get("remove", []):
        config.pop(key, None)
    path.write_text(json.dumps(config), encoding="utf-8")
    if "tokenizer" in change:
        path = folder / "tokenizer.json"
        tokenizer = json.loads(path.read_text(encoding="utf-8"))
        for pointer, new in change["tokenizer"].items():
            set_pointer(tokenizer, pointer, new)
        path.write_text(json.dumps(tokenizer), encoding="utf-8")
    for name, content in change.get("files", {}).items():
        (folder / name).write_text(json.dumps(content), encoding="utf-8")


def write(folder: Path) -> None:
    cases = []
    for kind, change in CASES:
        with tempfile.TemporaryDirectory() as copy:
            changed(kind, change, Path(copy))
            tokenizer = AutoTokenizer.from_pretrained(copy)
            ids = tokenizer(TEXTS, truncation=True, max_length=MAX_LENGTH).input_ids
        cases.append({"kind": kind, "change": change, "class": type(tokenizer).__name__, "input_ids": ids})
    save_json(folder / "cases.json", {"max_length": MAX_LENGTH, "texts": TEXTS, "cases": cases})
