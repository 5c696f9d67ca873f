#!/usr/bin/env python3
"""Loads exported `preprocessor_config.json` files in transformers and compares their pixels with the goldens.

scripts/check_parity.sh runs it, in a test.

    python scripts/check_processors.py EXPORTED tests/goldens/pixels
"""

import sys
from pathlib import Path

import numpy as np
from goldens.pixels import load, run
from safetensors import safe_open


def main(exported: Path, goldens: Path) -> int:
    failed = 0
    for folder in sorted(exported.iterdir()):
        with safe_open(goldens / folder.name / "expected.safetensors", "np") as file:
            expected, names = file.get_tensor("pixel_values"), file.metadata()["images"].split(" ")
        actual = run(load(folder), goldens / "images", names)
        if not np.array_equal(actual, expected):
            failed += 1
            if actual.shape == expected.shape:
                print(f"{folder.name}: differs by up to {np.abs(actual - expected).max()}")
            else:
                print(f"{folder.name}: shape {actual.shape}, expected {expected.shape}")
    print(f"{failed} of {len(list(exported.iterdir()))} differ")
    return 1 if failed else 0


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    sys.exit(main(Path(sys.argv[1]), Path(sys.argv[2])))
