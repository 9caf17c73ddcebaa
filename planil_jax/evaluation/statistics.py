"""Summaries over seeds, by how many there are, and tests of differences."""

import math
from typing import NamedTuple

import numpy as np
from scipy import stats

ENOUGH_SEEDS = 4  # for an interquartile mean and a bootstrap


class Summary(NamedTuple):
    """A mean and its 95% interval, which is a point where one seed tells nothing of it."""

    mean: float
    low: float
    high: float

    def __str__(self) -> str:
        if self.low == self.high:
            return f"{self.mean:.3f}"
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


def t_interval(scores: np.ndarray) -> Summary:
    """Mean of the seeds' scores `[S]`, with Student's 95% interval.

        x̄ ± t_{0.975, S - 1} s / √S

    With one seed the interval is a point, as nothing is known of others.
    """
    scores = np.asarray(scores, np.float64)
    mean = float(scores.mean())
    if scores.size < 2:
        return Summary(mean, mean, mean)
    half = float(stats.t.ppf(0.975, scores.size - 1) * stats.sem(scores))
    return Summary(mean, mean - half, mean + half)


def stratified(returns: np.ndarray, resamples: int = 2000) -> Summary:
    """Interquartile mean over seeds of returns `[S, B]`, with a bootstrap over both axes.

    Seeds are drawn first and then, for each, its episodes. The episodes of a seed are
    alike, so they do not count as further seeds.

    Source: Agarwal et al. 2021, sec. 4; Davison & Hinkley 1997, sec. 3.8 (two stages).
    """
    returns = np.asarray(returns, np.float64)
    seeds, episodes = returns.shape
    rng = np.random.default_rng(0)
    drawn = returns[rng.integers(seeds, size=(resamples, seeds))]  # [R, S, B]
    at = rng.integers(episodes, size=drawn.shape)
    scores = np.take_along_axis(drawn, at, axis=2).mean(axis=2)  # [R, S]
    low, high = np.quantile(stats.trim_mean(scores, 0.25, axis=1), [0.025, 0.975])
    mean = float(stats.trim_mean(returns.mean(axis=1), 0.25))
    return Summary(mean, float(low), float(high))


def summary(scores: np.ndarray) -> Summary:
    """The summary that fits the number of seeds; `title` names it.

    Below 4 seeds it is the mean with a t-interval: a bootstrap of 3 covers 77% in place of
    95%, and an interquartile mean of 3 is the mean. From 4 on it is the interquartile mean
    with a bootstrap.

    Args:
      scores: `[S]`, the means of the seeds; or `[S, B]`, of their episodes. Where one is
        nan, all of the summary is.
    """
    scores = np.asarray(scores, np.float64)
    if np.isnan(scores).any():  # a trimmed mean would leave it out in silence
        return Summary(math.nan, math.nan, math.nan)
    if len(scores) < ENOUGH_SEEDS:
        return t_interval(scores.reshape(len(scores), -1).mean(axis=1))
    return interquartile_mean(scores) if scores.ndim == 1 else stratified(scores)


def title(seeds: int) -> str:
    """What `summary` is for so many seeds."""
    return "mean [95%, t]" if seeds < ENOUGH_SEEDS else "IQM [95%]"


def p_better(scores: np.ndarray, others: np.ndarray) -> float:
    """The probability of a difference as large by chance, if the scores were no better.

    One-sided and exact, over seeds `[S]` and `[S']`; of 3 against 3 it is 0.05 at least.

    Source: Mann & Whitney 1947.
    """
    found = stats.mannwhitneyu(scores, others, alternative="greater", method="auto")
    return float(found.pvalue)


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
