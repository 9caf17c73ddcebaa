"""Recipes that build on others."""

import pytest

from experiments.configs import ant, hopper
from planil_jax import config, experiment


@pytest.mark.parametrize("method", ["mpail2", "mpail2/small"])
def test_the_ant_is_the_hopper_s_but_for_critics_scores_and_ends(method):
    there, here = (
        experiment.from_config_dict(made.get_config(method)) for made in (hopper, ant)
    )
    differences = dict(line.split(": ", 1) for line in config.differences(there, here))
    assert differences == {
        "environment": "'gym/Hopper' there, 'gym/Ant:contact_forces=False' here",
        "agent.target_rate": "0.05 there, 0.01 here",
        "agent.gradient_penalty": "5.0 there, 1.0 here",
        "agent.td_lambda": "0.8 there, 0.0 here",
        "agent.q_weight": "0.5 there, 0.0 here",
        "agent.accept_if_all_critics_prefer": "True there, False here",
        "agent.value_scale": "10.0 there, 1.0 here",
        "agent.absorbing": "True there, False here",
    }
