"""The directory of a run: its configuration and its provenance.

logdir/config.json     the whole configuration of the experiment
       versions.json   packages, device and commit
       checkpoints/    by training.checkpoint
       metrics.jsonl   and tensorboard/, by training.report
"""

import json
import os
import platform
import subprocess
from importlib import metadata
from pathlib import Path
from typing import Any

import jax

import planil_jax
from planil_jax import config
from planil_jax.base import UsageError
from planil_jax.training import checkpoint

CHECKPOINTS = "checkpoints"
_CONFIG = "config.json"
_VERSIONS = "versions.json"
_PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy")
_LISTED = 3  # that a message lists


def open_run(
    logdir: str | Path, config_json: str, resume: bool, free: tuple[str, ...] = ()
) -> list[str]:
    """Makes the directory, or checks that the run in it can be continued.

    Args:
      config_json: the configuration as a JSON object, with its version.
      resume: whether a run that is there is to be continued.
      free: fields that may differ from those of the run, such as "run.total_steps".

    Returns:
      Notices for the user, one sentence each.

    Raises:
      UsageError: the directory holds another run, or this one without `resume`, or it
        cannot be made. Nothing is changed then.
    """
    logdir = Path(logdir)
    notices = []
    if (logdir / _CONFIG).exists():
        _refuse_other(logdir, config_json, free)
        if not resume:
            raise UsageError(
                f"{logdir} holds a run already; pass resume=True (--resume) to continue "
                "it, or choose another logdir."
            )
        notices += _other_versions(logdir)
    if resume and not checkpoint.steps(logdir / CHECKPOINTS):
        notices.append(f"{logdir} holds no checkpoint; training starts from the beginning.")
    try:
        logdir.mkdir(parents=True, exist_ok=True)
        _write(logdir / _CONFIG, config_json)
        _write(logdir / _VERSIONS, json.dumps(versions(), indent=2) + "\n")
    except OSError as error:
        raise UsageError(
            f"logdir {logdir} cannot be written: {error.strerror or error}."
        ) from error
    return notices


def read_config(logdir: str | Path) -> str:
    """The configuration of the run, as JSON.

    Raises:
      UsageError: there is no run.
    """
    try:
        return (Path(logdir) / _CONFIG).read_text()
    except OSError:
        raise UsageError(f"there is no run in {logdir}: it has no {_CONFIG}.") from None


def versions() -> dict[str, Any]:
    """Everything that results depend on besides the configuration."""
    precision = jax.config.jax_default_matmul_precision  # type: ignore[attr-defined]
    return {
        "planil_jax": planil_jax.__version__,
        "commit": _commit(),
        "python": platform.python_version(),
        **{package: _version(package) for package in _PACKAGES},
        "device": jax.local_devices()[0].device_kind,
        "devices": jax.local_device_count(),
        "matmul_precision": str(precision or "default"),
        "xla_flags": os.getenv("XLA_FLAGS", ""),
    }


def _refuse_other(logdir: Path, config_json: str, free: tuple[str, ...]) -> None:
    try:
        saved = json.loads(read_config(logdir))
        there = dict(config.leaves(saved))
    except (ValueError, AttributeError) as error:
        raise UsageError(f"{logdir / _CONFIG} is not a configuration: {error}.") from None
    config.require_version(saved, f"the run in {logdir}")
    here = dict(config.leaves(json.loads(config_json)))
    different = [
        f"{name} is {_as_json(there, name)} there, {_as_json(here, name)} here"
        for name in there | here
        if name not in free and _as_json(there, name) != _as_json(here, name)
    ]
    if different:
        more = f"; and {len(different) - _LISTED} more" if len(different) > _LISTED else ""
        raise UsageError(
            f"{logdir} holds a run of another configuration: "
            f"{'; '.join(different[:_LISTED])}{more}. Choose another logdir, or the same "
            "configuration."
        )


def _as_json(leaves: dict[str, Any], name: str) -> str:
    return json.dumps(leaves[name]) if name in leaves else "absent"


def _other_versions(logdir: Path) -> list[str]:
    try:
        there = json.loads((logdir / _VERSIONS).read_text())
    except (OSError, ValueError):
        return []
    changed = [
        f"{name} was {there.get(name)}, is {now}"
        for name, now in versions().items()
        if there.get(name) != now
    ]
    if not changed:
        return []
    return [f"this run began under other versions: {'; '.join(changed)}."]


def _write(path: Path, text: str) -> None:
    """Whole or not at all."""
    beside = path.with_name(f".{path.name}.new")
    beside.write_text(text)
    os.replace(beside, path)


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "absent"


def _commit() -> str:
    """The commit of this package, with "+" where it was changed; "" outside a checkout.

    It was changed where files of the checkout differ, or the package has further ones.
    """
    git = ["git", "-C", str(Path(planil_jax.__file__).parent)]
    tracked = [*git, "ls-files", "--error-unmatch", "__init__.py"]
    describe = [*git, "describe", "--always", "--abbrev=40", "--exclude=*", "--dirty=+"]
    others = [*git, "ls-files", "--others", "--exclude-standard"]
    try:
        subprocess.run(tracked, capture_output=True, check=True, timeout=10)
        described = subprocess.run(describe, capture_output=True, check=True, timeout=10)
        more = subprocess.run(others, capture_output=True, check=True, timeout=10)
    except (OSError, subprocess.SubprocessError):
        return ""
    commit = described.stdout.decode().strip()
    return f"{commit.removesuffix('+')}+" if more.stdout.strip() else commit
