"""A page of demonstrations: what they hold, and what a reader would doubt.

Trajectories, ranges, the largest steps (gaps, resets, wrapped angles), actions against
their bounds, and how alike the episodes are: one HTML file that needs no network.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from planil_jax.data.dataset import Demos
from planil_jax.data.demo_file import Episode
from planil_jax.reporting import page

_AT_BOUND = 0.01  # of the range: actions that near are at their bounds
_EPISODES = 30  # drawn, and compared with each other, at most
_JUMPS = 40  # listed, at most
_POINTS = 50  # of an episode, where episodes are compared


def write(demos: Demos, path: str | Path, title: str, replay: str = "") -> Path:
    """Writes the page of demonstrations, and returns its path.

    Args:
      path: of the .html file; directories above it are made.
      title: of the page.
      replay: a sentence about blind replay; "": none.

    Raises:
      UserError: the extra `report` is not installed, or the file cannot be written.
    """
    path = Path(path).expanduser()
    text = render(demos, title, replay)
    path.parent.mkdir(parents=True, exist_ok=True)
    page.save(path, text)
    return path


def render(demos: Demos, title: str, replay: str = "") -> str:
    """The page as HTML; see `write`."""
    card, shown = demos.card, demos.episodes[:_EPISODES]
    count, steps = len(demos), [episode.length for episode in demos]
    facts = [
        f"{count} episodes of {card.environment or 'an unknown environment'}",
        f"{sum(steps)} steps of {card.control_period:g} s, {min(steps)} to {max(steps)} an "
        "episode",
        f"{sum(episode.terminal for episode in demos)} ended for good",
        f"by {card.expert}" if card.expert else "by an unknown expert",
    ]
    if card.known_returns:
        low, high = min(card.known_returns), max(card.known_returns)
        facts.append(f"returns {low:.4g} to {high:.4g}")
    notes = [page.text(sentence) for sentence in (card.note, replay) if sentence]
    drawn = []
    if count > _EPISODES:
        drawn = [page.text(f"Drawn and compared are the first {_EPISODES} episodes.")]
    parts = [page.header(title, facts, None), *notes, *drawn]
    if not card.image:
        parts += _observations(demos, shown)
    if demos.episodes[0].actions is not None:
        parts.append(_actions(demos, shown))
    if count > 1:
        parts.append(_likeness(shown))
    return page.assemble(title, parts)


def distances(episodes: Sequence[Episode]) -> np.ndarray:
    """How far apart episodes are, `[N, N]`.

    Each is read at as many moments, shares of its length, and the distance of two is the
    root of the mean of the squared differences, each entry divided by its spread in all.
    """
    rows = []
    for episode in episodes:
        at = np.linspace(0, episode.length, _POINTS).round().astype(int)
        rows.append(episode.obs[at].reshape(_POINTS, -1).astype(np.float64))
    flat = np.array(rows)  # [N, P, O]
    spread = flat.std((0, 1))
    flat = (flat / np.where(spread > 0, spread, 1.0)).reshape(len(rows), -1)
    square = (flat**2).sum(1)
    squared = square[:, None] + square[None] - 2 * flat @ flat.T
    entries = max(int((spread > 0).sum()), 1) * _POINTS
    found = np.sqrt(np.maximum(squared, 0.0) / entries)
    np.fill_diagonal(found, 0.0)
    return found


# -------------------------------------------------------------------------------- sections


def _observations(demos: Demos, shown: Sequence[Episode]) -> list[str]:
    from planil_jax.reporting import figures

    names = demos.card.observation_names
    names = names or tuple(f"entry {i}" for i in range(shown[0].obs.shape[1]))
    obs = [episode.obs for episode in shown]
    together = np.concatenate([episode.obs for episode in demos])  # [Σ(L + 1), O]
    still = [
        name for name, column in zip(names, together.T, strict=True) if np.ptp(column) == 0
    ]
    period = demos.card.control_period or 1.0
    ranges = [
        (name, f"{low:.4g} to {high:.4g}, mean {mean:.4g}", low == high)
        for name, low, high, mean in zip(
            names, together.min(0), together.max(0), together.mean(0), strict=True
        )
    ]
    said = [page.text(f"These entries never change: {', '.join(still)}.")] if still else []
    return [
        page.section(
            "Trajectories",
            page.figure(
                figures.demonstration_paths(names, obs, period),
                "Each entry of the observation over time, a line an episode.",
                "observations over time",
                figures.demonstration_paths(names, obs, period, layout=figures.NARROW),
            ),
            *said,
            page.table("Ranges", ranges),
        ),
        page.section(
            "Steps",
            page.figure(
                figures.demonstration_steps(names, obs),
                "The largest step of each episode, as a share of the entry's range. One "
                "that stands out may be a gap, a reset in the episode, or a wrapped angle.",
                "largest steps",
            ),
            page.table("Steps of more than half a range", _jumps(names, shown)),
        ),
    ]


def _jumps(names: Sequence[str], shown: Sequence[Episode]) -> list[tuple[str, str, bool]]:
    """Rows of a table: where an entry changes by more than half its range in a step."""
    together = np.concatenate([episode.obs for episode in shown])
    spread = np.maximum(np.ptp(together, 0), 1e-12)
    rows = []
    for n, episode in enumerate(shown):
        shares = np.abs(np.diff(episode.obs, axis=0)) / spread  # [L, O]
        for step, entry in np.argwhere(shares > 0.5).tolist():
            last = ", its last" if step == episode.length - 1 else ""
            what = f"{names[entry]} by {shares[step, entry]:.2f} of its range"
            rows.append((f"episode {n}, step {step}{last}", what, False))
    more = [(f"and {len(rows) - _JUMPS} more", "", False)] * (len(rows) > _JUMPS)
    return rows[:_JUMPS] + more


def _actions(demos: Demos, shown: Sequence[Episode]) -> str:
    from planil_jax.reporting import figures

    card = demos.card
    together = np.concatenate([np.asarray(episode.actions) for episode in demos])
    names = [f"action {i}" for i in range(together.shape[1])]
    bounds = (card.action_low, card.action_high) if card.action_low else None
    actions = [np.asarray(episode.actions) for episode in shown]
    period = card.control_period or 1.0
    said = []
    if bounds is not None:
        low, high = np.array(bounds[0]), np.array(bounds[1])
        near = _AT_BOUND * (high - low)
        at_bound = ((together <= low + near) | (together >= high - near)).mean(0)
        rows = [
            (name, f"{share:.0%} of the steps at a bound", share > 0.5)
            for name, share in zip(names, at_bound, strict=True)
        ]
        said = [page.table("Actions at their bounds", rows)]
    caption = "Each entry of the action over time; dashed: its bounds."
    draw = figures.demonstration_paths
    return page.section(
        "Actions",
        page.figure(
            draw(names, actions, period, bounds),
            caption,
            "actions over time",
            draw(names, actions, period, bounds, layout=figures.NARROW),
        ),
        *said,
    )


def _likeness(shown: Sequence[Episode]) -> str:
    from planil_jax.reporting import figures

    found = distances(shown)
    apart = found[~np.eye(len(found), dtype=bool)]
    words = (
        f"Two episodes are {apart.mean():.2g} apart on average, {apart.min():.2g} at least."
    )
    if apart.max() < 0.05:
        words += (
            " All are alike: repeating the actions blindly may do as well as imitating."
        )
    return page.section(
        "How alike the episodes are",
        page.text(words),
        page.figure(
            figures.demonstration_likeness(found),
            "Distances in standard deviations of the entries, at equal shares of each "
            "episode's length. 0: the same; 1.4: as if drawn at random.",
            "distances between episodes",
        ),
    )
