"""Writes `data/tiny`, the example in the repository: flags, and two small towers without weights.

The files are committed, so run this only to change them. Needs npm, network access and the packages of
scripts/requirements.txt.

    python -m venv .venv
    .venv/bin/pip install -r scripts/requirements.txt
    .venv/bin/python scripts/tiny_data.py

Two makers' drawings are for training, a third maker's for evaluation. Flags look similar whoever draws them, so even
towers from scratch learn within a minute to name the flags of an unseen maker.
"""

import csv
import json
import shutil
import string
import sys
import tempfile
from pathlib import Path

from PIL import Image

from icons import FLAG_SETS, IconSet, unicode_names

INTO = Path(__file__).resolve().parent.parent / "data" / "tiny"
SIZE = 48
COLOURS = 32  # in the PNG palette; flags use few, and each file takes a third of a kilobyte
LONGEST_NAME = 7  # letters; only short one-word names, to keep the example small
# flag-icons has every flag as a rectangle and as a square; coreui and flagpack only as a rectangle.
TRAIN = {"flag-icons": ("-4x3", "-1x1"), "coreui": ("",)}
HELD_OUT = ("flagpack", "")
# coreui 1.2.7 draws another country's flag for these codes.
WRONG = {"gn"}

PREPROCESSOR = {
    "image_processor_type": "ViTImageProcessor",
    "do_convert_rgb": True,
    "do_resize": True,
    "size": {"height": 32, "width": 32},
    "resample": 3,
    "do_rescale": True,
    "rescale_factor": 1 / 255,
    "do_normalize": True,
    "image_mean": [0.5, 0.5, 0.5],
    "image_std": [0.5, 0.5, 0.5],
}
VIT = {
    "architectures": ["ViTModel"],
    "model_type": "vit",
    "hidden_size": 96,
    "num_hidden_layers": 3,
    "num_attention_heads": 3,
    "intermediate_size": 384,
    "hidden_act": "gelu",
    "hidden_dropout_prob": 0.0,
    "attention_probs_dropout_prob": 0.0,
    "initializer_range": 0.02,
    "layer_norm_eps": 1e-12,
    "image_size": 32,
    "patch_size": 8,
    "num_channels": 3,
    "qkv_bias": True,
}
BERT = {
    "architectures": ["BertModel"],
    "model_type": "bert",
    "hidden_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 3,
    "intermediate_size": 384,
    "hidden_act": "gelu",
    "hidden_dropout_prob": 0.0,
    "attention_probs_dropout_prob": 0.0,
    "initializer_range": 0.02,
    "layer_norm_eps": 1e-12,
    "max_position_embeddings": 64,
    "type_vocab_size": 2,
    "pad_token_id": 0,
}


def countries(packages: Path, sets: dict[str, IconSet]) -> dict[str, str]:
    """Returns code -> name of the countries that every maker draws and that have one short word as their name."""
    found = {}
    for emoji, entry in unicode_names(packages).items():
        # A flag emoji spells the country's code in regional indicators; U+1F1E6 is A.
        code = "".join(chr(ord(letter) - 0x1F1E6 + ord("a")) for letter in emoji if 0x1F1E6 <= ord(letter) <= 0x1F1FF)
        name = entry["name"].removeprefix("flag ")
        short = name.isascii() and name.isalpha() and len(name) <= LONGEST_NAME
        drawn = all(code + suffix in sets[maker] for maker, suffixes in TRAIN.items() for suffix in suffixes)
        if len(code) == 2 and short and drawn and code + HELD_OUT[1] in sets[HELD_OUT[0]] and code not in WRONG:
            found[code] = name
    return dict(sorted(found.items(), key=lambda item: item[1]))


def save(image: Image.Image, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image.quantize(COLOURS, dither=Image.Dither.NONE).save(path, optimize=True)


def tokenizer(captions: list[str]) -> dict:
    """Returns a WordPiece `tokenizer.json`: the words of the captions, and single characters for all other words."""
    specials = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
    words = sorted({word for caption in captions for word in caption.lower().split()})
    characters = string.ascii_lowercase + string.digits
    pieces = [*specials, *string.punctuation, *characters, *(f"##{character}" for character in characters), *words]
    vocabulary = {piece: number for number, piece in enumerate(dict.fromkeys(pieces))}

    def special(token: str) -> dict:
        return {"SpecialToken": {"id": token, "type_id": 0}}

    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [
            {"id": vocabulary[token], "content": token, "single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
            for token in specials
        ],
        "normalizer": {"type": "BertNormalizer", "clean_text": True, "handle_chinese_chars": True, "strip_accents": None, "lowercase": True},
        "pre_tokenizer": {"type": "BertPreTokenizer"},
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [special("[CLS]"), {"Sequence": {"id": "A", "type_id": 0}}, special("[SEP]")],
            "pair": [
                special("[CLS]"),
                {"Sequence": {"id": "A", "type_id": 0}},
                special("[SEP]"),
                {"Sequence": {"id": "B", "type_id": 1}},
                {"SpecialToken": {"id": "[SEP]", "type_id": 1}},
            ],
            "special_tokens": {
                token: {"id": token, "ids": [vocabulary[token]], "tokens": [token]} for token in ("[CLS]", "[SEP]")
            },
        },
        "decoder": {"type": "WordPiece", "prefix": "##", "cleanup": True},
        "model": {
            "type": "WordPiece",
            "unk_token": "[UNK]",
            "continuing_subword_prefix": "##",
            "max_input_chars_per_word": 100,
            "vocab": vocabulary,
        },
    }


def write_json(path: Path, value: dict) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, indent=1) + "\n", encoding="utf-8")


def write_towers(into: Path, captions: list[str]) -> None:
    words = tokenizer(captions)
    write_json(into / "vit" / "config.json", VIT)
    write_json(into / "vit" / "preprocessor_config.json", PREPROCESSOR)
    write_json(into / "bert" / "config.json", BERT | {"vocab_size": len(words["model"]["vocab"])})
    write_json(into / "bert" / "tokenizer.json", words)
    named = {"unk_token": "[UNK]", "sep_token": "[SEP]", "pad_token": "[PAD]", "cls_token": "[CLS]"}
    write_json(into / "bert" / "tokenizer_config.json", {"tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": 64, **named})


def licences(sets: dict[str, IconSet], packages: Path) -> str:
    sources = "\n".join(icons.licence() for icons in sets.values())
    return f"""# Sources and licences of `data/tiny`

The drawings are flags from these packages (npm), drawn at {SIZE} pixels on white and reduced to {COLOURS} colours by
`scripts/tiny_data.py`:

{sources}

Country names are Unicode's, from unicode-emoji-json (MIT). The towers are configurations without weights, made by the
same script, under the licence of this repository.

## The MIT licence, for flag-icons and flagpack

{MIT_TEXT}"""


MIT_TEXT = """\
Copyright (c) 2013 Panayiotis Lipiridis (flag-icons)
Copyright (c) Yummygum (flagpack)

Permission is hereby granted, free of charge, to any person obtaining a copy of this software and associated
documentation files (the "Software"), to deal in the Software without restriction, including without limitation the
rights to use, copy, modify, merge, publish, distribute, sublicense, and/or sell copies of the Software, and to permit
persons to whom the Software is furnished to do so, subject to the following conditions:

The above copyright notice and this permission notice shall be included in all copies or substantial portions of the
Software.

THE SOFTWARE IS PROVIDED "AS IS", WITHOUT WARRANTY OF ANY KIND, EXPRESS OR IMPLIED, INCLUDING BUT NOT LIMITED TO THE
WARRANTIES OF MERCHANTABILITY, FITNESS FOR A PARTICULAR PURPOSE AND NONINFRINGEMENT. IN NO EVENT SHALL THE AUTHORS OR
COPYRIGHT HOLDERS BE LIABLE FOR ANY CLAIM, DAMAGES OR OTHER LIABILITY, WHETHER IN AN ACTION OF CONTRACT, TORT OR
OTHERWISE, ARISING FROM, OUT OF OR IN CONNECTION WITH THE SOFTWARE OR THE USE OR OTHER DEALINGS IN THE SOFTWARE.
"""


def write(into: Path, packages: Path) -> str:
    sets = {maker: IconSet(package, packages) for maker, package in FLAG_SETS.items()}
    names, rows = countries(packages, sets), []
    for code, name in names.items():
        for maker, suffixes in TRAIN.items():
            for suffix in suffixes:
                path = f"train/{maker}{suffix}/{name}.png"
                save(sets[maker].draw(code + suffix, SIZE), into / path)
                rows.append((path, f"flag of {name}"))
        maker, suffix = HELD_OUT
        save(sets[maker].draw(code + suffix, SIZE), into / "heldout" / name / f"{maker}.png")
    with (into / "train.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, lineterminator="\n").writerows([("image", "caption"), *rows])
    (into / "templates.txt").write_text("flag of {c}\n", encoding="utf-8")
    write_towers(into / "towers", [caption for _, caption in rows])
    (into / "LICENSE.md").write_text(licences(sets, packages), encoding="utf-8")
    size = sum(path.stat().st_size for path in into.rglob("*") if path.is_file())
    return f"{len(names)} countries, {len(rows)} training drawings, {len(names)} held out, {size / 1e3:.0f} kB"


def main() -> None:
    packages = INTO.parent.parent / "quickstart" / "packages"
    INTO.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=INTO.parent, prefix=".partial-") as partial:
        made = Path(partial) / "tiny"
        made.mkdir()
        what = write(made, packages)
        shutil.rmtree(INTO, ignore_errors=True)
        made.rename(INTO)
    print(f"{INTO.relative_to(INTO.parent.parent)}: {what}")


if __name__ == "__main__":
    sys.exit(main())
