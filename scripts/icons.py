"""Renders emoji and flags from icon sets in npm packages, on white, with resvg. Used by other scripts."""

import io
import json
from pathlib import Path

import resvg_py
from PIL import Image

from packages import Package, fetch, read_member

# vendor -> package. `info.json` in each package has the licence of the drawings, which may differ from the package's.
EMOJI_SETS = {
    "noto": Package("npm", "@iconify-json/noto", "1.2.9", "3e918d88fc945c0bb3d468dbace6f88caef67f01c9f0e7bcae0915a042e8f1ad"),
    "twemoji": Package("npm", "@iconify-json/twemoji", "1.2.5", "19046dff7d8707ce96212ec86468b36ac5f8e60409629dd13f809265c6d0ebb7"),
    "openmoji": Package("npm", "@iconify-json/openmoji", "1.2.29", "03181e2c156cab35cf4a62f1f7886bd971d59212e75ac3f189d5a4cae3930fc5"),
    "fluent": Package("npm", "@iconify-json/fluent-emoji-flat", "1.2.6", "7d064769dee690815f823bc5bcc511d957198caf9f5edd8dd9c1aa48a6aeb175"),
    "emojione": Package("npm", "@iconify-json/emojione", "1.2.3", "26a14f44284407e8bcde91799388dca2bfd91dbcd55a97f425524a1c5b73610e"),
}
FLAG_SETS = {
    "flag-icons": Package("npm", "@iconify-json/flag", "1.2.12", "42246bc20f6154739a192172d71ffe477747ad38278f2e912ec43f4dcb5a15e0"),
    "coreui": Package("npm", "@iconify-json/cif", "1.2.7", "804801450b77e3b2c9a2b716fb45b44ee2a97e702e21ac6bca6358d0f7eb13c8"),
    "flagpack": Package("npm", "@iconify-json/flagpack", "1.2.8", "165ea189ef6ee00b8c10d66c0a2702a6afe1d89d7feafdc3a02a459d65580483"),
}
UNICODE_NAMES = Package("npm", "unicode-emoji-json", "0.9.0", "ae7efacb55533385bf8767d613dbd36c71226669759d95919a6e9059f5e4c401")


def svg_of(icons: dict, key: str, size: int) -> str:
    """Returns the drawing as SVG, centred in a square with sides of `size` pixels. `icons` is an iconify set."""
    icon = icons["icons"][key]
    # Defaults of the iconify format. An icon's value overrides its set's.
    left, top, width, height = (
        icon.get(side, icons.get(side, default)) for side, default in (("left", 0), ("top", 0), ("width", 16), ("height", 16))
    )
    side = max(width, height)
    left, top = left - (side - width) / 2, top - (side - height) / 2
    return (
        '<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
        f'viewBox="{left} {top} {side} {side}" width="{size}" height="{size}">{icon["body"]}</svg>'
    )


def rasterise(svg: str, size: int) -> Image.Image:
    """Renders SVG as RGB on white."""
    # Without system fonts, the result is the same on every machine.
    png = resvg_py.svg_to_bytes(svg_string=svg, width=size, height=size, background="#ffffff", skip_system_fonts=True)
    return Image.open(io.BytesIO(bytes(png))).convert("RGB")


class IconSet:
    """The drawings of one vendor in the iconify format (`body` is SVG without its outer element)."""

    def __init__(self, package: Package, folder: Path):
        archive = fetch(package, folder)
        self.package = package
        self._set = json.loads(read_member(archive, "icons.json"))
        self.info = json.loads(read_member(archive, "info.json"))

    def __contains__(self, key: str) -> bool:
        """Whether the set draws `key` itself. Aliases do not count: they show another concept, sometimes mirrored."""
        return key in self._set["icons"]

    def draw(self, key: str, size: int) -> Image.Image:
        """Renders the drawing as RGB on white, centred in a square with sides of `size` pixels."""
        return rasterise(svg_of(self._set, key, size), size)

    def licence(self) -> str:
        """Returns one line for a list of sources."""
        package, info = self.package, self.info
        return f"- {package.name} {package.version}: {info['name']} by {info['author']['name']}, {info['author']['url']}, {info['license']['spdx']}"


def unicode_names(folder: Path) -> dict:
    """Returns a map from emoji to `name`, `slug` and `group`, in Unicode order."""
    return json.loads(read_member(fetch(UNICODE_NAMES, folder), "data-by-emoji.json"))
