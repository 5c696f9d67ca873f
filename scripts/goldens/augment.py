"""augment/: small pictures, and what torchvision's transforms for Pillow images make of them.

`expected.safetensors` has the pixels for fixed parameters, named `<picture>/<operation>` or
`<picture>/<operation>_<parameter>`. `turn` is a shift of the hue by Python's `colorsys`, in floats: torchvision's `hue`
rounds hue and saturation to 8 bits on the way. `rand_augment.json` has the CRC-32 of the pixels of every operation of
`RandAugment` that dualenc has, at each of its 31 magnitudes and with both signs.
"""

import colorsys
import zlib
from pathlib import Path

import numpy as np
from PIL import Image
from torchvision.transforms import InterpolationMode, RandAugment
from torchvision.transforms import functional as F
from torchvision.transforms.autoaugment import _apply_op

from .common import generator, save_json, save_tensors
from .pictures import noise_picture

WIDTH, HEIGHT = 19, 13
FACTORS = [0.0, 0.3, 0.85, 1.0, 1.4, 2.6]
TURNS = [-0.5, -0.2, -0.01, 0.0, 0.05, 0.25, 0.5]
OPERATIONS = ["Brightness", "Color", "Contrast", "Posterize", "Solarize", "AutoContrast", "Equalize", "TranslateX", "TranslateY"]
SIGNED = ["Brightness", "Color", "Contrast", "TranslateX", "TranslateY"]


def pictures() -> dict[str, np.ndarray]:
    noise = noise_picture("augment/noise", WIDTH, HEIGHT)
    y, x = np.meshgrid(np.linspace(0, 1, HEIGHT), np.linspace(0, 1, WIDTH), indexing="ij")
    # Few, close levels, and a channel of one level: the histogram operations have little to spread, or nothing.
    pale = np.stack([90 + 40 * x, 110 + 30 * y * x, np.full_like(x, 77)], axis=-1).astype(np.uint8)
    # Every pixel grey, where the hue is undefined, with some primary colours.
    grey = np.repeat(generator("augment/grey").integers(0, 256, (HEIGHT, WIDTH, 1)), 3, axis=2).astype(np.uint8)
    grey[0, :6] = [[255, 0, 0], [0, 255, 0], [0, 0, 255], [255, 255, 0], [0, 255, 255], [255, 0, 255]]
    return {"noise": noise, "pale": pale, "grey": grey}


def turned(pixels: np.ndarray, turn: float) -> np.ndarray:
    def pixel(rgb: np.ndarray) -> list[float]:
        hue, saturation, value = colorsys.rgb_to_hsv(*(rgb / 255).tolist())
        return list(colorsys.hsv_to_rgb((hue + turn) % 1.0, saturation, value))

    return np.rint(np.apply_along_axis(pixel, 2, pixels) * 255).astype(np.uint8)


def results(image: Image.Image) -> dict[str, Image.Image]:
    named = {"flip": F.hflip(image), "autocontrast": F.autocontrast(image), "equalize": F.equalize(image)}
    for factor in FACTORS:
        named[f"brightness_{factor}"] = F.adjust_brightness(image, factor)
        named[f"contrast_{factor}"] = F.adjust_contrast(image, factor)
        named[f"saturation_{factor}"] = F.adjust_saturation(image, factor)
    for turn in TURNS:
        named[f"hue_{turn}"] = F.adjust_hue(image, turn)
        named[f"turn_{turn}"] = turned(np.asarray(image), turn)
    for x, y in [(4, 0), (-7, 0), (0, 3), (0, -5), (WIDTH, 0)]:
        moved = F.affine(image, angle=0.0, translate=[x, y], scale=1.0, shear=[0.0, 0.0], fill=None)
        named[f"translate_{x}_{y}"] = moved
    return named


def magnitudes(space: dict, name: str) -> list[float]:
    values, signed = space[name]
    if values.ndim == 0:
        return [0.0]
    return [float(value) * sign for value in values for sign in ((1.0, -1.0) if signed else (1.0,))]


def write(folder: Path) -> None:
    tensors, sums = {}, {}
    for picture, pixels in pictures().items():
        image = Image.fromarray(pixels, "RGB")
        image.save(folder / f"{picture}.png")
        for name, result in results(image).items():
            tensors[f"{picture}/{name}"] = np.asarray(result)
        space = RandAugment()._augmentation_space(31, (HEIGHT, WIDTH))
        assert [name for name in OPERATIONS if space[name][1]] == SIGNED
        for name in OPERATIONS:
            changed = [_apply_op(image, name, m, InterpolationMode.NEAREST, None) for m in magnitudes(space, name)]
            sums[f"{picture}/{name}"] = [zlib.crc32(np.asarray(result).tobytes()) for result in changed]
    save_tensors(folder / "expected.safetensors", tensors)
    save_json(folder / "rand_augment.json", sums)
