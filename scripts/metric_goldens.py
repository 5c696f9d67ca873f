#!/usr/bin/env python3
"""Writes tests/goldens/metrics/metrics.json: embeddings, and the metrics that CLIP_benchmark and scikit-learn compute.

CLIP_benchmark's own `evaluate` functions run on a model that returns the embeddings. What they do not compute comes
from scikit-learn (average precision, reciprocal ranks) and numpy (median). The Rust tests read the file; Python is
needed to write it again.

    python -m venv .venv-metrics
    .venv-metrics/bin/pip install torch==2.15.0 numpy==2.4.6 scikit-learn==1.9.1 tqdm
    .venv-metrics/bin/pip install --no-deps clip-benchmark==1.6.2
    .venv-metrics/bin/python scripts/metric_goldens.py
"""

import importlib.metadata
import json
from pathlib import Path

import numpy as np
import torch
from clip_benchmark.metrics import zeroshot_classification, zeroshot_retrieval
from sklearn.metrics import average_precision_score, label_ranking_average_precision_score

# Its `accuracy` converts an array of one value with `float`, which numpy refuses since 2.4.
zeroshot_classification.float = lambda value: float(np.asarray(value, dtype=float).item())

PACKAGES = ("torch", "numpy", "scikit-learn", "clip-benchmark")
OUT = Path(__file__).resolve().parent.parent / "tests" / "goldens" / "metrics"
DIM = 6
# Multiples of 1/64 between -1 and 1: few digits, and exact in f32.
GRID = 64


def draw(generator: np.random.Generator, rows: int, near: np.ndarray | None = None) -> np.ndarray:
    noise = generator.normal(size=(rows, DIM))
    values = noise if near is None else near + 0.35 * noise
    values = np.clip(np.round(values / np.abs(values).max() * GRID), -GRID, GRID) / GRID
    return values.astype(np.float32)


def unit(values: np.ndarray) -> np.ndarray:
    values = values.astype(np.float64)
    return values / np.linalg.norm(values, axis=1, keepdims=True)


class Towers(torch.nn.Module):
    """A model whose images and texts are the numbers of their embeddings."""

    def __init__(self, images: np.ndarray, texts: np.ndarray):
        super().__init__()
        self.images, self.texts = torch.from_numpy(images), torch.from_numpy(texts)

    def encode_image(self, numbers: torch.Tensor) -> torch.Tensor:
        return self.images[numbers]

    def encode_text(self, numbers: torch.Tensor) -> torch.Tensor:
        return self.texts[numbers]


class Batches(list):
    """A loader that names its classes."""

    def __init__(self, batches, classes):
        super().__init__(batches)
        self.dataset = type("Set", (), {"classes": classes})


def batches(count: int, targets: torch.Tensor, size: int = 16):
    return [(torch.arange(at, min(at + size, count)), targets[at : at + size]) for at in range(0, count, size)]


def calibration_error(probabilities: np.ndarray, labels: np.ndarray, bins: int = 15) -> float:
    """Equation 5 of arXiv:1706.04599, with its equal-width bins (0, 1/15], (1/15, 2/15], .."""
    confidence, right = probabilities.max(axis=1), probabilities.argmax(axis=1) == labels
    edges, error = np.linspace(0, 1, bins + 1), 0.0
    for low, high in zip(edges[:-1], edges[1:]):
        inside = (confidence > low) & (confidence <= high)
        if inside.any():
            error += inside.mean() * abs(confidence[inside].mean() - right[inside].mean())
    return float(error)


def classification(generator: np.random.Generator, num_classes: int, num_images: int, templates: int) -> dict:
    prompts = draw(generator, num_classes * templates)
    labels = generator.integers(0, num_classes, num_images)
    labels[:num_classes] = np.arange(num_classes)
    centres = unit(prompts).reshape(num_classes, templates, DIM).mean(axis=1)
    images = draw(generator, num_images, near=centres[labels])
    model = Towers(images, prompts)
    numbers = {str(c): list(range(c * templates, (c + 1) * templates)) for c in range(num_classes)}
    tokenizer = lambda texts: torch.tensor(texts)
    classes = list(numbers)
    metrics = zeroshot_classification.evaluate(
        model, Batches(batches(num_images, torch.from_numpy(labels)), classes), tokenizer, classes, numbers, "cpu", amp=False
    )
    scale = 20.0
    logits = scale * unit(images) @ unit(centres).T
    shares = np.exp(logits - logits.max(axis=1, keepdims=True))
    metrics["ece"] = calibration_error(shares / shares.sum(axis=1, keepdims=True), labels)
    metrics = {name: None if np.isnan(value) else float(value) for name, value in metrics.items()}
    return {
        "dim": DIM,
        "templates": templates,
        "scale": scale,
        "prompts": prompts.ravel().tolist(),
        "images": images.ravel().tolist(),
        "labels": labels.tolist(),
        "metrics": metrics,
    }


def multi_label(generator: np.random.Generator, num_classes: int, num_images: int) -> dict:
    prompts = draw(generator, num_classes)
    targets = (generator.random((num_images, num_classes)) < 0.3).astype(np.int64)
    targets[:num_classes] |= np.eye(num_classes, dtype=np.int64)
    images = draw(generator, num_images, near=targets @ unit(prompts))
    classes = [str(c) for c in range(num_classes)]
    metrics = zeroshot_classification.evaluate(
        Towers(images, prompts),
        Batches(batches(num_images, torch.from_numpy(targets)), classes),
        lambda texts: torch.tensor(texts),
        classes,
        {name: [int(name)] for name in classes},
        "cpu",
        amp=False,
    )
    scores = unit(images) @ unit(prompts).T
    by_class = [float(average_precision_score(targets[:, c], scores[:, c])) for c in range(num_classes)]
    assert abs(np.mean(by_class) - metrics["mean_average_precision"]) < 1e-6
    return {
        "dim": DIM,
        "prompts": prompts.ravel().tolist(),
        "images": images.ravel().tolist(),
        "labels": [np.flatnonzero(row).tolist() for row in targets],
        "average_precision": by_class,
        "metrics": metrics,
    }


def ranking(scores: np.ndarray, right: np.ndarray, k: int = 10) -> dict:
    order = np.argsort(-scores, axis=1, kind="stable")
    hits = np.take_along_axis(right, order, axis=1)
    first = hits.argmax(axis=1) + 1
    # With one right answer left, scikit-learn's ranking precision is the reciprocal rank.
    only_best = np.zeros_like(right)
    only_best[np.arange(len(right)), order[np.arange(len(right)), first - 1]] = True
    precision = []
    for row in hits:
        places = np.flatnonzero(row[:k])
        precision.append(sum((n + 1) / (place + 1) for n, place in enumerate(places)) / min(row.sum(), k))
    return {
        "median_rank": float(np.median(first)),
        "mrr": float(label_ranking_average_precision_score(only_best, scores)),
        f"map@{k}": float(np.mean(precision)),
    }


def retrieval(generator: np.random.Generator, num_images: int, most_texts: int) -> dict:
    images = draw(generator, num_images)
    image_of_text = np.repeat(np.arange(num_images), generator.integers(1, most_texts + 1, num_images))
    texts = draw(generator, len(image_of_text), near=unit(images)[image_of_text])
    by_image = [np.flatnonzero(image_of_text == image).tolist() for image in range(num_images)]
    size = 16
    loader = [
        (torch.arange(at, min(at + size, num_images)), by_image[at : at + size]) for at in range(0, num_images, size)
    ]
    metrics = zeroshot_retrieval.evaluate(
        Towers(images, texts), loader, lambda texts: torch.tensor(texts), "cpu", amp=False, recall_k_list=[1, 5, 10]
    )
    scores = unit(texts) @ unit(images).T
    right = image_of_text[:, None] == np.arange(num_images)[None, :]
    for name, found in (("image_retrieval", ranking(scores, right)), ("text_retrieval", ranking(scores.T, right.T))):
        metrics |= {f"{name}_{kind}": value for kind, value in found.items()}
    return {
        "dim": DIM,
        "images": images.ravel().tolist(),
        "texts": texts.ravel().tolist(),
        "image_of_text": image_of_text.tolist(),
        "metrics": metrics,
    }


def main() -> None:
    generator = np.random.default_rng(14)
    fixture = {
        "classification": [
            classification(generator, 3, 40, 1),
            classification(generator, 12, 150, 3),
        ],
        "multi_label": [multi_label(generator, 5, 60)],
        "retrieval": [retrieval(generator, 30, 1), retrieval(generator, 50, 5)],
    }
    OUT.mkdir(parents=True, exist_ok=True)
    (OUT / "metrics.json").write_text(json.dumps(fixture) + "\n")
    versions = [f"{name} {importlib.metadata.version(name)}" for name in PACKAGES]
    (OUT / "versions.txt").write_text("\n".join(versions) + "\n")
    print("\n".join(versions))


if __name__ == "__main__":
    main()
