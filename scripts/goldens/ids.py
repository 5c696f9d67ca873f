"""ids/<name>/: one small tokenizer of each kind, in the file formats of each generation, and the reference's token ids.

Every caption is encoded twice: truncated to `max_length`, and truncated and padded to `max_length`. Vocabularies are
written by hand or by the deterministic BPE trainer, because `UnigramTrainer` and `WordPieceTrainer` number tokens
differently in every process.
"""

import json
import string
from pathlib import Path

from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers
from transformers import (
    AlbertTokenizer,
    AutoTokenizer,
    BertTokenizer,
    CLIPTokenizer,
    DebertaV2Tokenizer,
    GPT2Tokenizer,
    MPNetTokenizer,
    PreTrainedTokenizerFast,
    RobertaTokenizer,
    Siglip2Tokenizer,
    XLMRobertaTokenizer,
)

from .captions import SENTENCES
from .common import save_json
from .tokenizer import set_fixed_padding, wordpiece_vocabulary

MAX_LENGTH = 14
CAPTIONS = [
    "dog",
    "",
    "  ",
    ".",
    "a red circle on a blue ground",
    "A Photo of TWO Dogs, running!",
    "naïve café, Ångström & Müller's ﬁsh",
    "🐝 bee 👩‍🚀",
    "赤い円 on the table 고양이",
    "don't stop -- they're [here] (now)... ever!? 100% 3.14",
    "tab\tand\nline\u00a0break   wide",
    "unpronounceable xylophones",
    # For most kinds: just below, at and above the limit, then far above it.
    "the cat sleeps in a box by the sea at night now",
    "the cat sleeps in a box by the sea at night now and then",
    "a sharp red triangle points up on a sheet of white paper by the sea at night, under the lamp of the old house",
]
WORDS = sorted({word for text in SENTENCES for word in text.lower().replace(",", " ").split()})
# The characters in some vocabularies. Other characters of the captions are unknown there.
LETTERS = string.ascii_lowercase + string.ascii_uppercase + string.digits + ",.!?'-"


def bpe(special: list[str], pre_tokenizer, size: int, normalizer=None, **options) -> tuple[dict, list]:
    tokenizer = Tokenizer(models.BPE(**options))
    tokenizer.pre_tokenizer = pre_tokenizer
    if normalizer is not None:
        tokenizer.normalizer = normalizer
    suffix = {"end_of_word_suffix": options["end_of_word_suffix"]} if "end_of_word_suffix" in options else {}
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
        **suffix,
    )
    tokenizer.train_from_iterator(SENTENCES, trainer)
    model = json.loads(tokenizer.to_str())["model"]
    return model["vocab"], [tuple(merge) for merge in model["merges"]]


def roberta() -> RobertaTokenizer:
    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    vocab, merges = bpe(special, pre_tokenizers.ByteLevel(add_prefix_space=False), 340)
    return RobertaTokenizer(vocab=vocab, merges=merges, model_max_length=64)


def gpt2() -> GPT2Tokenizer:
    vocab, merges = bpe(["<|endoftext|>"], pre_tokenizers.ByteLevel(add_prefix_space=False), 320)
    return GPT2Tokenizer(vocab=vocab, merges=merges)


def clip() -> CLIPTokenizer:
    """Laid out as CLIP's: 256 bytes, the same with `</w>`, merges, then the start and end tokens."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokens = alphabet + [letter + "</w>" for letter in alphabet]
    merges = []
    for word in ("the", "red", "dog", "cat", "photo", "on", "blue", "ing"):
        pieces = [*word[:-1], word[-1] + "</w>"]
        while len(pieces) > 1:
            merges.append((pieces[0], pieces[1]))
            pieces = [pieces[0] + pieces[1], *pieces[2:]]
            tokens.append(pieces[0])
    tokens = list(dict.fromkeys(tokens)) + ["<|startoftext|>", "<|endoftext|>"]
    merges = list(dict.fromkeys(merges))
    return CLIPTokenizer(vocab={token: index for index, token in enumerate(tokens)}, merges=merges, model_max_length=77)


def modernbert() -> PreTrainedTokenizerFast:
    """Byte-level BPE with BERT's special tokens at the start and end."""
    special = ["[UNK]", "[CLS]", "[SEP]", "[PAD]", "[MASK]"]
    vocab, merges = bpe(special, pre_tokenizers.ByteLevel(add_prefix_space=False), 330)
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=merges, unk_token=None))
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS]:0 $A:0 [SEP]:0",
        pair="[CLS]:0 $A:0 [SEP]:0 $B:1 [SEP]:1",
        special_tokens=[("[CLS]", vocab["[CLS]"]), ("[SEP]", vocab["[SEP]"])],
    )
    names = {"unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]", "pad_token": "[PAD]", "mask_token": "[MASK]"}
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **names)


def siglip2() -> Siglip2Tokenizer:
    """Gemma's BPE: `▁` for spaces, and bytes for characters without a token."""
    special = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>"]
    tokens = [*special, *(f"<0x{byte:02X}>" for byte in range(256)), "▁", *LETTERS]
    merges = []
    for word in ("the", "red", "cat", "on", "blue", "sea"):
        pieces = ["▁", *word]
        while len(pieces) > 1:
            merges.append((pieces[0], pieces[1]))
            pieces = [pieces[0] + pieces[1], *pieces[2:]]
            tokens.append(pieces[0])
    vocab = {token: index for index, token in enumerate(dict.fromkeys(tokens))}
    merges = list(dict.fromkeys(merges))
    return Siglip2Tokenizer(vocab=vocab, merges=merges, add_bos_token=False, add_eos_token=True, padding_side="right")


def unigram(special: list[str]) -> list[tuple[str, float]]:
    pieces = [*(f"▁{word}" for word in WORDS), "▁", "ing", "er", "es", "▁un", *LETTERS, "é", "ï", "Å", "赤", "円"]
    return [*((token, 0.0) for token in special), *((piece, -2.0 - 0.01 * k) for k, piece in enumerate(pieces))]


def xlm_roberta() -> XLMRobertaTokenizer:
    return XLMRobertaTokenizer(vocab=[*unigram(["<s>", "<pad>", "</s>", "<unk>"]), ("<mask>", 0.0)])


def albert() -> AlbertTokenizer:
    return AlbertTokenizer(vocab=unigram(["<pad>", "<unk>", "[CLS]", "[SEP]", "[MASK]"]))


def deberta_v2() -> DebertaV2Tokenizer:
    return DebertaV2Tokenizer(vocab=[*unigram(["[PAD]", "[CLS]", "[SEP]", "[UNK]"]), ("[MASK]", 0.0)], unk_id=3)


def mpnet() -> MPNetTokenizer:
    renamed = {"[PAD]": "<pad>", "[CLS]": "<s>", "[SEP]": "</s>", "[MASK]": "<mask>"}
    tokens = [renamed.get(token, token) for token in wordpiece_vocabulary()]
    return MPNetTokenizer(vocab={token: index for index, token in enumerate(tokens)})


def bert(**options) -> BertTokenizer:
    tokens = wordpiece_vocabulary()
    if options.get("do_lower_case") is False:
        tokens += [*string.ascii_uppercase, "##É", "é", "赤", "Dogs", "Photo"]
    return BertTokenizer(vocab={token: index for index, token in enumerate(dict.fromkeys(tokens))}, **options)


def siglip_backend(cleaning: bool) -> Tokenizer:
    """The result of T5's converter for SigLIP's SentencePiece model, with or without the slow class's text cleaning."""
    tokenizer = Tokenizer(models.Unigram(unigram(["<pad>", "</s>", "<unk>"]), unk_id=2))
    if cleaning:
        from tokenizers import Regex

        punctuation = "[" + "".join("\\" + mark for mark in string.punctuation) + "]"
        tokenizer.normalizer = normalizers.Sequence(
            [
                normalizers.Lowercase(),
                normalizers.Replace(Regex(punctuation), ""),
                normalizers.Replace(Regex(r"\s+"), " "),
                normalizers.Strip(),
            ]
        )
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="always")]
    )
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    return tokenizer


def canonical(text: str) -> str:
    """The same as `canonicalize_text` of the slow `SiglipTokenizer`, which cannot be imported without sentencepiece."""
    return " ".join(text.lower().translate(str.maketrans("", "", string.punctuation)).split())


def write_siglip(folder: Path) -> None:
    """transformers 5.23 has no fast SiglipTokenizer, so the expected ids are those of cleaned texts."""
    for name, cleaning in (("siglip", True), ("siglip_plain", False)):
        (folder / name).mkdir()
        siglip_backend(cleaning).save(str(folder / name / "tokenizer.json"))
        settings = {"tokenizer_class": "SiglipTokenizer", "pad_token": "</s>", "eos_token": "</s>", "unk_token": "<unk>"}
        save_json(folder / name / "tokenizer_config.json", settings)
        plain = siglip_backend(cleaning=False)
        reference = PreTrainedTokenizerFast(tokenizer_object=plain, pad_token="</s>", eos_token="</s>", unk_token="<unk>")
        save_expected(folder / name, reference, [canonical(caption) for caption in CAPTIONS])


def save_expected(folder: Path, tokenizer, texts: list[str] | None = None) -> None:
    texts = CAPTIONS if texts is None else texts
    tokenizer.padding_side = "right"
    cut = tokenizer(texts, truncation=True, max_length=MAX_LENGTH, return_token_type_ids=True)
    lengths = [len(ids) for ids in tokenizer(texts, truncation=False).input_ids]
    expected = {
        "captions": CAPTIONS,
        "max_length": MAX_LENGTH,
        "input_ids": cut.input_ids,
        "token_type_ids": cut.token_type_ids,
        "untruncated_lengths": lengths,
        "vocab_size": max(tokenizer.get_vocab().values()) + 1,
    }
    if tokenizer.pad_token is not None:
        padded = tokenizer(texts, truncation=True, max_length=MAX_LENGTH, padding="max_length")
        expected |= {"pad_token_id": tokenizer.pad_token_id, "padded_ids": padded.input_ids}
    assert min(lengths) < MAX_LENGTH < max(lengths)
    save_json(folder / "expected.json", expected)


def write_files(folder: Path, tokenizer, settings: dict) -> None:
    """Writes the files that came before `tokenizer.json`: `vocab.json` and `merges.txt`."""
    folder.mkdir()
    model = json.loads(tokenizer.backend_tokenizer.to_str())["model"]
    (folder / "vocab.json").write_text(json.dumps(model["vocab"], ensure_ascii=False), encoding="utf-8")
    merges = [" ".join(merge) for merge in model["merges"]]
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *merges]) + "\n", encoding="utf-8")
    if settings:
        save_json(folder / "tokenizer_config.json", settings)


def write(folder: Path) -> None:
    makers = {
        "bert": bert,
        "bert_cased": lambda: bert(do_lower_case=False),
        "mpnet": mpnet,
        "roberta": roberta,
        "modernbert": modernbert,
        "clip": clip,
        "siglip2": siglip2,
        "xlm_roberta": xlm_roberta,
        "albert": albert,
        "deberta_v2": deberta_v2,
    }
    for name, make in makers.items():
        tokenizer = make()
        tokenizer.save_pretrained(folder / name)
        if name == "bert":
            set_fixed_padding(folder / name)
        save_expected(folder / name, type(tokenizer).from_pretrained(folder / name))
    # A `tokenizer.json` of Gemma's class: Siglip2Tokenizer adds the lower-casing, the file has the special tokens.
    (folder / "siglip2_hub").mkdir()
    hub = json.loads((folder / "siglip2" / "tokenizer.json").read_text(encoding="utf-8"))
    hub["normalizer"] = {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}
    text = json.dumps(hub, ensure_ascii=False, indent=1)
    (folder / "siglip2_hub" / "tokenizer.json").write_text(text, encoding="utf-8")
    settings = {"tokenizer_class": "Siglip2Tokenizer", "add_bos_token": True, "add_eos_token": False, "pad_token": "<pad>"}
    save_json(folder / "siglip2_hub" / "tokenizer_config.json", settings)
    save_expected(folder / "siglip2_hub", Siglip2Tokenizer.from_pretrained(folder / "siglip2_hub"))
    write_siglip(folder)

    write_files(folder / "roberta_files", roberta(), {"tokenizer_class": "RobertaTokenizer", "add_prefix_space": True})
    write_files(folder / "clip_files", clip(), {"tokenizer_class": "CLIPTokenizer"})
    start = {"tokenizer_class": "GPT2Tokenizer", "add_bos_token": True, "pad_token": "<|endoftext|>"}
    write_files(folder / "gpt2_files", gpt2(), start)
    for name in ("roberta_files", "clip_files", "gpt2_files"):
        save_expected(folder / name, AutoTokenizer.from_pretrained(folder / name))
    (folder / "bert_files").mkdir()
    (folder / "bert_files" / "vocab.txt").write_text("\n".join(wordpiece_vocabulary()) + "\n", encoding="utf-8")
    settings = {"tokenizer_class": "BertTokenizer", "strip_accents": False, "tokenize_chinese_chars": False}
    save_json(folder / "bert_files" / "tokenizer_config.json", settings)
    save_expected(folder / "bert_files", BertTokenizer.from_pretrained(folder / "bert_files"))
