"""Compares the speed of the loader with that of PIL, torchvision and PyTorch's DataLoader on the same JPEG files, and on
the same tar shard: decode, resize to 224 x 224 and normalise, as ViT's processor does. Prints one line per row: the
medians in images a second and their ratio, which is the median over rounds that alternate both.

Needs torch, torchvision, pillow and numpy, and the example `loader_speed` of the crate `dualenc-data`; run by
bench_loader.sh, which names the example in LOADER_SPEED.
"""

import argparse
import io
import json
import os
import random
import statistics
import subprocess
import tarfile
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset, IterableDataset, get_worker_info
from torchvision import transforms

from bench_images import photo

ROOT = Path(__file__).resolve().parent.parent
SIZE, BATCH = (500, 375), 50
NORMALISE = transforms.Compose([
    transforms.Resize((224, 224)),
    transforms.ToTensor(),
    transforms.Normalize([0.5] * 3, [0.5] * 3),
])


def write_data(folder: Path, count: int) -> None:
    done = folder / f"done-{count}"
    if done.exists():
        return
    (folder / "images").mkdir(parents=True, exist_ok=True)
    rows = ["image,caption"]
    drawings = sorted((ROOT / "data/tiny").rglob("*.png"))
    with tarfile.open(folder / "shard.tar", "w", format=tarfile.USTAR_FORMAT) as shard:
        for number in range(count):
            name = f"{number:05}"
            stream = io.BytesIO()
            image = photo(np.random.default_rng(number), SIZE, drawings)
            image.save(stream, "JPEG", quality=85 + 5 * (number % 3), subsampling="4:2:0")
            (folder / "images" / f"{name}.jpg").write_bytes(stream.getvalue())
            for suffix, data in ((".jpg", stream.getvalue()), (".txt", b"a picture")):
                entry = tarfile.TarInfo(name + suffix)
                entry.size = len(data)
                shard.addfile(entry, io.BytesIO(data))
            rows.append(f"images/{name}.jpg,a picture")
    (folder / "pairs.csv").write_text("\n".join(rows) + "\n")
    (folder / "tower").mkdir(exist_ok=True)
    (folder / "tower" / "preprocessor_config.json").write_text(json.dumps({
        "image_processor_type": "ViTImageProcessor", "do_resize": True, "size": {"height": 224, "width": 224},
        "resample": 2, "do_rescale": True, "rescale_factor": 1 / 255, "do_normalize": True,
        "image_mean": [0.5] * 3, "image_std": [0.5] * 3,
    }))
    (folder / "tower" / "vocab.txt").write_text("[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\na\npicture\n")
    done.touch()


class Files(Dataset):
    def __init__(self, folder: Path):
        self.paths = sorted((folder / "images").glob("*.jpg"))

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> torch.Tensor:
        with Image.open(self.paths[index]) as image:
            return NORMALISE(image.convert("RGB"))


class Shard(IterableDataset):
    """Reads a shard in its order, as webdataset does; each worker decodes every n-th image."""

    def __init__(self, folder: Path):
        self.path = folder / "shard.tar"

    def __iter__(self):
        worker = get_worker_info()
        with tarfile.open(self.path, "r|") as shard:
            images = (entry for entry in shard if entry.name.endswith(".jpg"))
            for number, entry in enumerate(images):
                if number % worker.num_workers == worker.id:
                    with Image.open(io.BytesIO(shard.extractfile(entry).read())) as image:
                        yield NORMALISE(image.convert("RGB"))


def with_pytorch(data: Dataset, workers: int) -> float:
    shuffle = not isinstance(data, IterableDataset)
    loader = DataLoader(data, batch_size=BATCH, shuffle=shuffle, num_workers=workers)
    started = time.perf_counter()
    images = sum(len(batch) for batch in loader)
    return images / (time.perf_counter() - started)


def with_dualenc(source: Path, tower: Path, workers: int) -> float:
    command = [os.environ["LOADER_SPEED"], source, tower, tower, str(workers)]
    found = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    return found["images"] / found["seconds"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, default=Path("runs/bench/loader"))
    parser.add_argument("--images", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args()
    write_data(options.folder, options.images)
    torch.set_num_threads(1)
    flags = next((line for line in open("/proc/cpuinfo") if line.startswith("flags")), "").split()
    vector = next((name for name in ("avx512f", "avx2", "sse4_2") if name in flags), "unknown")
    print(f"{options.images} JPEGs of {SIZE[0]} x {SIZE[1]}, {options.workers} workers, vectors: {vector}")
    tower = options.folder / "tower"
    rows = {
        "files": (Files(options.folder), options.folder / "pairs.csv"),
        "tar": (Shard(options.folder), options.folder / "shard.tar"),
    }
    for name, (data, source) in rows.items():
        rounds = []
        for _ in range(options.rounds):
            pair = [lambda: with_pytorch(data, options.workers), lambda: with_dualenc(source, tower, options.workers)]
            order = random.sample([0, 1], 2)
            speeds = {at: pair[at]() for at in order}
            rounds.append((speeds[0], speeds[1]))
        pytorch, dualenc = (statistics.median(speeds) for speeds in zip(*rounds))
        ratio = statistics.median(dualenc / pytorch for pytorch, dualenc in rounds)
        print(f"{name:6} PyTorch {pytorch:7.1f}  dualenc {dualenc:7.1f} images/s  ratio {ratio:.2f}")


if __name__ == "__main__":
    main()
