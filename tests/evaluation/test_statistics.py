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
