"""Module of scripts/bench_pytorch.py and scripts/bench.py: heads of a million pairs of features, without towers.

    python scripts/bench_heads.py fit FORM    # fits heads in closed form and saves them; FORM is numpy or pytorch

`write_features` writes the features that dualenc and the peers read: 384 values in f16 of each image and each text,
1.5 GB together, in runs/bench/heads.
"""

import sys
from pathlib import Path

import numpy as np

FOLDER = Path(__file__).resolve().parent.parent / "runs/bench/heads"
PAIRS, WIDTH, SHARED, EMBED, BATCH, CHUNK = 1_000_000, 384, 64, 512, 32_768, 2048
RIDGE, POWER = 1e-2, 1.0


def write_features() -> None:
    """Writes features with 64 directions in common, unless they are there."""
    files = [FOLDER / "images.npy", FOLDER / "texts.npy"]
    if all(file.exists() for file in files):
        return
    FOLDER.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(1)
    maps = [random.normal(size=(SHARED, WIDTH)).astype(np.float32) / SHARED**0.5 for _ in files]
    # The names are given last, so that files with them are complete.
    parts = [file.with_name(f"part-{file.name}") for file in files]
    rows = [np.lib.format.open_memmap(part, "w+", np.float16, (PAIRS, WIDTH)) for part in parts]
    for start in range(0, PAIRS, 50_000):
        shared = random.standard_normal((min(50_000, PAIRS - start), SHARED), np.float32)
        for side, side_map in zip(rows, maps):
            noise = random.standard_normal((len(shared), WIDTH), np.float32)
            side[start : start + len(shared)] = shared @ side_map + noise
    for side, part, file in zip(rows, parts, files):
        side.flush()
        part.rename(file)


def features() -> list[np.ndarray]:
    return [np.load(FOLDER / f"{side}.npy", mmap_mode="r") for side in ("images", "texts")]


def training_step(t, form: str):
    """A step on a batch of random pairs: a linear projection of each side, InfoNCE, backward, AdamW.

    The logits of all pairs take 4.3 GB, and a loss over them several times as much. So they are computed in chunks of
    rows, and again in the backward pass.
    """
    import warnings

    from torch.nn import functional as F
    from torch.utils.checkpoint import checkpoint

    # The files are opened for reading.
    warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
    sides = [t.from_numpy(side) for side in features()]
    heads = [t.nn.Linear(WIDTH, EMBED, bias=False) for _ in sides]
    scale = t.nn.Parameter(t.tensor(2.6592))
    optimizer = t.optim.AdamW([heads[0].weight, heads[1].weight, scale], lr=1e-3, weight_decay=0.1, fused=True)
    autocast = t.autocast("cpu", dtype=t.bfloat16, enabled=form.endswith("autocast"))

    def of_chunk(rows, columns, scale):
        with autocast:
            logits = (scale.exp() * rows) @ columns.T
        logits = logits.float()
        return logits.logsumexp(1).sum(), logits.logsumexp(0)

    chunk = t.compile(of_chunk) if form.startswith("compile") else of_chunk

    def loss_of(images, texts):
        images, texts = (F.normalize(head(side), dim=1) for head, side in zip(heads, (images, texts)))
        sums = [checkpoint(chunk, rows, texts, scale, use_reentrant=False) for rows in images.split(CHUNK)]
        of_rows = t.stack([rows for rows, _ in sums]).sum()
        of_columns = t.stack([columns for _, columns in sums]).logsumexp(0).sum()
        return (of_rows + of_columns) / 2 / len(images) - scale.exp() * (images * texts).sum(1).mean()

    def round_():
        rows = t.randint(PAIRS, (BATCH,))
        loss = loss_of(*(side[rows].float() for side in sides))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        # ln of the batch size, with heads that know nothing and a small scale.
        if not 0 < loss.item() < 1.5 * np.log(BATCH):
            raise SystemExit(f"error: the loss is {loss.item():.3g}")

    return round_


def fit(form: str) -> None:
    """Canonical correlation analysis with a ridge. Covariances are computed in f32 by chunks and added up in f64."""
    sides, chunk = features(), 50_000
    if form == "numpy":
        xp, load, product = np, lambda rows: rows.astype(np.float32), lambda a, b: (a.T @ b).astype(np.float64)
    else:
        import os

        import torch as xp

        xp.set_num_threads(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count())
        load = lambda rows: xp.from_numpy(np.array(rows)).float()  # noqa: E731
        product = lambda a, b: (a.T @ b).double()  # noqa: E731
    shifts = [load(side[:chunk]).mean(0) for side in sides]
    sums, within, between = [0, 0], [0, 0], 0
    for start in range(0, PAIRS, chunk):
        x, y = (load(side[start : start + chunk]) - shift for side, shift in zip(sides, shifts))
        sums = [total + side.sum(0) for total, side in zip(sums, (x, y))]
        within = [total + product(side, side) for total, side in zip(within, (x, y))]
        between = between + product(x, y)
    means = [total / PAIRS for total in sums]
    outer = lambda a, b: (a[:, None] * b[None]) * 1.0  # noqa: E731
    roots = []
    for total, mean in zip(within, means):
        covariance = total / PAIRS - outer(mean, mean)
        values, vectors = xp.linalg.eigh(covariance)
        values = values + RIDGE * values.mean()
        roots.append((vectors / values**0.5) @ vectors.T)
    cross = between / PAIRS - outer(means[0], means[1])
    left, correlations, right = xp.linalg.svd(roots[0] @ cross @ roots[1], full_matrices=False)
    heads = [correlations[:, None] ** POWER * (left.T @ roots[0]), correlations[:, None] ** POWER * (right @ roots[1])]
    saved = {}
    for name, head, mean, shift in zip(("image", "text"), heads, means, shifts):
        saved[name] = np.asarray(head)
        saved[f"{name}_bias"] = -saved[name] @ np.asarray(mean + shift, np.float64)
    np.savez(FOLDER / "heads.npz", **saved)
    # The features have that many directions in common.
    found = int((np.asarray(correlations) > 0.1).sum())
    if found != SHARED:
        raise SystemExit(f"error: {found} directions are correlated, and not {SHARED}")


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["fit", ("numpy" | "pytorch") as form]:
            fit(form)
        case _:
            sys.exit(__doc__)
