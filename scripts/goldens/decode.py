"""decode/: one small file per colour mode and format, and the expected RGB pixels.

The first frame of a file is decoded in three steps: apply EXIF orientation (`ImageOps.exif_transpose`), composite
transparency on white (`Image.alpha_composite`), then `convert("RGB")`. 16-bit grey is an exception: Pillow's
`convert("RGB")` clips every value above 255 to white, so the expected value is round(value / 257), the 8-bit level
nearest in brightness.

PNG, GIF, lossless WebP and JPEG decode exactly (composited pixels to within one level). Decoders of lossy WebP and of
CMYK may differ by a few levels.
"""

from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from .common import generator, save_tensors
from .pictures import noise_picture

WIDTH, HEIGHT = 23, 17
ORIENTATION = 0x0112


def smooth(name: str, channels: int) -> np.ndarray:
    """An image without hard noise, so that decoders of lossy formats differ only by rounding."""
    draw = generator(name)
    y, x = np.meshgrid(np.linspace(0, 1, HEIGHT), np.linspace(0, 1, WIDTH), indexing="ij")
    waves = [127.5 + 110 * np.sin(draw.uniform(2, 6) * x + draw.uniform(2, 6) * y + k) for k in range(channels)]
    return np.rint(np.stack(waves, axis=-1)).astype(np.uint8)


def alpha_ramp() -> np.ndarray:
    """An alpha channel from fully transparent on the left to opaque on the right."""
    return np.broadcast_to(np.rint(np.linspace(0, 255, WIDTH)).astype(np.uint8)[None, :, None], (HEIGHT, WIDTH, 1))


def write_png(folder: Path) -> None:
    rgb = noise_picture("decode/png", WIDTH, HEIGHT)
    grey = rgb[..., :1]
    alpha = alpha_ramp()
    sixteen = generator("decode/grey16").integers(0, 65536, (HEIGHT, WIDTH)).astype(np.uint16)
    palette = Image.fromarray(rgb, "RGB").quantize(16)
    Image.fromarray(rgb, "RGB").save(folder / "rgb.png")
    Image.fromarray(np.concatenate([rgb, alpha], axis=2), "RGBA").save(folder / "rgba.png")
    Image.fromarray(np.concatenate([grey, alpha], axis=2), "LA").save(folder / "grey_alpha.png")
    Image.fromarray(grey[..., 0], "L").save(folder / "grey.png")
    Image.fromarray(sixteen).save(folder / "grey16.png")
    Image.fromarray(grey[..., 0], "L").convert("1").save(folder / "one_bit.png")
    palette.save(folder / "palette.png")
    palette.save(folder / "palette_transparent.png", transparency=bytes([0, 90, 200] + [255] * 13))
    colour = tuple(int(value) for value in rgb[2, 3])
    Image.fromarray(rgb, "RGB").save(folder / "rgb_transparent_colour.png", transparency=colour)
    Image.fromarray(rgb, "RGB").save(folder / "exif_6.png", exif=orientation(6))


def orientation(value: int) -> Image.Exif:
    exif = Image.Exif()
    exif[ORIENTATION] = value
    return exif


def write_jpeg(folder: Path) -> None:
    rgb = Image.fromarray(smooth("decode/jpeg", 3), "RGB")
    rgb.save(folder / "444.jpg", quality=92, subsampling=0)
    rgb.save(folder / "420.jpg", quality=92, subsampling=2)
    rgb.save(folder / "progressive.jpg", quality=92, subsampling=0, progressive=True)
    rgb.convert("L").save(folder / "grey.jpg", quality=92)
    Image.fromarray(smooth("decode/cmyk", 4), "CMYK").save(folder / "cmyk.jpg", quality=92)
    for value in (3, 6):
        rgb.save(folder / f"exif_{value}.jpg", quality=92, subsampling=0, exif=orientation(value))


def write_others(folder: Path) -> None:
    rgb = smooth("decode/webp", 3)
    rgba = Image.fromarray(np.concatenate([rgb, alpha_ramp()], axis=2), "RGBA")
    Image.fromarray(rgb, "RGB").save(folder / "lossy.webp", quality=90)
    rgba.save(folder / "lossless_alpha.webp", lossless=True)
    frames = [Image.fromarray(noise_picture(f"decode/gif/{k}", WIDTH, HEIGHT), "RGB").quantize(16) for k in range(3)]
    frames[0].save(folder / "animated.gif", save_all=True, append_images=frames[1:], duration=80, loop=0)
    frames[0].save(folder / "transparent.gif", transparency=3)


def expected(path: Path) -> np.ndarray:
    with Image.open(path) as file:
        image = ImageOps.exif_transpose(file)
    if image.mode in ("I;16", "I"):
        values = np.asarray(image).astype(np.float64)
        return np.rint(values / 257).astype(np.uint8)[..., None].repeat(3, axis=2)
    if image.has_transparency_data:
        white = Image.new("RGBA", image.size, (255, 255, 255, 255))
        image = Image.alpha_composite(white, image.convert("RGBA"))
    return np.asarray(image.convert("RGB"))


def write(folder: Path) -> None:
    write_png(folder)
    write_jpeg(folder)
    write_others(folder)
    tensors = {path.name: expected(path) for path in sorted(folder.iterdir())}
    assert len(np.unique(tensors["grey16.png"])) > 100, "16-bit grey was clipped"
    for name in ("exif_6.jpg", "exif_6.png"):
        assert tensors[name].shape == (WIDTH, HEIGHT, 3)
    assert np.array_equal(tensors["exif_3.jpg"], tensors["444.jpg"][::-1, ::-1])
    for name in ("palette", "rgb"):
        other = "palette_transparent.png" if name == "palette" else "rgb_transparent_colour.png"
        assert not np.array_equal(tensors[f"{name}.png"], tensors[other]), f"{other} shows no transparency"
    assert (tensors["rgba.png"][:, 0] == 255).all(), "transparent pixels are white"
    save_tensors(folder / "expected.safetensors", tensors, {"axes": "height, width, channel"})
