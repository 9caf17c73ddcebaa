"""Methods on a course, trained with the car of navigation; settings as there."""

from experiments.configs import navigation


def get_config(method: str = "mpail"):
    return navigation.get_config(method, "course")
