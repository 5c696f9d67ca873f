#!/usr/bin/env python3
"""Generates the photos of one image benchmark in runs/bench/NAME. scripts/bench.sh runs it; needs numpy and pillow.

    python scripts/bench_images.py NAME       # images-jpeg or images-jpeg-large

The repository cannot ship photos, so this script generates images that load a decoder in the same way: coloured noise
of many octaves with the amplitude spectrum of natural images (van der Schaaf and van Hateren, 1996), overlaid with
sharp-edged drawings from data/tiny and a little sensor noise. The files are 4:2:0 JPEG with qualities 85, 90 and 95 in
turn. The script prints their mean size; like photos, they have 1.5 to 2 bits per pixel.
"""

import sys
from pathlib import Path

import numpy as np
from PIL import Image

ROOT = Path(__file__).resolve().parent.parent
SIZES = {"images-jpeg": ((500, 375), 96), "images-jpeg-large": ((1600, 1200), 24)}


def photo(random: np.random.Generator, size: tuple[int, int], drawings: list[Path]) -> Image.Image:
    width, height = size
    planes = np.zeros((height, width, 3), np.float32)
    side = 2
    while side < max(size):
        noise = random.normal(size=(max(2, side * height // width), side, 3)).astype(np.float32)
        # In photos, brightness varies more than colour.
        noise = 0.75 * noise.mean(2, keepdims=True) * 3**0.5 + 0.25 * noise
        layers = [Image.fromarray(noise[..., c]).resize(size, Image.Resampling.BICUBIC) for c in range(3)]
        planes += 2.0 * np.stack(layers, 2) / side**0.7
        side *= 2
    image = Image.fromarray(np.uint8(np.clip(128 + 60 * planes, 0, 255)))
    for _ in range(3):
        drawing = Image.open(drawings[random.integers(len(drawings))]).convert("RGBA")
        edge = int(random.integers(height // 6, height // 2))
        drawing = drawing.resize((edge, edge), Image.Resampling.BICUBIC).rotate(float(random.uniform(-30, 30)))
        image.paste(drawing, (int(random.integers(0, width - edge)), int(random.integers(0, height - edge))), drawing)
    grain = random.normal(scale=4.0, size=(height, width, 3))
    return Image.fromarray(np.uint8(np.clip(np.float32(image) + grain, 0, 255)))


def main() -> None:
    if len(sys.argv) != 2 or sys.argv[1] not in SIZES:
        sys.exit(f"usage: python scripts/bench_images.py NAME, where NAME is one of {', '.join(SIZES)}")
    name = sys.argv[1]
    size, count = SIZES[name]
    out = ROOT / "runs/bench" / name
    if len(list(out.glob("*.jpg"))) == count:
        return
    out.mkdir(parents=True, exist_ok=True)
    drawings = sorted((ROOT / "data/tiny").rglob("*.png"))
    for index in range(count):
        quality = 85 + 5 * (index % 3)
        image = photo(np.random.default_rng(index), size, drawings)
        image.save(out / f"{index:03}.jpg", quality=quality, subsampling="4:2:0")
    total = sum(path.stat().st_size for path in out.glob("*.jpg"))
    bits = total * 8 / count / size[0] / size[1]
    print(f"{out}: {count} photos, {total / count / 1e3:.0f} kB each on average, {bits:.2f} bits per pixel")


if __name__ == "__main__":
    main()
