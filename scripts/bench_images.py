#!/usr/bin/env python3
"""Makes the photos of the bench's image rows: `python scripts/bench_images.py NAME`, into runs/bench/NAME.

No photo can be shipped, so these are drawn to load a decoder as photos do: noise of many octaves, whose amplitude falls with
its frequency as that of natural images does (van der Schaaf and van Hateren, 1996), coloured, with sharp-edged drawings of
the tiny data set laid over and a little sensor noise. JPEG, 4:2:0, qualities 85 to 95 in turn; the sizes in bytes are printed
and are those of photos (1.5 to 2 bits a pixel).
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
        # Brightness varies more than colour.
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
    print(f"{out}: {count} photos of {total / count / 1e3:.0f} kB, {total * 8 / count / size[0] / size[1]:.2f} bits a pixel")


if __name__ == "__main__":
    main()
