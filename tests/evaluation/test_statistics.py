"""Summaries over seeds, and distances to a path."""

import numpy as np
import pytest

from planil_jax.evaluation import statistics

pytestmark = pytest.mark.fast


def test_the_interquartile_mean_is_that_of_the_middle_half():
    scores = np.array([7.0, 0.0, 3.0, 100.0, 5.0, -100.0, 4.0, 6.0])
    # Sorted: -100 0 | 3 4 5 6 | 7 100
    assert statistics.interquartile_mean(scores).mean == pytest.approx(4.5)


def test_the_interval_holds_the_mean_and_lies_within_the_seeds():
    scores = np.array([1.0, 2.0, 4.0, 5.0])
    mean, low, high = statistics.interquartile_mean(scores)
    assert mean == pytest.approx(3.0)
    assert 1.0 <= low < mean < high <= 5.0


def test_the_interval_of_one_seed_is_the_point():
    summary = statistics.interquartile_mean(np.array([2.5]))
    assert summary == (2.5, 2.5, 2.5)


def test_scores_with_an_axis_beside_the_seeds_are_refused():
    with pytest.raises(ValueError, match="seed"):
        statistics.interquartile_mean(np.ones((4, 2)))


def test_cross_track_is_the_distance_to_the_nearest_point_of_the_line():
    corner = np.array([[0.0, 0.0], [2.0, 0.0], [2.0, 2.0]])
    points = np.array([[1.0, 0.5], [2.0, 1.0], [3.0, 2.0], [-3.0, 4.0], [2.3, -0.4]])
    distances = [0.5, 0.0, 1.0, 5.0, 0.5]
    np.testing.assert_allclose(statistics.cross_track(points, corner), distances, atol=1e-9)


def test_cross_track_accepts_a_line_of_equal_points():
    still = np.array([[1.0, 1.0], [1.0, 1.0]])
    np.testing.assert_allclose(statistics.cross_track(np.array([[4.0, 5.0]]), still), [5.0])


def test_three_seeds_have_a_mean_with_the_t_interval():
    scores = np.array([1.0, 2.0, 6.0])
    half = 4.302653 * np.sqrt(7.0) / np.sqrt(3.0)  # t of 2 degrees of freedom; variance 7
    wanted = (3.0, 3.0 - half, 3.0 + half)
    assert statistics.summary(scores) == pytest.approx(wanted)
    episodes = scores[:, None] + np.array([-1.0, 1.0])
    assert statistics.summary(episodes) == pytest.approx(wanted)
    assert statistics.title(3) == "mean [95%, t]"


def test_one_seed_has_no_interval():
    one = statistics.summary(np.array([[1.0, 3.0]]))
    assert one == (2.0, 2.0, 2.0) and str(one) == "2.000"
    assert str(statistics.Summary(2.0, 1.0, 3.0)) == "2.000 [1.000, 3.000]"


def test_four_seeds_have_an_interquartile_mean_of_their_means():
    returns = np.array([[0.0, 2.0], [4.0, 6.0], [6.0, 8.0], [90.0, 110.0]])
    assert statistics.summary(returns).mean == pytest.approx(6.0)  # of 1 | 5 7 | 100
    assert statistics.summary(returns.mean(1)).mean == pytest.approx(6.0)
    assert statistics.title(4) == "IQM [95%]"


def test_the_bootstrap_counts_seeds_and_not_episodes():
    """Seeds that differ, of many equal episodes, leave the interval of the seeds."""
    seeds = np.array([0.0, 1.0, 2.0, 3.0, 4.0])
    wide = statistics.stratified(np.repeat(seeds[:, None], 1000, axis=1))
    alone = statistics.interquartile_mean(seeds)
    assert wide == pytest.approx(alone, abs=0.35)
    assert wide.high - wide.low > 1.5


def test_the_bootstrap_counts_episodes_within_a_seed():
    rng = np.random.default_rng(0)
    returns = rng.normal(size=(400, 4))  # equal seeds; of their means the deviation is 1/2
    mean, low, high = statistics.stratified(returns)
    assert low < mean < high and high - low < 0.5


def test_the_interval_of_three_seeds_covers_what_it_says():
    """95% of the intervals of normal scores hold their mean; 1,000 draws, ± 2%."""
    draws = np.random.default_rng(0).normal(size=(1000, 3))
    held = [low < 0.0 < high for _, low, high in map(statistics.summary, draws)]
    assert np.mean(held) == pytest.approx(0.95, abs=0.02)


def test_the_probability_of_a_difference_by_chance_is_exact():
    """All of 3 above all of 3: one of 20 orders. Alike: all orders of two against two."""
    assert statistics.p_better(np.arange(3) + 10, np.arange(3)) == pytest.approx(1 / 20)
    assert statistics.p_better(np.arange(3), np.arange(3) + 10) == pytest.approx(1.0)
    # 1 and 4 against 2 and 3: their ranks' sum, 5, is reached by 4 of 6 orders
    assert statistics.p_better([1.0, 4.0], [2.0, 3.0]) == pytest.approx(4 / 6)


@pytest.mark.parametrize("seeds", [3, 8])
def test_a_score_that_is_unknown_is_not_trimmed_away(seeds):
    scores = np.arange(float(seeds))
    scores[0] = np.nan
    assert np.isnan(statistics.summary(scores)).all()
