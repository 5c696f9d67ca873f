#!/usr/bin/env python3
"""Writes the fixtures in tests/goldens/parquet/ and train/parquet/ with pyarrow and `datasets`, and what they hold.

`expected.json` has each file's columns and rows. The Rust tests read the fixtures; Python is needed to write them again.

    python -m venv .venv-parquet
    .venv-parquet/bin/pip install pyarrow==26.0.1 datasets==5.2.0 pillow==13.0.0 numpy==2.4.6
    .venv-parquet/bin/python scripts/parquet_goldens.py
"""

import csv
import importlib.metadata
import io
import json
import os
import shutil
import sys
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("HF_DATASETS_DISABLE_PROGRESS_BARS", "1")

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

PACKAGES = ("pyarrow", "datasets", "pillow", "numpy")
OUT = Path(__file__).resolve().parent.parent / "tests" / "goldens" / "parquet"
CODECS = ("none", "snappy", "zstd", "gzip", "lz4")
WORDS = ("a", "red", "cat", "café", "犬", "on", "the", "mat")

expected = {}


def blob(number: int, length: int | None = None) -> bytes:
    """Bytes that stand for an image."""
    draw = np.random.default_rng(number)
    return draw.integers(0, 256, length or int(draw.integers(1, 90)), dtype=np.uint8).tobytes()


def png(number: int) -> bytes:
    pixels = np.random.default_rng(number).integers(0, 256, (8, 6, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, format="png")
    return file.getvalue()


def caption(number: int) -> str:
    draw = np.random.default_rng(1000 + number)
    return " ".join(draw.choice(WORDS, int(draw.integers(1, 9)))) + f" {number}"


def expect(name: str, rows: list, image: str = "image", captions: list | None = None) -> None:
    """`rows`: the image as bytes, a path or None; and pairs of a caption and the number of its column."""
    expected[name] = {
        "image": image,
        "captions": captions or ["caption"],
        "rows": [
            {
                "bytes": image.hex() if isinstance(image, bytes) else None,
                "path": image if isinstance(image, str) else None,
                "captions": texts,
            }
            for image, texts in rows
        ],
    }


def write(name: str, columns: dict, schema: pa.Schema | None = None, **options) -> None:
    table = pa.table(columns, schema=schema)
    options = {"row_group_size": 16, "data_page_size": 256, "write_batch_size": 4, **options}
    pq.write_table(table, OUT / name, **options)


def plain() -> None:
    """Every codec, both versions of pages, with and without dictionaries; images and captions that repeat, and nulls."""
    numbers = [number % 25 for number in range(40)]
    images = [blob(number) for number in numbers]
    texts = [None if row % 9 == 4 else caption(number) for row, number in enumerate(numbers)]
    columns = {"id": list(range(40)), "image": images, "caption": texts}
    rows = [(image, [] if text is None else [[text, 0]]) for image, text in zip(images, texts)]
    for codec in CODECS:
        for version, dictionary in (("1.0", True), ("2.0", False)):
            name = f"plain_{codec}_{version[0]}.parquet"
            write(name, columns, compression=codec, data_page_version=version, use_dictionary=dictionary)
            expect(name, rows)
    options = {"use_dictionary": False, "data_page_version": "2.0", "compression": "snappy"}
    for image in ("DELTA_LENGTH_BYTE_ARRAY", "DELTA_BYTE_ARRAY"):
        name = f"{image.lower()}.parquet"
        encodings = {"id": "DELTA_BINARY_PACKED", "image": image, "caption": "DELTA_BYTE_ARRAY"}
        write(name, columns, column_encoding=encodings, **options)
        expect(name, rows)
    for name, options in (("page_index", {"write_page_index": True}), ("fallback", {"dictionary_pagesize_limit": 300})):
        write(f"{name}.parquet", columns, **options)
        expect(f"{name}.parquet", rows)
    schema = pa.schema([pa.field("image", pa.large_binary(), False), pa.field("caption", pa.large_string(), False)])
    whole = [text or "none" for text in texts]
    write("required.parquet", {"image": images, "caption": whole}, schema, compression="zstd")
    expect("required.parquet", [(image, [[text, 0]]) for image, text in zip(images, whole)])
    for number, part in enumerate((range(0, 9), range(9, 10), range(10, 40))):
        name = f"parts/train-{number:05}-of-00003.parquet"
        write(name, {key: [values[row] for row in part] for key, values in columns.items()})
        expect(name, [rows[row] for row in part])


def lists() -> None:
    captions = [
        [caption(row * 5 + number) if (row + number) % 7 else None for number in range(row % 5)] if row % 11 else None
        for row in range(40)
    ]
    images = [blob(row) for row in range(40)]
    other = [f"second {row}" if row % 3 else None for row in range(40)]
    rows = [(image, [[text, 0] for text in texts or [] if text]) for image, texts in zip(images, captions)]
    for codec, version in (("snappy", "1.0"), ("zstd", "2.0")):
        name = f"lists_{version[0]}.parquet"
        write(name, {"image": images, "caption": captions, "other": other}, compression=codec, data_page_version=version)
        expect(name, rows)
    name = "columns.parquet"
    write(name, {"image": images, "raw": captions, "long": other})
    both = [(image, texts + ([[text, 1]] if text else [])) for (image, texts), text in zip(rows, other)]
    expect(name, both, captions=["raw", "long"])


def nulls() -> None:
    """Images with bytes, with a path alone, and with neither; the rows of the second row group have no bytes at all."""
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    images, rows = [], []
    for row in range(48):
        data = None if row % 4 == 1 or 16 <= row < 32 else blob(row)
        path = f"images/{row}.png" if row % 5 else None
        image = None if row == 7 else {"bytes": data, "path": path}
        images.append(image)
        rows.append((None if image is None else data if data is not None else path, [[caption(row), 0]]))
    columns = {"image": pa.array(images, kind), "caption": [caption(row) for row in range(48)]}
    for name, options in (("nulls", {}), ("nulls_unknown", {"write_statistics": False, "data_page_version": "1.0"})):
        write(f"{name}.parquet", columns, **options)
        expect(f"{name}.parquet", rows)


def library() -> None:
    """As the `datasets` library writes it."""
    images = [{"bytes": png(row), "path": f"{row}.png"} for row in range(12)]
    labels = [row % 3 if row != 5 else -1 for row in range(12)]
    captions = [[caption(row), caption(100 + row)] for row in range(12)]
    features = datasets.Features({
        "image": datasets.Image(),
        "caption": datasets.Value("string"),
        "captions": datasets.Sequence(datasets.Value("string")),
        "label": datasets.ClassLabel(names=["tabby cat", "dog", "red panda"]),
    })
    columns = {
        "image": images, "caption": [caption(row) for row in range(12)], "captions": captions, "label": labels,
    }
    data = datasets.Dataset.from_dict(columns, features=features)
    data.to_parquet(OUT / "datasets.parquet", batch_size=5)
    expect("datasets.parquet", [(png(row), [[caption(row), 0]]) for row in range(12)])


def others() -> None:
    write("paths.parquet", {"image": [f"images/{row}.png" for row in range(5)], "caption": [caption(row) for row in range(5)]})
    expect("paths.parquet", [(f"images/{row}.png", [[caption(row), 0]]) for row in range(5)])
    write("links.parquet", {"URL": [f"https://example.org/{row}.jpg" for row in range(5)], "TEXT": [caption(row) for row in range(5)]})
    ok = [row != 2 for row in range(5)]
    write("img2dataset.parquet", {
        "url": [f"https://example.org/{row}.jpg" for row in range(5)],
        "caption": [caption(row) for row in range(5)],
        "key": [f"{row:09}" for row in range(5)],
        "status": ["success" if it else "failed_to_download" for it in ok],
        "error_message": [None if it else "HTTP Error 404: Not Found" for it in ok],
        "width": pa.array([256] * 5, pa.int32()),
        "jpg": [blob(row) if it else None for row, it in enumerate(ok)],
    })
    expect("img2dataset.parquet", [(blob(row) if it else None, [[caption(row), 0]]) for row, it in enumerate(ok)], "jpg")
    write("numbers.parquet", {"image": [blob(row) for row in range(5)], "caption": pa.array(range(5), pa.int32())})
    expect("numbers.parquet", [(blob(row), [[str(row), 0]]) for row in range(5)])
    write("image_lists.parquet", {"image": [[{"bytes": blob(1), "path": "x"}]], "caption": [0.5]})
    write("metadata.parquet", {"file_name": ["a.png", "sub/b.png"], "text": ["a cat", "a dog"]})
    splits = ["train", "val", "train", None, "test"]
    write("splits.parquet", {
        "image": [f"images/{row}.png" for row in range(5)], "caption": [caption(row) for row in range(5)], "split": splits,
    })
    expect("splits.parquet", [(f"images/{row}.png", [[caption(row), 0]]) for row in range(5)])


def pairs() -> None:
    """The pairs of the golden training run, as the `datasets` library writes them: the first 16, and the others."""
    run = OUT.parent / "train"
    with open(run / "train.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    (run / "parquet").mkdir(exist_ok=True)
    features = datasets.Features({"image": datasets.Image(), "caption": datasets.Value("string")})
    for split, part in (("train", rows[:16]), ("validation", rows[16:])):
        images = [{"bytes": (run / row["image"]).read_bytes(), "path": Path(row["image"]).name} for row in part]
        table = datasets.Dataset.from_dict({"image": images, "caption": [row["caption"] for row in part]}, features)
        table.to_parquet(run / "parquet" / f"{split}-00000-of-00001.parquet")


def main() -> None:
    versions = [f"python {sys.version_info.major}.{sys.version_info.minor}"]
    versions += [f"{name} {importlib.metadata.version(name)}" for name in PACKAGES]
    print("\n".join(versions))
    shutil.rmtree(OUT, ignore_errors=True)
    (OUT / "parts").mkdir(parents=True)
    (OUT / "versions.txt").write_text("\n".join(versions) + "\n")
    for section in (plain, lists, nulls, library, others, pairs):
        section()
    text = json.dumps(expected, ensure_ascii=False, separators=(",", ":"))
    (OUT / "expected.json").write_text(text + "\n")
    size = sum(path.stat().st_size for path in OUT.rglob("*") if path.is_file())
    print(f"{len(expected)} files with rows, {size / 1024:.0f} KiB")


if __name__ == "__main__":
    main()
