"""Summaries over seeds: interquartile means with bootstrap intervals."""

from typing import NamedTuple

import numpy as np
from scipy import stats


class Summary(NamedTuple):
    """A mean and its 95% interval."""

    mean: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.mean:.3f} [{self.low:.3f}, {self.high:.3f}]"


def interquartile_mean(scores: np.ndarray, resamples: int = 2000) -> Summary:
    """Mean of the middle half of the seeds' scores `[S]`, with a bootstrap over seeds.

    A score is the mean over the episodes of one seed, so no bad episode is trimmed away.
    With one seed the interval is a point.

    Source: Agarwal et al. 2021, Deep RL at the Edge of the Statistical Precipice, sec. 4.
    """
    scores = np.asarray(scores, np.float64)
    if scores.ndim != 1:
        raise ValueError(f"scores must be one a seed, not of shape {scores.shape}")
    draws = np.random.default_rng(0).choice(scores, (resamples, scores.size))
    low, high = np.quantile(stats.trim_mean(draws, 0.25, axis=1), [0.025, 0.975])
    return Summary(float(stats.trim_mean(scores, 0.25)), float(low), float(high))


def share(returns: np.ndarray, expert: float) -> np.ndarray:
    """The share of the expert's return that is reached.

        1 - (expert - returns) / |expert|

    It is `returns / expert` where returns are positive. Where returns are costs, below 0, a
    return of twice the expert's cost is a share of 0.
    """
    return 1.0 - (expert - np.asarray(returns)) / abs(expert)


def cross_track(path: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """Distance of each point of a path `[T, 2]` to a reference line `[L, 2]`; `[T]`."""
    start, end = reference[:-1], reference[1:]  # [L - 1, 2]
    along = end - start
    length2 = np.maximum(np.sum(along**2, axis=1), 1e-12)
    offset = path[:, None] - start[None]  # [T, L - 1, 2]
    share = np.clip(np.sum(offset * along[None], axis=2) / length2[None], 0.0, 1.0)
    nearest = start[None] + share[..., None] * along[None]
    return np.min(np.linalg.norm(path[:, None] - nearest, axis=2), axis=1)
