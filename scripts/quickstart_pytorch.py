#!/usr/bin/env python3
"""Trains the quickstart's job in PyTorch, on the same drawings and the same split, for comparison.

Uses transformers' VisionTextDualEncoder with a locked image tower and image features computed once, names as captions,
batches of 256 and 20 epochs of AdamW. Needs the data of scripts/quickstart.sh --data-only.

    pip install torch==2.15.0 transformers==5.23.0 pillow numpy
    python scripts/quickstart_pytorch.py [--epochs N] [--no-cache]

Last results, two cores: unseen-vendor acc1 0.386 acc5 0.575; unseen-concepts acc1 0.116 acc5 0.331; 285 s, 93 s of
which for the features.
"""

import argparse
import csv
import math
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch.nn import functional as F
from transformers import AutoTokenizer, BertModel, Dinov2Model, VisionTextDualEncoderConfig, VisionTextDualEncoderModel

ROOT = Path(__file__).resolve().parent.parent / "quickstart"
BATCH, RATE, DECAY, WARMUP = 256, 5e-4, 0.1, 30
MEAN, STD = np.float32([0.485, 0.456, 0.406]), np.float32([0.229, 0.224, 0.225])


def pixels(path: Path) -> torch.Tensor:
    image = Image.open(path).convert("RGB").resize((112, 112), Image.Resampling.BICUBIC)
    return torch.from_numpy((np.float32(image) / 255 - MEAN) / STD).permute(2, 0, 1)


@torch.no_grad()
def features(tower, paths: list[Path]) -> torch.Tensor:
    chunks = [paths[start : start + 32] for start in range(0, len(paths), 32)]
    return torch.cat([tower(torch.stack([pixels(path) for path in chunk])).pooler_output for chunk in chunks])


@torch.no_grad()
def accuracy(model, tokenizer, folder: Path, known: dict[Path, torch.Tensor]) -> str:
    model.eval()
    classes = sorted(folder.iterdir())
    tokens = tokenizer([path.name.replace("_", " ") for path in classes], padding=True, return_tensors="pt")
    text = F.normalize(model.text_projection(model.text_model(**tokens).pooler_output), dim=1)
    image = F.normalize(model.visual_projection(torch.stack([known[path] for path in classes])), dim=1)
    scores = image @ text.T
    rank = (scores >= scores.diagonal()[:, None]).sum(1)
    return f"acc1 {(rank <= 1).float().mean():.3f} acc5 {(rank <= 5).float().mean():.3f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=20, help="default: 20")
    parser.add_argument("--no-cache", action="store_true", help="run the locked image tower on every batch")
    arguments = parser.parse_args()
    torch.manual_seed(42)
    vision, text = Dinov2Model.from_pretrained(ROOT / "towers/vit-s14"), BertModel.from_pretrained(ROOT / "towers/minilm-l6")
    config = VisionTextDualEncoderConfig.from_vision_text_configs(vision.config, text.config, projection_dim=512)
    model = VisionTextDualEncoderModel(config, vision.eval(), text)
    tokenizer = AutoTokenizer.from_pretrained(ROOT / "towers/minilm-l6")
    with (ROOT / "data/train.csv").open(encoding="utf-8") as file:
        # The first caption of a drawing is its name.
        names = {row["image"]: row["caption"] for row in reversed(list(csv.DictReader(file)))}
    started = time.perf_counter()
    paths = [ROOT / "data" / path for path in names]
    images = None if arguments.no_cache else features(vision, paths)
    held_out = {}
    for folder in ("unseen-vendor", "unseen-concepts"):
        classes = sorted((ROOT / "data" / folder).iterdir())
        held_out |= dict(zip(classes, features(vision, [next(path.glob("*.png")) for path in classes])))
    print(f"features: {time.perf_counter() - started:.0f} s", flush=True)

    model.vision_model.requires_grad_(False)
    trained = [(name, value) for name, value in model.named_parameters() if value.requires_grad]
    plain = [value for name, value in trained if value.dim() < 2 or "position_embeddings" in name]
    decayed = [value for name, value in trained if value.dim() >= 2 and "position_embeddings" not in name]
    optimizer = torch.optim.AdamW([{"params": decayed, "weight_decay": DECAY}, {"params": plain, "weight_decay": 0.0}], lr=RATE)
    steps = arguments.epochs * (len(names) // BATCH)

    def rate(step: int) -> float:
        return min(1, step / WARMUP) if step < WARMUP else 0.5 + 0.5 * math.cos(math.pi * (step - WARMUP) / (steps - WARMUP))

    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, rate)
    captions = list(names.values())
    for epoch in range(1, arguments.epochs + 1):
        begun = time.perf_counter()
        model.train()
        vision.eval()
        for rows in torch.randperm(len(captions))[: len(captions) // BATCH * BATCH].split(BATCH):
            tokens = tokenizer([captions[row] for row in rows], padding=True, return_tensors="pt")
            text_embeds = F.normalize(model.text_projection(model.text_model(**tokens).pooler_output), dim=1)
            pooled = features(vision, [paths[row] for row in rows]) if images is None else images[rows]
            image_embeds = F.normalize(model.visual_projection(pooled), dim=1)
            logits = model.logit_scale.exp() * text_embeds @ image_embeds.T
            target = torch.arange(len(rows))
            loss = (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_([value for _, value in trained], 1.0)
            optimizer.step()
            schedule.step()
        took = time.perf_counter() - begun
        if epoch % 5 == 0 or epoch == arguments.epochs:
            figures = [f"{name}: {accuracy(model, tokenizer, ROOT / 'data' / name, held_out)}" for name in ("unseen-vendor", "unseen-concepts")]
            print(f"epoch {epoch} ({took:.2f} s), {time.perf_counter() - started:.0f} s, loss {loss:.3f}; " + "; ".join(figures), flush=True)


if __name__ == "__main__":
    main()
