"""Writes what scripts/gpu_bench.py measures with: random towers, synthetic images and captions. Nothing is fetched.

The towers have random weights, because speed does not depend on the values. The captions are pseudo-words, of which
each is one token, spread over a vocabulary of BERT's size.
"""

import json
import os
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

VOCABULARY = 30522
EMBED_DIM = 512
MAX_TOKENS = 32
CAPTION_WORDS = (8, 24)
VITS = {"vit-s16": (384, 6), "vit-b16": (768, 12)}
BERT = dict(vocab_size=VOCABULARY, hidden_size=384, num_hidden_layers=6, num_attention_heads=12, intermediate_size=1536)


def vit_config(name: str):
    from transformers import ViTConfig

    width, heads = VITS[name]
    return ViTConfig(
        hidden_size=width, num_attention_heads=heads, intermediate_size=4 * width, image_size=224, patch_size=16
    )


def write_towers(folder: Path) -> None:
    import torch
    from tokenizers import BertWordPieceTokenizer
    from transformers import BertConfig, BertModel, ViTModel

    torch.manual_seed(1)
    for name in VITS:
        ViTModel(vit_config(name)).save_pretrained(folder / name)
        size = {"height": 224, "width": 224}
        processor = dict(
            image_processor_type="ViTImageProcessor",
            do_resize=True,
            size=size,
            resample=2,
            do_rescale=True,
            rescale_factor=1 / 255,
            do_normalize=True,
            image_mean=[0.5] * 3,
            image_std=[0.5] * 3,
        )
        (folder / name / "preprocessor_config.json").write_text(json.dumps(processor))
    text = folder / "minilm-l6"
    BertModel(BertConfig(**BERT)).save_pretrained(text)
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    vocabulary = {token: index for index, token in enumerate(special + words(VOCABULARY - len(special)))}
    BertWordPieceTokenizer(vocabulary, lowercase=True).save(str(text / "tokenizer.json"))
    (text / "tokenizer_config.json").write_text(
        json.dumps(
            {
                "tokenizer_class": "BertTokenizerFast",
                "pad_token": "[PAD]",
                "cls_token": "[CLS]",
                "sep_token": "[SEP]",
                "unk_token": "[UNK]",
                "mask_token": "[MASK]",
                "model_max_length": 512,
            }
        )
    )


def words(count: int) -> list[str]:
    syllables = [a + b for a in "bdfgklmnprstvz" for b in "aeiou"]
    return [syllables[i % 70] + syllables[i // 70 % 70] + syllables[i // 4900 % 70] for i in range(count)]


def write_images(job: tuple[Path, int, int]) -> None:
    """Writes images `start..end`: a smooth field with noise, as JPEG of 224 to 256 px and as BMP of 224 px.

    A BMP file of the tower's size costs next to nothing to decode, so it shows the speed of the tower.
    """
    import numpy as np
    from PIL import Image

    folder, start, end = job
    for index in range(start, end):
        rng = np.random.default_rng(index)
        size = int(rng.integers(224, 257))
        smooth = Image.fromarray(rng.integers(0, 256, (12, 12, 3), dtype=np.uint8)).resize((size, size), Image.BICUBIC)
        noise = rng.integers(-12, 13, (size, size, 1))
        image = Image.fromarray((np.asarray(smooth) + noise).clip(0, 255).astype(np.uint8))
        image.save(folder / f"jpeg/{index:06}.jpg", quality=90)
        image.crop((0, 0, 224, 224)).save(folder / f"bmp/{index:06}.bmp")


def write_data(folder: Path, count: int) -> None:
    import random

    for kind in ("jpeg", "bmp"):
        (folder / kind).mkdir(parents=True, exist_ok=True)
    with ProcessPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        list(pool.map(write_images, [(folder, at, min(at + 64, count)) for at in range(0, count, 64)]))
    rng, vocabulary = random.Random(1), words(VOCABULARY - 5)
    captions = [" ".join(rng.choices(vocabulary, k=rng.randint(*CAPTION_WORDS))) for _ in range(count)]
    for kind, end in (("jpeg", "jpg"), ("bmp", "bmp")):
        rows = [f"{kind}/{index:06}.{end},{caption}" for index, caption in enumerate(captions)]
        (folder / f"{kind}.csv").write_text("\n".join(["image,caption", *rows]) + "\n")


def config(kind: str, tower: str, lock: str) -> str:
    """A TOML config; `--set` gives the rest."""
    return f"""\
[run]
dir = "run"
log_every_steps = 1
[model]
image_tower = "{tower}"
text_tower = "minilm-l6"
embed_dim = {EMBED_DIM}
lock = "{lock}"
[data]
max_tokens = {MAX_TOKENS}
[data.train.csv]
path = "{kind}.csv"
image = "image"
caption = "caption"
[train]
steps = 1
batch_size = 256
learning_rate = 1e-4
weight_decay = 0.1
clip_grad_norm = 1.0
[cache]
dir = "cache"
[checkpoint]
every_steps = 1000000
keep = 1
"""


def prepare(folder: Path, count: int) -> None:
    """Writes everything once; `done` is written last and holds the number of images."""
    if (folder / "done").exists() and (folder / "done").read_text() == str(count):
        return
    folder.mkdir(parents=True, exist_ok=True)
    write_towers(folder)
    write_data(folder, count)
    for tower in VITS:
        (folder / f"lu-{tower}.toml").write_text(config("bmp", tower, "LU"))
    (folder / "uu.toml").write_text(config("jpeg", "vit-s16", "UU"))
    (folder / "done").write_text(str(count))
