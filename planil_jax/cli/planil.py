"""The command `planil`: lists the commands, or runs one.

    planil
    planil train --help
    planil train --method=mpail --env=navigation --demos=demos.npz --logdir=runs/nav

A command is a module of this package with a docstring, `define_flags` and `main`.
"""

import ast
import importlib
import os
import sys
from pathlib import Path
from typing import NoReturn

# In the order of their use.
COMMANDS = (
    "demo",
    "collect",
    "expert",
    "convert",
    "inspect",
    "train",
    "evaluate",
    "report",
    "film",
    "compare",
    "coverage",
    "methods",
    "envs",
)


def main() -> NoReturn:
    """Runs `planil` from its command line to its exit code."""
    _, *arguments = sys.argv
    if not arguments or arguments[0] in ("help", "--help", "-h"):
        try:
            print(listing(), flush=True)
        except BrokenPipeError:  # nobody reads it, nor what Python flushes as it exits
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            sys.exit(141)
        sys.exit(0)
    command, *rest = arguments
    if command not in COMMANDS:
        from planil_jax.base import did_you_mean

        hint = did_you_mean(command, COMMANDS)
        print(f"error: no command {command!r}.{hint} `planil` lists them.", file=sys.stderr)
        sys.exit(2)
    from planil_jax.cli import app  # brings JAX, which the list does without

    # As `python -m` does, but last: modules of one's own lie in the working directory.
    sys.path.append(os.getcwd())

    sys.argv = [f"planil {command}", *rest]
    app.run_command(importlib.import_module(f"planil_jax.cli.{command}"))


def listing() -> str:
    """The commands, one line each."""
    lines = [f"  {command:10}{_summary(command)}" for command in COMMANDS]
    return "\n".join(
        ["planil COMMAND --flags; planil COMMAND --help says more.", "", *lines]
    )


def _summary(command: str) -> str:
    """The first line of a command's docstring, without importing it."""
    path = Path(__file__).with_name(f"{command}.py")
    if not path.exists():
        return ""
    docstring = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    return docstring.partition("\n")[0]


if __name__ == "__main__":
    main()
