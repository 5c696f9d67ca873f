"""closed_form/: heads in closed form, from NumPy's covariances and SciPy's decompositions.

Canonical correlation analysis as in textbooks: symmetric inverse roots of the covariances with a ridge, and the singular
values between them. The script checks its own formula against scikit-learn's CCA, which knows no ridge, before it
writes anything. Texts have weights, and several may belong to one image: its row is then repeated.
"""

from pathlib import Path

import numpy as np
import scipy.linalg
from sklearn.cross_decomposition import CCA

from .common import generator, save_json


def draw(name: str, images: int, widths: tuple[int, int], texts_per_image: int) -> dict:
    random = generator(f"closed_form/{name}")
    latent = random.standard_normal((images, 4))
    mix = [random.standard_normal((4, width)) for width in widths]
    image = latent @ mix[0] + random.standard_normal((images, widths[0])) + 5.0
    of = np.arange(images * texts_per_image) // texts_per_image
    text = 0.5 * latent[of] @ mix[1] + random.standard_normal((len(of), widths[1])) - 3.0
    weights = np.ones(len(of)) if texts_per_image == 1 else 0.25 + (np.arange(len(of)) % 3)
    return {"images": image.astype(np.float32), "texts": text.astype(np.float32), "image_of": of, "weights": weights}


def power(matrix: np.ndarray, exponent: float) -> np.ndarray:
    values, vectors = scipy.linalg.eigh(matrix)
    return vectors @ np.diag(values**exponent) @ vectors.T


def solve(x, y, weights, method: str, ridge: float, dims: int, beside_means: bool) -> dict:
    joint = np.cov(np.hstack([x, y]).T, aweights=weights, bias=True)
    dx = x.shape[1]
    cxx, cyy, cxy = joint[:dx, :dx], joint[dx:, dx:], joint[:dx, dx:]
    means = [np.average(side, axis=0, weights=weights) for side in (x, y)]
    written = {"image_mean": means[0], "text_mean": means[1], "image_cov": cxx, "text_cov": cyy, "cross_cov": cxy}
    if beside_means:
        away = [np.eye(len(mean)) - np.outer(mean, mean) / (mean @ mean) for mean in means]
        cxx, cyy, cxy = away[0] @ cxx @ away[0], away[1] @ cyy @ away[1], away[0] @ cxy @ away[1]
    add = lambda matrix: matrix + ridge * np.trace(matrix) / len(matrix) * np.eye(len(matrix))
    root_x = power(add(cxx), -0.5) if method == "cca" else np.eye(dx)
    root_y = power(add(cyy), -0.5)
    u, strengths, vt = scipy.linalg.svd(root_x @ cxy @ root_y, full_matrices=False)
    keep = min(dims, int((strengths > 1e-6 * strengths[0]).sum()))
    u, strengths, vt = u[:, :keep], strengths[:keep], vt[:keep]
    image, text = u.T @ root_x, vt @ root_y
    return written | {
        "strengths": strengths,
        "product": image.T @ np.diag(strengths) @ text,
        "image_gram": image.T @ image,
    }


def check_against_scikit_learn() -> None:
    data = draw("check", 500, (6, 5), 1)
    x, y = data["images"].astype(np.float64), data["texts"].astype(np.float64)
    ours = solve(x, y, data["weights"], "cca", 0.0, 3, False)["strengths"]
    scores = CCA(n_components=3, max_iter=10_000, tol=1e-12).fit_transform(x, y)
    theirs = [np.corrcoef(scores[0][:, k], scores[1][:, k])[0, 1] for k in range(3)]
    np.testing.assert_allclose(ours, theirs, rtol=1e-4)


CASES = (
    # name, images, widths, texts per image, method, ridge, dims, beside the means
    ("wide_images", 80, (7, 5), 1, "cca", 1e-3, 5, False),
    ("wide_texts", 60, (4, 9), 1, "cca", 1e-1, 3, False),
    ("several_texts", 40, (6, 6), 3, "cca", 1e-2, 6, False),
    ("without_bias", 80, (7, 5), 1, "cca", 1e-2, 5, True),
    ("fewer_pairs_than_values", 5, (8, 7), 1, "cca", 1e-2, 7, False),
    ("regression", 70, (6, 8), 2, "ridge", 1e-2, 4, False),
)


def write(folder: Path) -> None:
    check_against_scikit_learn()
    cases = []
    for name, images, widths, texts_per_image, method, ridge, dims, beside_means in CASES:
        data = draw(name, images, widths, texts_per_image)
        x, y = data["images"].astype(np.float64)[data["image_of"]], data["texts"].astype(np.float64)
        found = solve(x, y, data["weights"], method, ridge, dims, beside_means)
        settings = {"name": name, "num_images": images, "method": method, "ridge": ridge, "dims": dims, "beside_means": beside_means}
        arrays = {key: np.asarray(value, dtype=np.float64).ravel().tolist() for key, value in (data | found).items()}
        cases.append(settings | arrays)
    save_json(folder / "cca.json", cases)
