#!/usr/bin/env python3
"""Writes the class names and prompt templates that the package clip-benchmark carries, as files for `dualenc eval`.

    pip download --no-deps --dest . clip-benchmark==1.6.2
    python scripts/clip_benchmark_lists.py clip_benchmark-1.6.2-py2.py3-none-any.whl lists

The package need not be installed: its wheel is a zip file, and only its JSON files are read. The output has a folder a
language and data set, such as `lists/en/imagenet1k`, with `classnames.txt`, one name per line in the order of the class
numbers, and `zeroshot_classification_templates.txt`. A set that has only one of the two gets that one. Use them as

    dualenc eval --model MODEL --task zero-shot --images val --classnames lists/en/imagenet1k/classnames.txt \\
        --templates lists/en/imagenet1k/zeroshot_classification_templates.txt

or copy both beside a data set's shards, where `dualenc eval --data` finds them.
"""

import argparse
import json
import sys
import zipfile
from pathlib import Path

FOLDER = "clip_benchmark/datasets/"
KINDS = {
    "_classnames.json": "classnames.txt",
    "_zeroshot_classification_templates.json": "zeroshot_classification_templates.txt",
}


def problem(entries: object) -> str | None:
    """Why entries cannot be the lines of a file: a blank line between names would shift the classes after it."""
    if not isinstance(entries, list):
        return "no list"
    for number, entry in enumerate(entries):
        if not isinstance(entry, str) or not entry.strip() or "\n" in entry:
            return f"entry {number} is {entry!r}"
    return None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("wheel", type=Path, help="the wheel of clip-benchmark")
    parser.add_argument("out", type=Path, help="folder to write to")
    arguments = parser.parse_args()
    written, left_out = 0, []
    with zipfile.ZipFile(arguments.wheel) as wheel:
        for member in sorted(wheel.namelist()):
            kind = next((kind for kind in KINDS if member.startswith(FOLDER) and member.endswith(kind)), None)
            if kind is None:
                continue
            language = member[len(FOLDER) : -len(kind)]
            for name, entries in json.loads(wheel.read(member)).items():
                if reason := problem(entries):
                    left_out.append(f"{member}: {name}: {reason}")
                    continue
                path = arguments.out / language / name / KINDS[kind]
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text("".join(entry.strip() + "\n" for entry in entries), encoding="utf-8")
                written += 1
    if not written:
        sys.exit(f"{arguments.wheel}: no list below `{FOLDER}`; expected the wheel of clip-benchmark")
    print(f"{written} files below {arguments.out}")
    for reason in left_out:
        print(f"left out: {reason}")


if __name__ == "__main__":
    main()
