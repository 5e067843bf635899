"""Carlini & Terzis' z-score: how far a trigger draws images together."""

import numpy as np
from jaxtyping import Float

_ROWS = 4096  # features multiplied at once


def z_score(clean: Float[np.ndarray, "n d"], triggered: Float[np.ndarray, "m d"]) -> float:
    """How far the trigger draws images together, in standard deviations of the clean images' similarities.

    (mean <f(u+bd), f(v+bd)> - mean <f(u), f(v)>) / sqrt(var <f(u), f(v)>) over pairs u != v of unit-length image
    embeddings (n, d) and (m, d). The name is that of Carlini & Terzis (2022), arXiv 2106.09667; the formula is derived
    here, so do not set it beside their numbers. Raises `ValueError` for fewer than two images, and where the
    similarities of clean images do not vary.
    """
    usual, variance = _pair_moments(clean)
    drawn, _ = _pair_moments(triggered)
    if variance <= 1e-15:
        raise ValueError("the similarities of clean images do not vary, so a z-score is not defined")
    return (drawn - usual) / variance**0.5


def _pair_moments(rows: Float[np.ndarray, "n d"]) -> tuple[float, float]:
    """Mean and variance of <row_u, row_v> over u != v, from sums and the (d, d) second moments alone."""
    n, width = rows.shape
    if n < 2:
        raise ValueError(f"similarities of pairs need at least two images, got {n}")
    total, moments = np.zeros(width), np.zeros((width, width))
    own, own_squared = 0.0, 0.0  # what u = v adds
    for start in range(0, n, _ROWS):
        block = rows[start : start + _ROWS].astype(np.float64)
        total += block.sum(axis=0)
        moments += block.T @ block
        squares = np.einsum("nd,nd->n", block, block)
        own += float(squares.sum())
        own_squared += float((squares**2).sum())
    pairs = n * (n - 1)
    mean = (float(total @ total) - own) / pairs
    # sum over u, v of <f_u, f_v>^2 is the squared Frobenius norm of the second moments
    second = (float((moments**2).sum()) - own_squared) / pairs
    return mean, max(0.0, second - mean**2)
