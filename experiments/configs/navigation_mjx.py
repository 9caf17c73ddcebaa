"""Methods on navigation with the simulated car of wheels and tyres; settings as there."""

from experiments.configs import navigation


def get_config(method: str = "mpail"):
    return navigation.get_config(method, "navigation_mjx")
