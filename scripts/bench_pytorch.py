#!/usr/bin/env python3
"""The PyTorch half of scripts/bench.sh: measures one benchmark row.

    python scripts/bench_pytorch.py NAME [--rounds N]

With `--rounds`, it measures N rounds and prints one JSON line. Without, it prints a JSON line when it is ready, then
measures one round and prints a JSON line for each line on stdin. The dualenc half is crates/train/benches/speed.

PyTorch uses its defaults: float32, SDPA, the default AdamW implementation, one thread per core. Needs torch,
torchvision, transformers and pillow in the versions of scripts/bench.sh.
"""

import argparse
import json
import os
import resource
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
LENGTHS = [int(length) for length in (ROOT / "crates/train/benches/speed/caption_lengths.txt").read_text().split()]


def torch():
    import torch

    torch.set_num_threads(CORES)
    torch.manual_seed(1)
    return torch


def vit():
    """The forward pass of a ViT-S/16 on 16 images of 224 x 224 pixels."""
    from transformers import ViTConfig, ViTModel

    t = torch()
    config = ViTConfig(hidden_size=384, num_attention_heads=6, intermediate_size=1536, attn_implementation="sdpa")
    model = ViTModel(config).eval()
    pixels = t.rand(16, 3, 224, 224) * 2 - 1

    def round_():
        with t.inference_mode():
            model(pixel_values=pixels).pooler_output

    return round_


def bert(lengths: list[int]):
    """A training step of a MiniLM-L6-sized text tower on captions padded to 32 tokens: forward, loss, backward, AdamW."""
    from torch.nn import functional as F
    from transformers import BertConfig, BertModel

    t = torch()
    size = dict(hidden_size=384, num_hidden_layers=6, num_attention_heads=12, intermediate_size=1536)
    dropout = dict(hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
    model = BertModel(BertConfig(vocab_size=30522, **size, **dropout, attn_implementation="sdpa")).train()
    projection = t.nn.Linear(384, 512, bias=False)
    scale = t.nn.Parameter(t.tensor(2.6592))
    images = F.normalize(t.rand(len(lengths), 512) * 2 - 1, dim=1)
    optimizer = t.optim.AdamW([*model.parameters(), *projection.parameters(), scale], lr=1e-4, weight_decay=0.1)
    mask = t.zeros(len(lengths), 32, dtype=t.long)
    for row, length in enumerate(lengths):
        mask[row, :length] = 1
    ids = t.randint(100, 30100, mask.shape) * mask

    def round_():
        texts = F.normalize(projection(model(input_ids=ids, attention_mask=mask).pooler_output), dim=1)
        loss = contrastive(F, texts, images, scale)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return round_


def contrastive(F, texts, images, scale):
    logits = scale.exp() * texts @ images.T
    target = logits.new_tensor(range(len(logits)), dtype=int)
    return (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2


def infonce():
    """InfoNCE of 4,096 pairs of 512 values, with the gradients of both embeds and of `logit_scale`."""
    t = torch()
    from torch.nn import functional as F

    texts, images = (F.normalize(t.rand(4096, 512) * 2 - 1, dim=1).requires_grad_() for _ in range(2))
    scale = t.tensor(2.6592, requires_grad=True)

    def round_():
        t.autograd.grad(contrastive(F, texts, images, scale), [texts, images, scale])

    return round_


TRANSFORM = None


def start_image_worker():
    """Sets up one worker process with a single thread, as PyTorch's DataLoader does."""
    global TRANSFORM
    from torchvision import transforms

    torch().set_num_threads(1)
    mean, std = [0.48145466, 0.4578275, 0.40821073], [0.26862954, 0.26130258, 0.27577711]
    TRANSFORM = transforms.Compose([
        transforms.Resize(224, transforms.InterpolationMode.BICUBIC),
        transforms.CenterCrop(224),
        transforms.ToTensor(),
        transforms.Normalize(mean, std),
    ])


def load_image(path: str) -> int:
    from PIL import Image

    with Image.open(path) as image:
        return TRANSFORM(image.convert("RGB")).shape[0]


def images(name: str):
    """Image files to input tensors, with one process per core.

    The tensors stay in the workers, so the time a DataLoader spends on transferring them is not measured.
    """
    from multiprocessing import get_context

    if name == "images-png":
        folder, count = ROOT / "quickstart/data/images", 256
    else:
        folder, count = ROOT / "runs/bench" / name, None
    paths = sorted(str(path) for path in folder.rglob("*.*"))[:count]
    if not paths:
        fetch = "quickstart.sh --data-only" if name == "images-png" else f"bench.sh {name}"
        sys.exit(f"error: no images in `{folder}`; run scripts/{fetch}")
    pool = get_context("spawn").Pool(CORES, start_image_worker)
    round_ = lambda: pool.map(load_image, paths, chunksize=4)  # noqa: E731
    return round_


def first_step():
    """One training step with cached image features: imports, models and features from disk, one batch.

    scripts/bench.py measures it as a whole process.
    """
    import csv

    t = torch()
    from torch.nn import functional as F
    from transformers import AutoTokenizer, BertModel, Dinov2Model, VisionTextDualEncoderConfig, VisionTextDualEncoderModel

    towers = ROOT / "quickstart/towers"
    vision, text = Dinov2Model.from_pretrained(towers / "vit-s14"), BertModel.from_pretrained(towers / "minilm-l6")
    config = VisionTextDualEncoderConfig.from_vision_text_configs(vision.config, text.config, projection_dim=512)
    model = VisionTextDualEncoderModel(config, vision.eval(), text).train()
    tokenizer = AutoTokenizer.from_pretrained(towers / "minilm-l6")
    with (ROOT / "runs/bench/names.csv").open(encoding="utf-8") as file:
        captions = [row["caption"] for row in csv.DictReader(file)]
    features = t.load(ROOT / "runs/bench/features.pt")
    model.vision_model.requires_grad_(False)
    parameters = [value for value in model.parameters() if value.requires_grad]
    optimizer = t.optim.AdamW(parameters, lr=5e-4, weight_decay=0.1)
    rows = t.randperm(len(captions))[:256]
    tokens = tokenizer([captions[row] for row in rows], padding=True, return_tensors="pt")
    texts = F.normalize(model.text_projection(model.text_model(**tokens).pooler_output), dim=1)
    contrastive(F, texts, F.normalize(model.visual_projection(features[rows]), dim=1), model.logit_scale).backward()
    t.nn.utils.clip_grad_norm_(parameters, 1.0)
    optimizer.step()


def work(name: str):
    match name:
        case "vit":
            return vit()
        case "bert":
            return bert([32] * 64)
        case "bert-captions":
            return bert(LENGTHS)
        case "infonce":
            return infonce()
        case "images-jpeg" | "images-jpeg-large" | "images-png":
            return images(name)
        case _:
            sys.exit(f"error: unknown row `{name}`")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", metavar="NAME", help="row to measure, as in scripts/bench.sh")
    parser.add_argument("--rounds", type=int, help="rounds to measure (default: one per line on stdin)")
    arguments = parser.parse_args()
    if arguments.name == "first-step":
        return first_step()
    round_ = work(arguments.name)

    def measure() -> float:
        started = time.perf_counter()
        round_()
        return (time.perf_counter() - started) * 1e3

    def report(ms: list[float]) -> None:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6
        print(json.dumps({"name": arguments.name, "ms": ms, "peak_rss_mb": peak}), flush=True)

    measure()
    if arguments.rounds:
        return report([measure() for _ in range(arguments.rounds)])
    report([])
    for _ in sys.stdin:
        report([measure()])


if __name__ == "__main__":
    main()
