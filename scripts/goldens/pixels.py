"""pixels/<name>/: config files of every image processor type and spelling, and the reference's pixels of some images.

`AutoImageProcessor` reads each folder, with the Pillow backend if the type has one. The images are first converted to
RGB as in decode/ (EXIF, 16-bit grey). None has transparency, because the reference ignores alpha and shows the colours
underneath.
"""

from pathlib import Path

import numpy as np
from PIL import Image
from transformers import AutoImageProcessor, ConvNextImageProcessorPil, ViTImageProcessorPil

from .common import save_json, save_tensors
from .decode import expected as decoded
from .decode import orientation, smooth
from .pictures import noise_picture

# Odd sizes: landscape, portrait, and an image smaller than most crops.
USUAL = ["landscape.png", "portrait.png", "tiny.png"]
# Every colour mode. Used for two of the processors.
ALL = [
    *USUAL,
    "grey.png",
    "palette.png",
    "one_bit.png",
    "grey16.png",
    "rgb16.png",
    "exif_6.png",
    "444.jpg",
    "420.jpg",
    "grey.jpg",
    "cmyk.jpg",
    "exif_6.jpg",
]

IMAGENET = {"image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225]}
SQUARE = {"height": 16, "width": 16}
CLIP = {"image_processor_type": "CLIPImageProcessor", "size": {"shortest_edge": 18}, "crop_size": SQUARE}

CONFIGS = {
    "vit": {"image_processor_type": "ViTImageProcessor", "size": SQUARE},
    "clip": CLIP,
    "deit": {"image_processor_type": "DeiTImageProcessor", "size": {"height": 19, "width": 19}, "crop_size": SQUARE},
    "beit": {"image_processor_type": "BeitImageProcessor", "size": SQUARE, "do_reduce_labels": True},
    "beit_old": {"feature_extractor_type": "BeitFeatureExtractor", "size": 19, "crop_size": 16, "do_center_crop": True},
    "siglip": {"image_processor_type": "SiglipImageProcessorFast", "size": SQUARE, "resample": 2},
    "chinese_clip": CLIP | {"image_processor_type": "ChineseCLIPImageProcessor", "size": {"height": 16, "width": 20}},
    "dinov2": CLIP | IMAGENET | {"image_processor_type": "BitImageProcessor", "resample": 3},
    "convnext": {"image_processor_type": "ConvNextImageProcessor", "size": {"shortest_edge": 16}, "crop_pct": 0.875},
    "resnet_old": IMAGENET | {"feature_extractor_type": "ConvNextFeatureExtractor", "size": 15, "crop_pct": 0.7},
    "efficientnet": {"image_processor_type": "EfficientNetImageProcessor", "size": SQUARE, "resample": 0} | IMAGENET,
    "efficientnet_offset": {
        "image_processor_type": "EfficientNetImageProcessor",
        "size": SQUARE,
        "rescale_offset": True,
        "rescale_factor": 1 / 127.5,
        "include_top": False,
    },
    "dinov3": {"image_processor_type": "DINOv3ViTImageProcessorFast", "size": SQUARE, "resample": 2},
    "dinov3_bicubic": {"image_processor_type": "DINOv3ViTImageProcessor", "size": {"height": 40, "width": 8}, "resample": 3},
    "lanczos": CLIP | {"resample": 1},
    "box": CLIP | {"resample": 4},
    "hamming": CLIP | {"resample": 5},
    "nearest": {"feature_extractor_type": "ViTFeatureExtractor", "size": 16, "resample": 0},
    "no_resize": CLIP | {"do_resize": False},
    "no_crop": {"image_processor_type": "BitImageProcessor", "do_center_crop": False, "size": [12, 20]},
    "no_rescale": CLIP | {"do_rescale": False, "image_mean": [120, 110, 100], "image_std": [60, 50, 70]},
    "no_normalize": CLIP | {"do_normalize": False},
    "bytes": CLIP | {"do_normalize": False, "do_rescale": False},
    "one_statistic": CLIP | {"image_mean": 0.4, "image_std": 0.3},
    "longest": CLIP | {"size": {"shortest_edge": 20, "longest_edge": 30}, "crop_size": 14},
    "crop_oblong": CLIP | {"crop_size": [11, 18]},
    "crop_larger": CLIP | {"size": {"shortest_edge": 13}, "crop_size": {"height": 16, "width": 21}},
    "size_not_square": {"image_processor_type": "CLIPImageProcessor", "size": 17, "crop_size": 16},
    "default_to_square": CLIP | {"size": 17, "default_to_square": True},
    "names_no_type": {"size": {"shortest_edge": 16}},
}

# `pretrained_cfg` of timm's config.json.
TIMM = {
    "timm_center": {"input_size": [3, 16, 16], "interpolation": "bicubic", "crop_pct": 0.9, "crop_mode": "center"},
    "timm_plain": {"input_size": [3, 16, 16], "interpolation": "bilinear", "mean": [0.5] * 3, "std": [0.5] * 3},
    "timm_squash": {"input_size": [3, 15, 16], "crop_pct": 0.8, "crop_mode": "squash", "interpolation": "lanczos"},
    "timm_squash_all": {"input_size": [3, 16, 12], "crop_pct": 1.0, "crop_mode": "squash"},
    "timm_border": {"input_size": [3, 16, 16], "crop_pct": 1.0, "crop_mode": "border", "interpolation": "box"},
    "timm_border_oblong": {"input_size": [3, 20, 13], "crop_pct": 0.95, "crop_mode": "border"},
    "timm_oblong": {"input_size": [3, 11, 16], "crop_pct": 0.8, "crop_mode": "center", "interpolation": "bicubic"},
}


# Side of the model's images, and `preprocess_cfg`.
OPEN_CLIP = {
    "open_clip": (16, {}),
    "open_clip_bilinear": (15, {"interpolation": "bilinear", "mean": [0.5] * 3, "std": [0.5] * 3}),
    "open_clip_squash": (16, {"resize_mode": "squash", "interpolation": "bicubic"}),
    "open_clip_oblong": (16, {"size": [12, 20], "resize_mode": "squash", "interpolation": "bilinear"}),
}


def write_images(folder: Path) -> None:
    rgb = noise_picture("pixels/landscape", 47, 29)
    Image.fromarray(rgb, "RGB").save(folder / "landscape.png", optimize=True)
    Image.fromarray(noise_picture("pixels/portrait", 20, 41), "RGB").save(folder / "portrait.png", optimize=True)
    Image.fromarray(noise_picture("pixels/tiny", 7, 10), "RGB").save(folder / "tiny.png", optimize=True)
    small = noise_picture("pixels/modes", 23, 17)
    Image.fromarray(small[..., 0], "L").save(folder / "grey.png")
    Image.fromarray(small, "RGB").quantize(16).save(folder / "palette.png")
    Image.fromarray(small[..., 0], "L").convert("1").save(folder / "one_bit.png")
    Image.fromarray(small[..., 0].astype(np.uint16) * 257 + 13).save(folder / "grey16.png")
    write_rgb16(folder / "rgb16.png", small.astype(np.uint16) * 256 + 200)
    Image.fromarray(small, "RGB").save(folder / "exif_6.png", exif=orientation(6))
    # Larger than a tower's input, as photos are, so that the decoders' differences of a few levels average out.
    photo = Image.fromarray(smooth("pixels/jpeg", 3), "RGB").resize((95, 71), Image.Resampling.BICUBIC)
    photo.save(folder / "444.jpg", quality=92, subsampling=0)
    photo.save(folder / "420.jpg", quality=92, subsampling=2)
    photo.convert("L").save(folder / "grey.jpg", quality=92)
    photo.save(folder / "exif_6.jpg", quality=92, subsampling=0, exif=orientation(6))
    cmyk = Image.fromarray(smooth("pixels/cmyk", 4), "CMYK").resize((95, 71), Image.Resampling.BICUBIC)
    cmyk.save(folder / "cmyk.jpg", quality=92, subsampling=0)


def write_rgb16(path: Path, pixels: np.ndarray) -> None:
    """Writes the PNG by hand (chunks IHDR, IDAT, IEND), because Pillow cannot write 16-bit colour."""
    import struct
    import zlib

    height, width, _ = pixels.shape
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in pixels)
    chunks = [(b"IHDR", struct.pack(">IIBBBBB", width, height, 16, 2, 0, 0, 0)), (b"IDAT", zlib.compress(rows, 9))]
    data = b"\x89PNG\r\n\x1a\n"
    for kind, body in [*chunks, (b"IEND", b"")]:
        data += struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
    path.write_bytes(data)


def load(folder: Path):
    """Loads a processor. DINOv3 has no Pillow backend, and timm's processor has no other."""
    config = folder / "preprocessor_config.json"
    dinov3 = config.exists() and "DINOv3" in config.read_text()
    return AutoImageProcessor.from_pretrained(folder, backend="torchvision" if dinov3 else "pil")


def run(processor, images: Path, names: list[str]) -> np.ndarray:
    pictures = [Image.fromarray(decoded(images / name), "RGB") for name in names]
    pixels = [processor(picture, return_tensors="pt").pixel_values[0].numpy() for picture in pictures]
    return np.stack(pixels).astype(np.float32)


def check_convnext_warp(images: Path) -> None:
    """From 384 pixels on, ConvNext resizes as ViT does. The Rust test relies on this and compares the steps of both."""
    side = {"height": 384, "width": 384}
    warped = run(ConvNextImageProcessorPil(size={"shortest_edge": 384}), images, USUAL)
    assert np.array_equal(warped, run(ViTImageProcessorPil(size=side, resample=3), images, USUAL))


def write(folder: Path) -> None:
    # Only to write goldens: scripts/check_processors.py does without it.
    from open_clip.transform import PreprocessCfg, image_transform_v2

    images = folder / "images"
    images.mkdir()
    write_images(images)
    check_convnext_warp(images)
    for name, config in CONFIGS.items():
        (folder / name).mkdir()
        save_json(folder / name / "preprocessor_config.json", config)
    (folder / "names_no_type" / "config.json").write_text('{"model_type": "convnext"}\n')
    # transformers 5 nests it in `processor_config.json`.
    (folder / "nested").mkdir()
    nested = {"processor_class": "VisionTextDualEncoderProcessor", "image_processor": CONFIGS["dinov2"]}
    save_json(folder / "nested" / "processor_config.json", nested)
    for name, config in TIMM.items():
        (folder / name).mkdir()
        config = {"architecture": "vit_tiny_patch16_224", "num_classes": 10, "pretrained_cfg": config}
        save_json(folder / name / "config.json", config)
    for name, (side, preprocess) in OPEN_CLIP.items():
        (folder / name).mkdir()
        model_cfg = {"embed_dim": 4, "vision_cfg": {"image_size": side}, "text_cfg": {}}
        save_json(folder / name / "open_clip_config.json", {"model_cfg": model_cfg, "preprocess_cfg": preprocess})
        # As `create_model_and_transforms` makes its transform from a config.
        transform = image_transform_v2(PreprocessCfg(**({"size": side} | preprocess)), is_train=False)
        pictures = [Image.fromarray(decoded(images / picture), "RGB") for picture in USUAL]
        pixels = np.stack([transform(picture).numpy() for picture in pictures])
        save_tensors(folder / name / "expected.safetensors", {"pixel_values": pixels}, {"images": " ".join(USUAL)})
    for name in [*CONFIGS, "nested", *TIMM]:
        names = ALL if name in ("vit", "clip") else USUAL
        pixels = run(load(folder / name), images, names)
        save_tensors(folder / name / "expected.safetensors", {"pixel_values": pixels}, {"images": " ".join(names)})
