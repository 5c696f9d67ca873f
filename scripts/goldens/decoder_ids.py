"""decoder_ids/<name>/: small tokenizers of the kinds that decoders and T5 have, and the reference's token ids.

Every caption is encoded alone and behind a prompt, as sentence-transformers does. Files that pad on the left do so here
as well: dualenc never pads them.
"""

import json
from pathlib import Path

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from transformers import AutoTokenizer

from .common import save_json
from .ids import CAPTIONS, LETTERS, MAX_LENGTH, bpe, unigram

PROMPT = "Instruct: find the picture\nQuery: "
SPLIT = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"


def special(*tokens: str) -> list[AddedToken]:
    return [AddedToken(token, special=True, normalized=False) for token in tokens]


def template(single: str, *tokens: tuple[str, int]) -> processors.TemplateProcessing:
    return processors.TemplateProcessing(single=single, pair=f"{single} $B", special_tokens=list(tokens))


def byte_level(names: list[str]) -> tuple[Tokenizer, dict]:
    split = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(SPLIT), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    vocab, merges = bpe(names, split, 340)
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=merges, ignore_merges=names[0].startswith("<|begin")))
    tokenizer.pre_tokenizer = split
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(special(*names))
    return tokenizer, vocab


def qwen3() -> tuple[Tokenizer, dict]:
    """Qwen3-Embedding's: its post-processor appends the end token, whatever its settings say."""
    tokenizer, vocab = byte_level(["<|endoftext|>", "<|im_start|>", "<|im_end|>"])
    tokenizer.normalizer = normalizers.NFC()
    end = "<|endoftext|>"
    tokenizer.post_processor = processors.Sequence(
        [processors.ByteLevel(trim_offsets=False), template(f"$A {end}", (end, vocab[end]))]
    )
    return tokenizer, {
        "tokenizer_class": "Qwen2Tokenizer",
        "add_bos_token": False,
        "eos_token": "<|im_end|>",
        "pad_token": end,
        "padding_side": "left",
    }


def llama3() -> tuple[Tokenizer, dict]:
    """Byte-level BPE that looks whole words up before it merges, with a token at the start only."""
    tokenizer, vocab = byte_level(["<|begin_of_text|>", "<|end_of_text|>"])
    start = "<|begin_of_text|>"
    tokenizer.post_processor = processors.Sequence(
        [processors.ByteLevel(trim_offsets=True), template(f"{start} $A", (start, vocab[start]))]
    )
    return tokenizer, {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": start,
        "eos_token": "<|end_of_text|>",
    }


def spaced(names: list[str], unknown: str) -> Tokenizer:
    """BPE of SentencePiece: a mark for spaces, and bytes for characters without a token."""
    tokens = [*names, *(f"<0x{byte:02X}>" for byte in range(256)), "▁", *LETTERS]
    merges = []
    for word in ("the", "red", "cat", "on", "blue", "sea"):
        pieces = ["▁", *word]
        while len(pieces) > 1:
            merges.append((pieces[0], pieces[1]))
            pieces = [pieces[0] + pieces[1], *pieces[2:]]
            tokens.append(pieces[0])
    vocab = {token: index for index, token in enumerate(dict.fromkeys(tokens))}
    tokenizer = Tokenizer(
        models.BPE(vocab=vocab, merges=list(dict.fromkeys(merges)), unk_token=unknown, fuse_unk=True, byte_fallback=True)
    )
    tokenizer.add_special_tokens(special(*names))
    return tokenizer


def gemma() -> tuple[Tokenizer, dict]:
    """EmbeddingGemma's: tokens at the start and at the end, spaces replaced before the vocabulary is looked up."""
    tokenizer = spaced(["<pad>", "<eos>", "<bos>", "<unk>"], "<unk>")
    tokenizer.normalizer = normalizers.Replace(" ", "▁")
    tokenizer.pre_tokenizer = pre_tokenizers.Split(" ", behavior="merged_with_previous")
    tokenizer.post_processor = template("<bos> $A <eos>", ("<bos>", 2), ("<eos>", 1))
    return tokenizer, {
        "tokenizer_class": "GemmaTokenizer",
        "add_bos_token": True,
        "add_eos_token": True,
        "bos_token": "<bos>",
        "eos_token": "<eos>",
        "pad_token": "<pad>",
        "unk_token": "<unk>",
    }


def mistral() -> tuple[Tokenizer, dict]:
    """E5-Mistral's: a space before the text, and tokens at the start and at the end."""
    tokenizer = spaced(["<unk>", "<s>", "</s>"], "<unk>")
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="first", split=False)
    tokenizer.post_processor = template("<s> $A </s>", ("<s>", 1), ("</s>", 2))
    return tokenizer, {
        "tokenizer_class": "LlamaTokenizer",
        "add_bos_token": True,
        "add_eos_token": True,
        "bos_token": "<s>",
        "eos_token": "</s>",
        "pad_token": "</s>",
        "unk_token": "<unk>",
        "padding_side": "left",
    }


def t5() -> tuple[Tokenizer, dict]:
    tokenizer = Tokenizer(models.Unigram(unigram(["<pad>", "</s>", "<unk>"]), unk_id=2))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="always")]
    )
    tokenizer.post_processor = template("$A </s>", ("</s>", 1))
    tokenizer.add_special_tokens(special("<pad>", "</s>", "<unk>"))
    return tokenizer, {
        "tokenizer_class": "T5Tokenizer",
        "eos_token": "</s>",
        "pad_token": "<pad>",
        "unk_token": "<unk>",
        "extra_ids": 0,
    }


def write(folder: Path) -> None:
    for name, make in {"qwen3": qwen3, "llama3": llama3, "gemma": gemma, "mistral": mistral, "t5": t5}.items():
        tokenizer, settings = make()
        (folder / name).mkdir()
        # As the library writes it: the order of keys is that of ids.
        text = json.dumps(json.loads(tokenizer.to_str()), ensure_ascii=False)
        (folder / name / "tokenizer.json").write_text(text, encoding="utf-8")
        save_json(folder / name / "tokenizer_config.json", settings)
        reference = AutoTokenizer.from_pretrained(folder / name)
        longer = MAX_LENGTH + len(reference(PROMPT).input_ids)
        cut = reference(CAPTIONS, truncation=True, max_length=MAX_LENGTH)
        prompted = reference([PROMPT + caption for caption in CAPTIONS], truncation=True, max_length=longer)
        expected = {
            "captions": CAPTIONS,
            "prompt": PROMPT,
            "max_length": MAX_LENGTH,
            "max_length_with_prompt": longer,
            "input_ids": cut.input_ids,
            "prompted_ids": prompted.input_ids,
            "untruncated_lengths": [len(ids) for ids in reference(CAPTIONS).input_ids],
        }
        last = expected["input_ids"][0][-1]
        ends = name != "llama3"
        assert all((ids[-1] == last) == ends for ids in cut.input_ids if len(ids) == MAX_LENGTH), name
        assert min(expected["untruncated_lengths"]) < MAX_LENGTH < max(expected["untruncated_lengths"])
        save_json(folder / name / "expected.json", expected)
