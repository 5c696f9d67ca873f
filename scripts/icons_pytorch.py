#!/usr/bin/env python3
"""Trains the yardstick of docs/ALIGNMENT.md in PyTorch, as a script with features kept by hand, for comparison.

Needs the data of scripts/icons.sh --data-only.

    pip install torch==2.15.0 transformers==5.23.0 pillow numpy
    python scripts/icons_pytorch.py RECIPE [--seed N] [--epochs N] [--rate R] [--device D] [--threads N]
        [--features FILE]

RECIPE is one of:

- plain: transformers' VisionTextDualEncoder as it is: class token, BERT's pooler, random linear projections; text tower
  and projections train.
- closed: no training. Both towers locked; class token and patch mean of the image tower's blocks 8 to 11, token means of
  the text tower's blocks 4 to 6; projections by canonical correlation analysis (CCA) with a ridge.
- best: `closed`, then the projections and the text tower train.

Image features are kept in FILE (default: runs/icons-pytorch/features.npz). The device is `cpu` (the default) or `cuda`.
On a busy machine, `--threads 1` is much faster than PyTorch's default.
"""

import argparse
import csv
import math
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import nn
from torch.nn import functional as F
from transformers import AutoTokenizer, BertModel, Dinov2Model

ROOT = Path(__file__).resolve().parent.parent
DATA, TOWERS = ROOT / "icons/data", ROOT / "quickstart/towers"
MEAN, STD = np.float32([0.485, 0.456, 0.406]), np.float32([0.229, 0.224, 0.225])
IMAGE_LAYERS, TEXT_LAYERS = (8, 9, 10, 11), (6, 5, 4)
BATCH, DECAY, WIDTH, RIDGE, POWER, DROPOUT = 1024, 0.1, 512, 1e-2, 1.5, 0.2
# epochs, learning rate of the tower, of the projections, initial scale
RECIPES = {"plain": (16, 5e-4, 5e-4, 1 / 0.07), "closed": (0, 0.0, 0.0, 20.0), "best": (12, 1e-3, 3e-4, 20.0)}


def read(name: str, column: str = "name") -> tuple[list[str], list[str]]:
    with (DATA / name).open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    return [row["image"] for row in rows], [row[column] for row in rows]


@torch.no_grad()
def image_features(paths: list[str], device: str) -> np.ndarray:
    """Returns class token and patch mean after the final norm, of each layer: `[images, layers, 2, 384]`."""
    tower = Dinov2Model.from_pretrained(TOWERS / "vit-s14").eval().to(device)
    chunks = []
    for start in range(0, len(paths), 32):
        images = [np.float32(Image.open(DATA / path).convert("RGB")) for path in paths[start : start + 32]]
        pixels = torch.from_numpy((np.stack(images) / 255 - MEAN) / STD).permute(0, 3, 1, 2).to(device)
        states = tower(pixels, output_hidden_states=True).hidden_states
        normed = [tower.layernorm(states[layer]) for layer in IMAGE_LAYERS]
        chunks.append(torch.stack([torch.stack([x[:, 0], x[:, 1:].mean(1)], 1) for x in normed], 1))
    return torch.cat(chunks).cpu().numpy()


class Text(nn.Module):
    """Pooled features of texts: BERT's pooler, or the token means of several layers, concatenated."""

    def __init__(self, pooler: bool):
        super().__init__()
        self.tokenizer = AutoTokenizer.from_pretrained(TOWERS / "minilm-l6")
        self.tower, self.pooler = BertModel.from_pretrained(TOWERS / "minilm-l6"), pooler
        for module in self.tower.modules():
            if isinstance(module, nn.Dropout) and not pooler:
                module.p = DROPOUT

    def forward(self, texts: list[str]) -> torch.Tensor:
        tokens = self.tokenizer(texts, padding="longest", truncation=True, max_length=32, return_tensors="pt")
        tokens = tokens.to(self.tower.device)
        output = self.tower(**tokens, output_hidden_states=not self.pooler)
        if self.pooler:
            return output.pooler_output
        mask = tokens["attention_mask"][..., None]
        return torch.cat([(output.hidden_states[layer] * mask).sum(1) / mask.sum(1) for layer in TEXT_LAYERS], 1)

    @torch.no_grad()
    def many(self, texts: list[str]) -> torch.Tensor:
        self.eval()
        # Texts of similar length together, or most tokens are padding.
        order = sorted(range(len(texts)), key=lambda row: len(texts[row]))
        chunks = [self([texts[row] for row in order[start : start + 256]]) for start in range(0, len(order), 256)]
        return torch.cat(chunks)[torch.argsort(torch.tensor(order))]


def cca(x: torch.Tensor, y: torch.Tensor) -> tuple[nn.Linear, nn.Linear]:
    """Returns the projections of `x [pairs, a]` and `y [pairs, b]` onto their canonical directions.

    Each direction is multiplied by a power of its correlation.
    """
    x, y = x.double().cpu(), y.double().cpu()
    mean_x, mean_y = x.mean(0), y.mean(0)
    x, y = x - mean_x, y - mean_y

    def inverse_root(covariance: torch.Tensor) -> torch.Tensor:
        size = len(covariance)
        values, vectors = torch.linalg.eigh(covariance + RIDGE * covariance.trace() / size * torch.eye(size, dtype=torch.double))
        return vectors @ torch.diag(values.rsqrt()) @ vectors.T

    root_x, root_y = inverse_root(x.T @ x / len(x)), inverse_root(y.T @ y / len(y))
    left, correlations, right = torch.linalg.svd(root_x @ (x.T @ y / len(x)) @ root_y, full_matrices=False)
    width = min(WIDTH, len(correlations))
    heads = []
    for weight, mean, values in (
        (correlations[:width, None] ** POWER * (left[:, :width].T @ root_x), mean_x, x),
        (correlations[:width, None] ** POWER * (right[:width] @ root_y), mean_y, y),
    ):
        # Outputs of norm 1 on average: only the direction counts, and the learning rate then fits both heads.
        weight = weight / (values @ weight.T).norm(dim=1).mean()
        head = nn.Linear(weight.shape[1], width)
        with torch.no_grad():
            head.weight.copy_(weight)
            head.bias.copy_(-weight @ mean)
        heads.append(head)
    return heads[0], heads[1]


@torch.no_grad()
def figures(images: torch.Tensor, texts: torch.Tensor, names: list[str], rows: torch.Tensor) -> str:
    """Recall with several right answers. `images` and `texts` are embeddings of the same rows, `rows` selects queries."""
    number = {name: place for place, name in enumerate(dict.fromkeys(names))}
    label = torch.tensor([number[name] for name in names])
    same = label[:, None] == label[None]

    def recall(scores: torch.Tensor, k: int) -> float:
        best = scores.masked_fill(~same, -math.inf).max(1).values
        return float((((scores > best[:, None]) & ~same).sum(1) < k)[rows].float().mean())

    scores = texts @ images.T
    return f"image_retrieval_recall@1 {recall(scores, 1):.4f} @10 {recall(scores, 10):.4f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe", choices=RECIPES)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--epochs", type=int)
    parser.add_argument("--rate", type=float, help="of the text tower")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--features", type=Path, default=ROOT / "runs/icons-pytorch/features.npz")
    arguments = parser.parse_args()
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    device = arguments.device
    epochs, rate, head_rate, scale = RECIPES[arguments.recipe]
    epochs = epochs if arguments.epochs is None else arguments.epochs
    rate = arguments.rate or rate
    (paths, names), (test_paths, test_names) = read("train-20k.csv"), read("validation.csv")
    known = set(names)
    started = time.perf_counter()
    if not arguments.features.is_file():
        arguments.features.parent.mkdir(parents=True, exist_ok=True)
        np.savez(arguments.features, train=image_features(paths, device), test=image_features(test_paths, device))
        print(f"image features: {time.perf_counter() - started:.0f} s", flush=True)
    kept = np.load(arguments.features)
    images, test_images = (torch.from_numpy(kept[part]).to(device) for part in ("train", "test"))
    started = time.perf_counter()
    torch.manual_seed(arguments.seed)
    plain = arguments.recipe == "plain"
    text = Text(pooler=plain).to(device)
    if plain:
        images, test_images = images[:, -1, 0], test_images[:, -1, 0]
        heads = nn.Linear(images.shape[1], WIDTH, bias=False), nn.Linear(384, WIDTH, bias=False)
        for head in heads:
            nn.init.normal_(head.weight, std=0.02)
    else:
        images, test_images = images.flatten(1), test_images.flatten(1)
        distinct = list(dict.fromkeys(names))
        features = dict(zip(distinct, text.many(distinct)))
        heads = cca(images, torch.stack([features[name] for name in names]))
    image_head, text_head = (head.to(device) for head in heads)
    log_scale = nn.Parameter(torch.tensor(math.log(scale), device=device))

    def evaluate() -> str:
        distinct = list(dict.fromkeys(test_names))
        with torch.no_grad():
            embedded = dict(zip(distinct, F.normalize(text_head(text.many(distinct)), dim=1)))
            texts = torch.stack([embedded[name] for name in test_names])
            shown = F.normalize(image_head(test_images), dim=1)
        new = torch.tensor([name not in known for name in test_names])
        shown, texts = shown.cpu(), texts.cpu()
        return f"designers: {figures(shown, texts, test_names, torch.ones_like(new))}; new names: {figures(shown, texts, test_names, new)}"

    groups = []
    for module, module_rate in ((text, rate), (image_head, head_rate), (text_head, head_rate)):
        parameters = [value for value in module.parameters() if value.requires_grad]
        groups.append({"params": [value for value in parameters if value.dim() > 1], "lr": module_rate, "weight_decay": DECAY})
        groups.append({"params": [value for value in parameters if value.dim() < 2], "lr": module_rate, "weight_decay": 0.0})
    groups.append({"params": [log_scale], "lr": head_rate, "weight_decay": 0.0})
    trained = [value for group in groups for value in group["params"]]
    steps = epochs * (len(names) // BATCH)
    warmup = max(1, steps // 10)
    optimizer = torch.optim.AdamW([group for group in groups if group["params"]], lr=rate or 1.0)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer,
        lambda step: (step + 1) / warmup if step < warmup else 0.5 + 0.5 * math.cos(math.pi * (step - warmup) / max(1, steps - warmup)),
    )
    number = {name: place for place, name in enumerate(dict.fromkeys(names))}
    labels = torch.tensor([number[name] for name in names], device=device)
    for epoch in range(1, epochs + 1):
        text.train()
        for rows in torch.randperm(len(names))[: len(names) // BATCH * BATCH].split(BATCH):
            texts = F.normalize(text_head(text([names[row] for row in rows])), dim=1)
            logits = log_scale.exp() * F.normalize(image_head(images[rows]), dim=1) @ texts.T
            # Every image of a caption is right, as `duplicates = "positives"`.
            target = (labels[rows][:, None] == labels[rows][None]).float()
            target = target / target.sum(1, keepdim=True)
            loss = -((target * logits.log_softmax(1)).sum(1).mean() + (target * logits.T.log_softmax(1)).sum(1).mean()) / 2
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(trained, 1.0)
            optimizer.step()
            schedule.step()
            with torch.no_grad():
                log_scale.clamp_(max=math.log(100))
        print(f"epoch {epoch}: loss {loss:.3f}, {time.perf_counter() - started:.0f} s", flush=True)
    print(f"{arguments.recipe}, seed {arguments.seed}, {time.perf_counter() - started:.0f} s without image features: {evaluate()}")


if __name__ == "__main__":
    main()
