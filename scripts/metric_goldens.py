#!/usr/bin/env python3
"""Writes tests/goldens/metrics/metrics.json: embeddings, and the metrics that CLIP_benchmark and scikit-learn compute.

CLIP_benchmark's own `evaluate` functions run on a model that returns the embeddings. What they do not compute comes
from scikit-learn (average precision, reciprocal ranks) and numpy (median). Probes are scikit-learn's classifiers;
centred kernel alignment is numpy's, by its definition. The Rust tests read the file; Python is needed to write it again.

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
from sklearn.linear_model import RidgeClassifier
from sklearn.metrics import average_precision_score, balanced_accuracy_score, label_ranking_average_precision_score
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

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
    """A model that takes the numbers of embeddings as images and texts."""

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


def accuracies(scores: np.ndarray, labels: np.ndarray, voted: np.ndarray) -> dict:
    order = np.argsort(-scores, axis=1, kind="stable")
    rank = (order == labels[:, None]).argmax(axis=1)
    rank[~voted] = scores.shape[1]
    return {
        "acc1": float((rank < 1).mean()),
        "acc5": float((rank < 5).mean()) if scores.shape[1] >= 5 else None,
        "mean_per_class_recall": float(
            balanced_accuracy_score(labels, np.where(rank < 1, labels, (labels + 1) % scores.shape[1]))
        ),
    }


def probe(generator: np.random.Generator, num_classes: int, num_train: int, num_test: int, l2: float) -> dict:
    centres = draw(generator, num_classes)
    labels = generator.integers(0, num_classes, num_train + num_test)
    labels[:num_classes] = np.arange(num_classes)
    labels[num_train : num_train + num_classes] = np.arange(num_classes)
    features = draw(generator, num_train + num_test, near=centres[labels])
    train, test = features[:num_train].astype(np.float64), features[num_train:].astype(np.float64)
    train_labels, test_labels = labels[:num_train], labels[num_train:]

    ridge = make_pipeline(StandardScaler(), RidgeClassifier(alpha=l2)).fit(train, train_labels)
    scores = ridge.decision_function(test)
    if num_classes == 2:
        scores = np.stack([-scores, scores], axis=1)
    everywhere = np.ones(num_test, dtype=bool)

    neighbors = 20
    weights = lambda distances: np.exp((1 - distances) / 0.07)
    knn = KNeighborsClassifier(neighbors, metric="cosine", algorithm="brute", weights=weights).fit(train, train_labels)
    votes = knn.predict_proba(test)
    voted = votes[np.arange(num_test), test_labels] > 0
    return {
        "dim": DIM,
        "classes": num_classes,
        "l2": l2,
        "neighbors": neighbors,
        "train": features[:num_train].ravel().tolist(),
        "test": features[num_train:].ravel().tolist(),
        "train_labels": train_labels.tolist(),
        "test_labels": test_labels.tolist(),
        "scores": scores.ravel().tolist(),
        "linear": accuracies(scores, test_labels, everywhere),
        "knn": accuracies(votes, test_labels, voted),
    }


def kernel_alignment(generator: np.random.Generator, rows: int, widths: tuple[int, int]) -> dict:
    """Equation 3 of arXiv:2010.15327: kernels as matrices, diagonals of zeros."""
    shared = generator.normal(size=(rows, 4))
    sides = []
    for width in widths:
        side = shared @ generator.normal(size=(4, width)) + generator.normal(size=(rows, width)) + 2
        sides.append((np.round(side * GRID) / GRID).astype(np.float32))

    def dependence(one: np.ndarray, other: np.ndarray) -> float:
        one, other = (x.astype(np.float64) @ x.T.astype(np.float64) for x in (one, other))
        np.fill_diagonal(one, 0)
        np.fill_diagonal(other, 0)
        total = one.sum() * other.sum() / ((rows - 1) * (rows - 2))
        return (np.trace(one @ other) + total - 2 * (one @ other).sum() / (rows - 2)) / (rows * (rows - 3))

    one, other = sides
    similarity = [unit(side) @ unit(side).T - 9 * np.eye(rows) for side in sides]
    nearest = [np.argsort(-side, axis=1)[:, :10] for side in similarity]
    mutual = np.mean([len(set(a) & set(b)) / 10 for a, b in zip(*nearest)])
    return {
        "widths": widths,
        "one": one.ravel().tolist(),
        "other": other.ravel().tolist(),
        "cka": dependence(one, other) / np.sqrt(dependence(one, one) * dependence(other, other)),
        "mutual_knn": mutual,
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
        "probe": [probe(generator, 2, 60, 40, 1.0), probe(generator, 7, 90, 60, 20.0), probe(generator, 5, 30, 30, 0.1)],
        "alignment": [kernel_alignment(generator, 60, (5, 8))],
    }
    OUT.mkdir(parents=True, exist_ok=True)
    (OUT / "metrics.json").write_text(json.dumps(fixture) + "\n")
    versions = [f"{name} {importlib.metadata.version(name)}" for name in PACKAGES]
    (OUT / "versions.txt").write_text("\n".join(versions) + "\n")
    print("\n".join(versions))


if __name__ == "__main__":
    main()
