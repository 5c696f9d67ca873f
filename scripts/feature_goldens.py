#!/usr/bin/env python3
"""Writes the fixtures in tests/goldens/features/ with numpy, safetensors and pyarrow, and what they hold.

`expected.json` has the values of each file, as float32. The Rust tests read the fixtures; Python is needed to write them
again.

    python -m venv .venv-features
    .venv-features/bin/pip install pyarrow==26.0.1 safetensors==0.8.0 numpy==2.4.6 torch==2.15.0
    .venv-features/bin/python scripts/feature_goldens.py
"""

import importlib.metadata
import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from safetensors.torch import save_file

PACKAGES = ("numpy", "pyarrow", "safetensors", "torch")
OUT = Path(__file__).resolve().parent.parent / "tests" / "goldens" / "features"
ROWS, WIDTH = 7, 5


def main() -> None:
    shutil.rmtree(OUT, ignore_errors=True)
    OUT.mkdir(parents=True)
    expected = {}
    values = np.random.default_rng(0).normal(size=(ROWS, WIDTH))

    for name in ("float16", "float32", "float64"):
        array = values.astype(name)
        np.save(OUT / f"{name}.npy", array)
        expected[f"{name}.npy"] = array.astype(np.float32).ravel().tolist()
    np.lib.format.write_array((OUT / "version2.npy").open("wb"), values.astype(np.float32), version=(2, 0))
    expected["version2.npy"] = values.astype(np.float32).ravel().tolist()

    # Refused.
    np.save(OUT / "fortran.npy", np.asfortranarray(values.astype(np.float32)))
    np.save(OUT / "big_endian.npy", values.astype(">f4"))
    np.save(OUT / "integers.npy", np.arange(ROWS * WIDTH).reshape(ROWS, WIDTH))
    np.save(OUT / "objects.npy", np.array([["a", "b"]], dtype=object))
    np.save(OUT / "strings.npy", np.array([["a", "b"]]))
    np.save(OUT / "records.npy", np.array([(1, 2.0)], dtype=[("a", "i4"), ("b", "f4")]))
    np.save(OUT / "vector.npy", values.astype(np.float32)[0])
    np.save(OUT / "cube.npy", values.astype(np.float32)[None])
    np.savez(OUT / "archive.npz", features=values.astype(np.float32))

    tensor = torch.from_numpy(values)
    image_of = torch.arange(ROWS - 1, -1, -1)
    for name in ("float16", "bfloat16", "float32", "float64"):
        array = tensor.to(getattr(torch, name))
        save_file({"features": array, "image_of": image_of, "labels": image_of.to(torch.int32)}, OUT / f"{name}.safetensors")
        expected[f"{name}.safetensors"] = array.to(torch.float32).flatten().tolist()
    save_file({"a": tensor.float(), "b": tensor.float()}, OUT / "two.safetensors")
    save_file({"embeds": tensor.float(), "n": torch.arange(3)}, OUT / "only.safetensors")
    expected["only.safetensors"] = tensor.float().flatten().tolist()

    rows = values.astype(np.float32)
    for name, kind in (
        ("list_f32", pa.list_(pa.float32())),
        ("list_f64", pa.list_(pa.float64())),
        ("fixed_f32", pa.list_(pa.float32(), WIDTH)),
    ):
        columns = {
            "caption": [f"caption {row}" for row in range(ROWS)],
            "image_embedding": pa.array(rows.tolist(), kind),
            "text_embedding": pa.array((-rows).tolist(), kind),
        }
        # Several row groups and several pages in each.
        pq.write_table(pa.table(columns), OUT / f"{name}.parquet", row_group_size=4, data_page_size=16)
        expected[f"{name}.parquet"] = rows.ravel().tolist()
    uneven = [row.tolist()[: WIDTH - (number == 3)] for number, row in enumerate(rows)]
    pq.write_table(pa.table({"image_embedding": uneven}), OUT / "uneven.parquet")
    gap = [row.tolist() if number != 2 else None for number, row in enumerate(rows)]
    pq.write_table(pa.table({"image_embedding": gap}), OUT / "gap.parquet")

    np.save(OUT / "image_of.npy", image_of.numpy())
    text = json.dumps({"rows": ROWS, "width": WIDTH, "values": expected})
    (OUT / "expected.json").write_text(text + "\n")
    lines = [f"python {sys.version_info.major}.{sys.version_info.minor}"]
    lines += [f"{name} {importlib.metadata.version(name)}" for name in PACKAGES]
    (OUT / "versions.txt").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
