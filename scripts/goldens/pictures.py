"""Small pictures drawn with numpy alone: a figure on a background with coarse noise, or plain noise."""

import numpy as np
from PIL import Image

from .common import generator

COLOURS = {
    "red": (205, 40, 45),
    "green": (45, 150, 60),
    "blue": (40, 80, 190),
    "yellow": (235, 205, 50),
    "white": (240, 240, 235),
    "black": (25, 22, 28),
}


def inside(figure: str, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Returns which points of the square [-1, 1] x [-1, 1] belong to the figure."""
    if figure == "circle":
        return x**2 + y**2 < 0.45
    if figure == "square":
        return (np.abs(x) < 0.6) & (np.abs(y) < 0.6)
    if figure == "triangle":
        return (y < 0.6) & (np.abs(x) < (y + 0.7) / 2)
    if figure == "stripes":
        return np.floor(y * 3.5) % 2 == 0
    raise ValueError(f"unknown figure `{figure}`")


def figure_picture(name: str, figure: str, colour: str, ground: str) -> Image.Image:
    """Sides of 30 to 60 px, and noise in steps of 24 levels on cells of 3 x 3 px, so that the PNG is below 2 kB."""
    draw = generator(name)
    height, width = (int(side) for side in draw.integers(30, 61, 2))
    y, x = np.meshgrid(np.linspace(-1, 1, height), np.linspace(-1, 1, width), indexing="ij")
    shift = draw.uniform(-0.25, 0.25, 2)
    mask = inside(figure, x + shift[0], y + shift[1])[..., None]
    pixels = np.where(mask, np.array(COLOURS[colour]), np.array(COLOURS[ground]))
    cells = draw.integers(-1, 2, (height // 3 + 1, width // 3 + 1, 3)) * 24
    noise = cells.repeat(3, axis=0).repeat(3, axis=1)[:height, :width]
    return Image.fromarray(np.clip(pixels + noise, 0, 255).astype(np.uint8), "RGB")


def noise_picture(name: str, width: int, height: int, channels: int = 3) -> np.ndarray:
    """A smooth gradient plus noise over the whole range, with pure black and white spots to provoke overshoot."""
    draw = generator(name)
    y, x = np.meshgrid(np.linspace(0, 1, height), np.linspace(0, 1, width), indexing="ij")
    slopes = draw.uniform(-200, 200, (2, channels))
    base = 128 + (x[..., None] - 0.5) * slopes[0] + (y[..., None] - 0.5) * slopes[1]
    pixels = base + draw.normal(0, 40, (height, width, channels))
    spots = draw.random((height, width, 1))
    pixels = np.where(spots < 0.06, 0, np.where(spots > 0.94, 255, pixels))
    return np.clip(np.rint(pixels), 0, 255).astype(np.uint8)
