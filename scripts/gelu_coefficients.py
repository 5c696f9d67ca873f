#!/usr/bin/env python3
"""Prints the polynomial coefficients of both forms of GELU in crates/kernels. Needs numpy and mpmath.

    python scripts/gelu_coefficients.py

The polynomial approximates Mills' ratio of the normal distribution, m(u) = exp(u^2 / 2) (1 - cdf(u)), for u in [0, 14],
in the variable t = 1 / (1 + 0.3 u). Lawson's weights level the relative error.

Last output: largest relative error 5.8e-08.

For values that are rounded to bf16, a polynomial in 2 (x / 4.5)^2 - 1 approximates (cdf(x) - 1/2) / x for x in [0, 4.5].
The weights level the error of x cdf(x). In x^2, terms of 20 would cancel.

Last output: largest error 7.1e-06, in f32 7.4e-06.
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

ROUNDED_DEGREE, ROUNDED_LAST = 9, 4.5

square = ROUNDED_LAST**2 * (1 + np.cos(np.pi * (np.arange(4001) + 0.5) / 4001)) / 2
x = np.sqrt(square)
odd = np.array([float(mpmath.erf(mpmath.mpf(v) / mpmath.sqrt(2)) / 2) for v in x]) / x
terms = np.polynomial.chebyshev.chebvander(2 * square / ROUNDED_LAST**2 - 1, ROUNDED_DEGREE)
weights = square.copy()
for _ in range(ROUNDS):
    coefficients = np.linalg.lstsq(terms * weights[:, None], odd * weights, rcond=None)[0]
    error = np.abs((terms @ coefficients - odd) * square)
    weights *= (error / error.max() + 1e-3) ** 0.3
polynomial = np.polynomial.Chebyshev(coefficients).convert(kind=np.polynomial.Polynomial).coef[::-1].astype(np.float32)


def rounded_gelu(x):
    """As crates/kernels computes it, but for products that are rounded before they are added."""
    t = x * x * np.float32(2 / ROUNDED_LAST**2) - np.float32(1)
    total = np.zeros_like(x)
    for value in polynomial:
        total = total * t + value
    return x * (x * total + np.float32(0.5))


signed = np.concatenate([-x, x]).astype(np.float32)
exact = np.array([float(v * (1 + mpmath.erf(mpmath.mpf(v) / mpmath.sqrt(2))) / 2) for v in signed.astype(float)])
print(f"largest error {error.max():.1e}, in f32 {np.abs(rounded_gelu(signed) - exact).max():.1e}")
print(", ".join(f"{value:.9}" for value in polynomial))
