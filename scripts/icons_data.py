"""Fetches icon sets and writes their drawings and names to `icons/`, to compare recipes on.

scripts/icons.sh runs it. Needs npm, network access and the packages of scripts/requirements.txt. All drawings come from
one npm package, @iconify/json; `icons/data/SOURCES.md` lists the sets that were used with their licences.

`icons/data` has:

- images/SET/NAME.png: drawings, 112 px, on white.
- train-20k.csv, train-100k.csv: the drawings of many designers with the caption columns `name`, `aliases` (other names
  of the drawing, separated by commas) and `categories`. The first is a part of the second.
- validation.csv: 4,000 drawings of four designers that are in neither, with their names (`image`, `name`). Drawings of
  one name, by several designers or in two styles, are right answers for each other's name.
- new-names-20k.csv, new-names-100k.csv: those of validation.csv with a name that is neither a name nor an alias in the
  training table of this size.
- validation-aliases.csv: those of validation.csv that have other names, with these.

What is left out:

- Sets for final figures (WITHHELD): no script here reads them.
- Logos, flags and emoji, as sets and, where the set marks them, as single icons: their names are not words, or they
  are in the quickstart's data. Programming icons, which are mostly logos.
- Sets of the same designer as a validation set or a withheld one, or that continue such a set (KIN).
- Animated drawings, names without a word, sets that write words together, sets for non-commercial use.
- Training drawings that look like one of validation.csv, by a 16 x 16 thumbnail.
"""

import csv
import hashlib
import json
import multiprocessing
import re
import sys
import tarfile
from collections import defaultdict
from pathlib import Path
from typing import Iterator, NamedTuple

import numpy as np
from PIL import Image

from icons import rasterise, svg_of
from icons_names import Names, has_word
from packages import Package, build, fetch

ROOT = Path(__file__).resolve().parent.parent / "icons"
ICONIFY = Package("npm", "@iconify/json", "2.2.535", "1a545f86fa224d6531d8fb101dcbe83aac2b28689a21cbed6fc68318a5af4d91")
# A change in any of these files rebuilds the data.
MAKERS = ("icons.py", "icons_data.py", "icons_names.py", "packages.py")

# Sets whose prefix begins with one of these are never read, so that figures on them are of unseen designers.
WITHHELD = ("lucide", "carbon", "game-icons", "healthicons", "streamline", "fluent-emoji")
VALIDATION = ("tabler", "ph", "mdi", "solar")
KIN = {
    "feather": "Lucide continues it",
    "vadivam": "icons of Lucide's names",
    "keyline-icons": "icons of Lucide's names",
    "guidance": "by Streamline",
    "covid": "by Streamline",
    "mdi-light": "by Pictogrammers, as `mdi`",
    "memory": "by Pictogrammers, as `mdi`",
    "zmdi": "by the community of `mdi`",
    "line-md": "in the style of `mdi`, animated",
}
CATEGORIES_OUT = ("Logos", "Emoji", "Programming")
SETS_OUT = {
    "svg-spinners": "animated",
    **{name: "flags" for name in ("circle-flags", "flag", "flagpack", "cif")},
    **{name: "logos" for name in ("academicons", "fa-brands", "fa6-brands", "bitcoin-icons", "devicon-line", "devicon-original", "unjs")},
    **{name: "words are written together" for name in ("whh", "et", "raphael", "formkit", "ls", "websymbol", "fontelico")},
}
BRAND = re.compile(r"\b(brands?|logos?|wordmarks?)\b", re.IGNORECASE)
# Categories that say nothing.
VAGUE = {"other", "others", "misc", "miscellaneous", "general", "uncategorized", "new", "all", "common", "basic", "basics", "icons"}

SIZE = 112
SEED = "icons-1"
PER_DESIGNER = 1000
STYLES_PER_NAME = 2
TRAIN = {"train-20k": 20_000, "train-100k": 100_000}
MAX_ALIASES = 5
# Cosine of two thumbnails of ink at which drawings count as the same; see `thumbnail`.
SAME = 0.97


class Drawing(NamedTuple):
    set: str
    key: str
    name: str
    style: str
    aliases: tuple[str, ...]
    categories: tuple[str, ...]
    svg: str

    @property
    def path(self) -> str:
        return f"images/{self.set}/{self.key}.png"

    @property
    def order(self) -> int:
        """A position that depends on the drawing alone."""
        return number(f"{self.set}:{self.key}")


def number(text: str) -> int:
    return int.from_bytes(hashlib.blake2s(f"{SEED}:{text}".encode()).digest()[:8], "big")


def sets(archive: Path) -> Iterator[dict]:
    """Yields the sets of the package that may be used, in the package's order."""
    with tarfile.open(archive) as tarball:
        for member in tarball:
            name = re.fullmatch(r"package/json/([a-z0-9-]+)\.json", member.name)
            if name and not name[1].startswith(WITHHELD):
                yield json.load(tarball.extractfile(member))


def excluded(icons: dict) -> str | None:
    """Returns why no drawing of the set is used, or None."""
    prefix, info = icons["prefix"], icons["info"]
    if prefix.startswith(WITHHELD):
        return "withheld"
    if prefix in KIN or prefix in SETS_OUT:
        return KIN.get(prefix) or SETS_OUT[prefix]
    if info.get("category") in CATEGORIES_OUT and prefix != "codicon":
        return info["category"].lower()
    if "NC" in info["license"]["spdx"].split("-"):
        return "licence"
    return None


def drawings_of(icons: dict) -> list[Drawing]:
    """Returns the usable drawings of a set, one size per name and style."""
    prefix = icons["prefix"]
    visible = {key: icon for key, icon in icons["icons"].items() if not icon.get("hidden")}
    names = Names(list(visible), list(icons.get("prefixes", ())), list(icons.get("suffixes", ())))
    categories, brands = defaultdict(list), set()
    for category, keys in icons.get("categories", {}).items():
        if BRAND.search(category):
            brands.update(keys)
        elif category.lower() not in VAGUE:
            for key in keys:
                categories[key].append(category.lower())
    aliases = defaultdict(dict)
    for alias, entry in icons.get("aliases", {}).items():
        # Other keys rotate or mirror the drawing: another concept.
        if set(entry) <= {"parent", "hidden"}:
            aliases[entry["parent"]][names.split(alias)[0]] = True
    best: dict[tuple[str, str], tuple] = {}
    for key, icon in visible.items():
        name, style = names.split(key)
        if key in brands or BRAND.search(key.replace("-", " ")) or not has_word(name) or "<animate" in icon["body"]:
            continue
        sizes = [int(word) for word in key.split("-") if word.isdigit()]
        kind = re.sub(r"\d+(x\d+|px)?-?", "", style).strip("-")
        # 24 px is the commonest size; icons of 12 px lack detail.
        rank = (abs(sizes[-1] - 24) if sizes else 0, key)
        if (name, kind) not in best or rank < best[name, kind][0]:
            best[name, kind] = (rank, key)
    found = []
    for (name, kind), (_, key) in best.items():
        others = tuple(alias for alias in aliases[key] if alias != name and has_word(alias) and not BRAND.search(alias))
        found.append(Drawing(prefix, key, name, kind, others[:MAX_ALIASES], tuple(categories[key][:2]), svg_of(icons, key, SIZE)))
    return found


def choose_validation(by_set: dict[str, list[Drawing]]) -> list[Drawing]:
    """Returns PER_DESIGNER drawings of each designer, half of them of names that another of the designers has too.

    Names come in a random order, and bring at most STYLES_PER_NAME drawings of each designer.
    """
    of_name: dict[str, dict[str, list[Drawing]]] = defaultdict(lambda: defaultdict(list))
    for designer in VALIDATION:
        for drawing in sorted(by_set[designer], key=lambda drawing: drawing.order):
            if len(of_name[drawing.name][designer]) < STYLES_PER_NAME:
                of_name[drawing.name][designer].append(drawing)
    room = {(designer, shared): PER_DESIGNER // 2 for designer in VALIDATION for shared in (True, False)}
    chosen = []
    for name in sorted(of_name, key=number):
        shared = len(of_name[name]) > 1
        for designer, drawings in of_name[name].items():
            taken = drawings[: room[designer, shared]]
            room[designer, shared] -= len(taken)
            chosen += taken
    if any(room.values()):
        sys.exit(f"error: too few validation drawings; still missing: {room}")
    return chosen


def choose_training(by_set: dict[str, list[Drawing]], count: int) -> list[Drawing]:
    """Returns `count` drawings: every set's first ones, up to a limit that is the same for all sets.

    A set's first drawings are of different names; further styles of a name come later. A smaller `count` gives a part
    of a larger one's drawings.
    """
    queues = []
    for drawings in by_set.values():
        seen: dict[str, int] = defaultdict(int)
        queue = []
        for drawing in sorted(drawings, key=lambda drawing: drawing.order):
            queue.append((seen[drawing.name], drawing.order, drawing))
            seen[drawing.name] += 1
        queues.append([drawing for _, _, drawing in sorted(queue, key=lambda entry: entry[:2])])
    ranked = sorted((place, drawing.order, drawing) for queue in queues for place, drawing in enumerate(queue))
    return [drawing for _, _, drawing in ranked[:count]]


def thumbnail(image: Image.Image) -> np.ndarray:
    """Returns the ink of a drawing as 256 values of unit norm, independent of its size, place and contrast."""
    ink = 255 - np.asarray(image.convert("L"), np.float32)
    rows, columns = np.nonzero(ink.max(1) > 32)[0], np.nonzero(ink.max(0) > 32)[0]
    if len(rows) == 0 or len(columns) == 0:
        return np.zeros(256, np.float32)
    box = ink[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    side = max(box.shape)
    square = np.zeros((side, side), np.float32)
    top, left = (side - box.shape[0]) // 2, (side - box.shape[1]) // 2
    square[top : top + box.shape[0], left : left + box.shape[1]] = box
    small = np.asarray(Image.fromarray(square).resize((16, 16), Image.Resampling.BOX), np.float32).ravel()
    return small / max(np.linalg.norm(small), 1e-6)


def render(job: tuple[str, str]) -> np.ndarray | None:
    """Writes one drawing and returns its thumbnail, or None if nothing is drawn."""
    svg, path = job
    try:
        image = rasterise(svg, SIZE)
    except ValueError:
        return None
    small = thumbnail(image)
    if not small.any():
        return None
    grey = np.asarray(image)
    if (grey[..., 0] == grey[..., 1]).all() and (grey[..., 1] == grey[..., 2]).all():
        image = image.convert("L")
    image.save(path)
    return small


def render_all(drawings: list[Drawing], into: Path) -> tuple[list[Drawing], np.ndarray]:
    """Writes the drawings and returns those that are not empty, with their thumbnails `[drawings, 256]`."""
    for folder in {(into / drawing.path).parent for drawing in drawings}:
        folder.mkdir(parents=True, exist_ok=True)
    jobs = [(drawing.svg, str(into / drawing.path)) for drawing in drawings]
    with multiprocessing.Pool() as pool:
        thumbnails = pool.map(render, jobs, chunksize=256)
    drawn = [(drawing, small) for drawing, small in zip(drawings, thumbnails) if small is not None]
    return [drawing for drawing, _ in drawn], np.stack([small for _, small in drawn])


def write_csv(path: Path, header: tuple[str, ...], rows: list[tuple[str, ...]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, lineterminator="\n").writerows([header, *rows])


def write_data(into: Path) -> str:
    """Writes everything below `icons/data` and returns a summary."""
    by_set, sources, bodies = {}, [], set()
    for icons in sets(fetch(ICONIFY, ROOT / "packages")):
        if excluded(icons):
            continue
        # Sets repeat each other's drawings, and older versions of themselves.
        fresh = [drawing for drawing in drawings_of(icons) if drawing.svg not in bodies]
        bodies.update(drawing.svg for drawing in fresh)
        by_set[icons["prefix"]] = fresh
        info = icons["info"]
        sources.append((icons["prefix"], f"{info['name']} by {info['author']['name']}, {info['license']['spdx']}"))
    validation, target = render_all(choose_validation(by_set), into)
    training = {name: drawings for name, drawings in by_set.items() if name not in VALIDATION}
    largest = max(TRAIN.values())
    # A reserve, for those that are empty or look like a validation drawing.
    candidates, thumbnails = render_all(choose_training(training, largest * 11 // 10), into)
    nearest = np.concatenate([(thumbnails[start : start + 4096] @ target.T).max(1) for start in range(0, len(thumbnails), 4096)])
    same = [drawing for drawing, cosine in zip(candidates, nearest) if cosine >= SAME]
    kept = [drawing for drawing, cosine in zip(candidates, nearest) if cosine < SAME]
    if len(kept) < largest:
        sys.exit(f"error: {len(kept)} training drawings remain, expected {largest}; raise the reserve")
    for drawing in (*same, *kept[largest:]):
        (into / drawing.path).unlink()
    summary = []
    for name, count in TRAIN.items():
        part = kept[:count]
        rows = [(drawing.path, drawing.name, ", ".join(drawing.aliases), ", ".join(drawing.categories)) for drawing in part]
        write_csv(into / f"{name}.csv", ("image", "name", "aliases", "categories"), rows)
        known = {name for drawing in part for name in (drawing.name, *drawing.aliases)}
        new = [(drawing.path, drawing.name) for drawing in validation if drawing.name not in known]
        write_csv(into / f"new-names-{name.removeprefix('train-')}.csv", ("image", "name"), new)
        designers, names = len({drawing.set for drawing in part}), len({drawing.name for drawing in part})
        summary.append(f"{name}: {len(part)} drawings of {names} names from {designers} sets, {len(new)} validation drawings of new names")
    write_csv(into / "validation.csv", ("image", "name"), [(drawing.path, drawing.name) for drawing in validation])
    others = [(drawing.path, alias) for drawing in validation for alias in drawing.aliases]
    write_csv(into / "validation-aliases.csv", ("image", "name"), others)
    counts = defaultdict(int)
    for drawing in (*validation, *kept[:largest]):
        counts[drawing.set] += 1
    check_withheld(into, counts)
    write_sources(into, sources, counts)
    summary.append(f"left out for looking like a validation drawing: {len(same)}")
    summary.append(f"validation: {len(validation)} drawings of {len({drawing.name for drawing in validation})} names")
    return "; ".join(summary)


def check_withheld(into: Path, used: dict[str, int]) -> None:
    """Fails if a withheld set is in the data, or a training set is also a validation set's kin."""
    folders = {path.name for path in (into / "images").iterdir() if any(path.iterdir())}
    for name in folders | set(used):
        if name.startswith(WITHHELD) or name in KIN:
            sys.exit(f"error: the set `{name}` must not be used, but it is in the data")


def write_sources(into: Path, sources: list[tuple[str, str]], counts: dict[str, int]) -> None:
    lines = [
        "# Where the files under `icons/` come from, and their licences",
        "",
        f"Drawings: npm {ICONIFY.name} {ICONIFY.version}, rasterised on white. Number of drawings used, name and licence of each set:",
        "",
        *(f"- `{prefix}`, {counts[prefix]}: {text}" for prefix, text in sources if counts[prefix]),
    ]
    (into / "SOURCES.md").write_text("\n".join(lines) + "\n", encoding="utf-8")


def main() -> None:
    build(ROOT / "data", write_data, MAKERS)


if __name__ == "__main__":
    main()
