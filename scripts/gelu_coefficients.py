#!/usr/bin/env python3
"""Prints the polynomial coefficients of the exact GELU in crates/kernels. Needs numpy and mpmath.

    python scripts/gelu_coefficients.py

The polynomial approximates Mills' ratio of the normal distribution, m(u) = exp(u^2 / 2) (1 - cdf(u)), for u in [0, 14],
in the variable t = 1 / (1 + 0.3 u). Lawson's weights level the relative error.

Last output: largest relative error 5.8e-08.
"""

import mpmath
import numpy as np

DEGREE, SLOPE, LAST, NODES, ROUNDS = 8, 0.3, 14.0, 400, 60

mpmath.mp.dps = 40
low = 1 / (1 + SLOPE * LAST)
t = (1 + low) / 2 + (1 - low) / 2 * np.cos(np.pi * (np.arange(NODES) + 0.5) / NODES)
u = (1 / t - 1) / SLOPE
ratio = np.array([float(mpmath.erfc(mpmath.mpf(v) / mpmath.sqrt(2)) / 2 * mpmath.exp(mpmath.mpf(v) ** 2 / 2)) for v in u])
powers = np.vander(t, DEGREE + 1, increasing=True) / ratio[:, None]
weights = np.full(NODES, 1 / NODES)
for _ in range(ROUNDS):
    root = np.sqrt(weights)
    coefficients = np.linalg.lstsq(powers * root[:, None], root, rcond=None)[0]
    error = np.abs(powers @ coefficients - 1)
    weights *= error
    weights /= weights.sum()
print(f"largest relative error {error.max():.1e}")
print(", ".join(f"{value:.9}" for value in coefficients))
