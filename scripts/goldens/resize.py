"""resize/: Pillow's `Image.resize` with every filter, on small noisy pictures."""

from pathlib import Path

import numpy as np
from PIL import Image

from .common import save_tensors
from .pictures import noise_picture

# Width x height, as in the names.
SOURCES = {"src51x33": (51, 33), "src20x37": (20, 37), "src1x7": (1, 7)}
SIZES = [(16, 16), (7, 45), (1, 1)]
# For the filters that image processors use. Some leave one axis unchanged, which Pillow skips.
MORE_SIZES = [(32, 24), (60, 5)]
USUAL = ("bilinear", "bicubic", "lanczos")
FILTERS = {
    "nearest": Image.Resampling.NEAREST,
    "box": Image.Resampling.BOX,
    "bilinear": Image.Resampling.BILINEAR,
    "hamming": Image.Resampling.HAMMING,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}


def write(folder: Path) -> None:
    """Writes sources `src<width>x<height>` and results `<source>_<filter>_<width>x<height>`, all u8 [h, w, 3]."""
    tensors = {}
    for name, (width, height) in SOURCES.items():
        tensors[name] = noise_picture(name, width, height)
        image = Image.fromarray(tensors[name], "RGB")
        more = [*MORE_SIZES, (width, 11), (13, height)] if width > 1 else [(width, 11)]
        for label, resample in FILTERS.items():
            for size in SIZES + (more if label in USUAL else []):
                result = np.asarray(image.resize(size, resample))
                tensors[f"{name}_{label}_{size[0]}x{size[1]}"] = result
        if name == "src20x37":
            tensors[f"{name}_bicubic_64x48"] = np.asarray(image.resize((64, 48), Image.Resampling.BICUBIC))
    save_tensors(folder / "expected.safetensors", tensors, {"axes": "height, width, channel"})
