"""jpeg/: JPEGs of each sampling, coding and colour space, and their pixels by Pillow, to the byte.

`expected.safetensors` has the pixels of `NAME`, and as `NAME@2`, `NAME@4` and `NAME@8` those that Pillow decodes at a
half, a quarter and an eighth of the size (`Image.draft`). `NAME@2 resized` is resized from `NAME@2`, of which the last
column and row belong to the picture in part.
"""

import io
from pathlib import Path

import numpy as np
from PIL import Image

from .common import save_tensors
from .pictures import noise_picture

REDUCTIONS = (2, 4, 8)


def picture(name: str, width: int, height: int) -> Image.Image:
    """A gradient with spots, of which each pixel is two wide and high, so that files are small."""
    pixels = noise_picture(f"jpeg/{name}", (width + 1) // 2, (height + 1) // 2)
    return Image.fromarray(pixels.repeat(2, axis=0).repeat(2, axis=1)[:height, :width], "RGB")


def encoded(image: Image.Image, **options) -> bytes:
    file = io.BytesIO()
    image.save(file, "JPEG", **options)
    return file.getvalue()


def segments(jpeg: bytes) -> tuple[dict[int, bytes], bytes]:
    """The segments of a file of one scan by marker, joined where a marker comes again; and the data of the scan."""
    at, found = 2, {}
    while True:
        marker, size = jpeg[at + 1], int.from_bytes(jpeg[at + 2 : at + 4])
        found[marker] = found.get(marker, b"") + jpeg[at : at + 2 + size]
        at += 2 + size
        if marker == 0xDA:
            return found, jpeg[at:-2]


def vertical_pairs(image: Image.Image) -> bytes:
    """4:4:0, which Pillow does not write: a file of 4:2:2 with the factors of its luma exchanged. Its blocks come in
    the same order, so that it is another picture with as many MCUs."""
    jpeg = bytearray(encoded(image, quality=80, subsampling="4:2:2"))
    frame = jpeg.index(b"\xff\xc0")
    columns, rows = -(-image.width // 16), -(-image.height // 8)
    jpeg[frame + 5 : frame + 9] = (16 * rows - 3).to_bytes(2) + (8 * columns - 1).to_bytes(2)
    assert jpeg[frame + 11] == 0x21
    jpeg[frame + 11] = 0x12
    return bytes(jpeg)


def separate_scans(image: Image.Image) -> bytes:
    """A baseline file with a scan for each component, put together from three grey files."""
    grey = [segments(encoded(channel, quality=85)) for channel in image.convert("YCbCr").split()]
    first = grey[0][0]
    size = image.height.to_bytes(2) + image.width.to_bytes(2)
    frame = b"\xff\xc0\x00\x11\x08" + size + b"\x03" + bytes([1, 0x11, 0, 2, 0x11, 0, 3, 0x11, 0])
    scans = [
        b"\xff\xda\x00\x08\x01" + bytes([index + 1, 0, 0, 63, 0]) + data for index, (_, data) in enumerate(grey)
    ]
    return b"\xff\xd8" + first[0xDB] + first[0xC4] + frame + b"".join(scans) + b"\xff\xd9"


def files() -> dict[str, bytes]:
    found = {}
    sizes = ((45, 37), (70, 51), (32, 48), (33, 17))
    for index, subsampling in enumerate(("4:4:4", "4:2:2", "4:2:0", "4:1:1")):
        name = subsampling.replace(":", "")
        width, height = sizes[index]
        image = picture(name, width, height)
        found[f"{name}.jpg"] = encoded(image, quality=88, subsampling=subsampling)
        found[f"{name}_progressive.jpg"] = encoded(image, quality=75, subsampling=subsampling, progressive=True)
        restarts = {"restart_marker_blocks": index + 1}
        found[f"{name}_restarts.jpg"] = encoded(image.crop((3, 2, width, height)), subsampling=subsampling, **restarts)
        narrow = picture(f"{name}_narrow", 3, 20)
        found[f"{name}_narrow.jpg"] = encoded(narrow, quality=95, subsampling=subsampling, optimize=True)
    found["progressive_restarts.jpg"] = encoded(
        picture("progressive_restarts", 50, 40), quality=90, progressive=True, restart_marker_rows=1
    )
    for quality in (1, 20, 100):
        pixels = noise_picture(f"jpeg/{quality}", 40, 24)
        found[f"quality_{quality}.jpg"] = encoded(Image.fromarray(pixels, "RGB"), quality=quality, optimize=True)
    found["grey.jpg"] = encoded(picture("grey", 41, 30).convert("L"), quality=80)
    found["grey_progressive.jpg"] = encoded(picture("grey", 41, 30).convert("L"), quality=80, progressive=True)
    found["rgb.jpg"] = encoded(picture("rgb", 35, 26), quality=90, keep_rgb=True)
    found["440.jpg"] = vertical_pairs(picture("440", 48, 32))
    found["separate_scans.jpg"] = separate_scans(picture("separate_scans", 30, 25))
    return found


def write(folder: Path) -> None:
    tensors = {}
    for name, jpeg in files().items():
        (folder / name).write_bytes(jpeg)
        with Image.open(io.BytesIO(jpeg)) as image:
            width, height = image.size
            tensors[name] = np.asarray(image.convert("RGB"))
        for reduction in REDUCTIONS:
            with Image.open(io.BytesIO(jpeg)) as image:
                image.draft(image.mode, (max(width // reduction, 1), max(height // reduction, 1)))
                if image.size == (-(-width // reduction), -(-height // reduction)):
                    image = image.convert("RGB")
                    tensors[f"{name}@{reduction}"] = np.asarray(image)
                    if reduction == 2 and width % 2 + height % 2 > 0 and min(width, height) > 30:
                        box = (0, 0, width / 2, height / 2)
                        resized = image.resize((width // 5, height // 5), Image.Resampling.BICUBIC, box)
                        tensors[f"{name}@2 resized"] = np.asarray(resized)
    assert sum("@" in name for name in tensors) > 60 and sum("resized" in name for name in tensors) > 5
    save_tensors(folder / "expected.safetensors", tensors, {"axes": "height, width, channel"})
