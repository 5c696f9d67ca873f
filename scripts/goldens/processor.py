"""processor/<name>/: preprocessor configs, and the pixels of three pictures from the reference's PIL processors."""

from pathlib import Path

import numpy as np
from PIL import Image
from transformers import BitImageProcessorPil, CLIPImageProcessorPil, DeiTImageProcessorPil, ViTImageProcessorPil
from transformers.image_utils import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD

from .common import load_json, save_json, save_tensors
from .pictures import noise_picture

CROP = {"height": 32, "width": 32}
# Odd sizes: landscape, portrait, and an image smaller than the crop.
IMAGES = {"0.png": (51, 37), "1.png": (23, 45), "2.png": (9, 14)}


def processors() -> dict:
    return {
        "vit": ViTImageProcessorPil(size=CROP),
        "dinov2": BitImageProcessorPil(
            size={"shortest_edge": 40},
            crop_size=CROP,
            image_mean=IMAGENET_DEFAULT_MEAN,
            image_std=IMAGENET_DEFAULT_STD,
        ),
        "clip": CLIPImageProcessorPil(size={"shortest_edge": 32}, crop_size=CROP),
        "deit": DeiTImageProcessorPil(
            size={"height": 40, "width": 40},
            crop_size=CROP,
            image_mean=IMAGENET_DEFAULT_MEAN,
            image_std=IMAGENET_DEFAULT_STD,
        ),
    }


def write_legacy_clip(folder: Path) -> None:
    """The keys of CLIP's first published configs: plain numbers as sizes, no rescale, no image processor type."""
    current = load_json(folder / "clip" / "preprocessor_config.json")
    kept = ("do_center_crop", "do_normalize", "do_resize", "image_mean", "image_std")
    legacy = {name: current[name] for name in kept}
    legacy |= {"crop_size": 32, "size": 32, "resample": 3, "feature_extractor_type": "CLIPFeatureExtractor"}
    (folder / "clip_legacy").mkdir()
    save_json(folder / "clip_legacy" / "preprocessor_config.json", legacy)
    loaded = CLIPImageProcessorPil.from_pretrained(folder / "clip_legacy")
    same = [
        np.array_equal(a, b)
        for a, b in zip(run(loaded, folder), run(CLIPImageProcessorPil.from_pretrained(folder / "clip"), folder))
    ]
    assert all(same), "the legacy config means the same as `clip`, whose expected values stand for both"


def run(processor, folder: Path) -> np.ndarray:
    images = [Image.open(folder / "images" / name).copy() for name in IMAGES]
    return np.stack(processor(images, return_tensors="np").pixel_values).astype(np.float32)


def write(folder: Path) -> None:
    (folder / "images").mkdir()
    for name, (width, height) in IMAGES.items():
        pixels = noise_picture(f"processor/{name}", width, height)
        Image.fromarray(pixels, "RGB").save(folder / "images" / name, optimize=True)
    for name, processor in processors().items():
        processor.save_pretrained(folder / name)
        save_tensors(folder / name / "expected.safetensors", {"pixel_values": run(processor, folder)})
    write_legacy_clip(folder)
