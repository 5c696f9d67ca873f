"""Two tokenizers of a few hundred tokens with the normalisers and post-processors of BERT and RoBERTa."""

import json
import string
from collections import Counter
from pathlib import Path

from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from transformers import BertTokenizer, RobertaTokenizer

from .captions import SENTENCES
from .common import load_json

# The padding and truncation that sentence-transformers leaves in `tokenizer.json`. A reader that applies them pads
# every caption to 128 tokens, more than these towers have positions for.
FIXED_LENGTH = 128


def wordpiece_vocabulary(size: int = 160) -> list[str]:
    """A vocabulary built by hand, because `WordPieceTrainer` numbers tokens differently in every process."""
    characters = list(string.ascii_lowercase + string.digits + ",.!?'-")
    pieces = [f"##{letter}" for letter in string.ascii_lowercase] + ["##s", "##ing", "##es", "##er"]
    words = Counter(word for text in SENTENCES for word in text.lower().replace(",", " ").split() if len(word) > 1)
    frequent = sorted(words, key=lambda word: (-words[word], word))
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *characters, *pieces, *frequent]
    return list(dict.fromkeys(vocabulary))[:size]


def bert_tokenizer() -> BertTokenizer:
    vocabulary = {token: index for index, token in enumerate(wordpiece_vocabulary())}
    return BertTokenizer(vocab=vocabulary, do_lower_case=True, model_max_length=FIXED_LENGTH)


def roberta_tokenizer() -> RobertaTokenizer:
    """Byte-level BPE with all 256 bytes (so that no text is unknown), 5 special tokens and 59 merges."""
    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(
        vocab_size=320,
        special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(SENTENCES, trainer)
    model = json.loads(tokenizer.to_str())["model"]
    merges = [tuple(merge) for merge in model["merges"]]
    return RobertaTokenizer(vocab=model["vocab"], merges=merges, model_max_length=FIXED_LENGTH)


def set_fixed_padding(folder: Path) -> None:
    """Enables padding and truncation to 128 tokens in a saved BERT `tokenizer.json`."""
    path = folder / "tokenizer.json"
    settings = load_json(path)
    settings["truncation"] = {
        "direction": "Right",
        "max_length": FIXED_LENGTH,
        "strategy": "LongestFirst",
        "stride": 0,
    }
    settings["padding"] = {
        "strategy": {"Fixed": FIXED_LENGTH},
        "direction": "Right",
        "pad_to_multiple_of": None,
        "pad_id": 0,
        "pad_type_id": 0,
        "pad_token": "[PAD]",
    }
    # Not `save_json`, which sorts keys: the vocabulary must stay in the order of its ids.
    path.write_text(json.dumps(settings, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
