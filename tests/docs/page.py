"""Plays a page: its blocks in order, in one namespace and in the working directory."""

import ast
import linecache
import subprocess
import sys
import traceback
import types
from pathlib import Path
from typing import Any

from tests.docs import blocks


def play(path: Path) -> None:
    """Runs the blocks of a page, up to the first that fails, and exits with 1 there.

    Python is run in this process; a traceback shows the lines of the page. The last line
    that is printed names the block that failed.
    """
    main = types.ModuleType("__main__")
    sys.modules["__main__"], sys.path[0] = main, ""
    for block in filter(lambda block: block.runs, blocks.read(path)):
        where = f"{path}:{block.line}"
        print(f"-- {where} {block.file or block.language}", flush=True)
        try:
            if block.file:
                Path(block.file).parent.mkdir(parents=True, exist_ok=True)
                Path(block.file).write_text(block.code)
            elif block.language == "bash":
                subprocess.run(["bash", "-ec", block.code], check=True)
            else:
                _python(path, block, vars(main))
        except BaseException as error:
            _blame(path, where, error)
            sys.exit(1)


def _python(path: Path, block: blocks.Block, namespace: dict[str, Any]) -> None:
    """Runs a block; of a cell of a notebook, what it ends with is shown."""
    name, first = str(path), block.line
    if path.suffix == ".ipynb":
        name, first = f"{path}, cell {block.line}", 1
        lines = block.code.splitlines(keepends=True)
        linecache.cache[name] = (len(block.code), None, lines, name)
    tree = ast.parse(block.code, name)
    ast.increment_lineno(tree, first - 1)
    shown = tree.body[-1] if path.suffix == ".ipynb" and tree.body else None
    if isinstance(shown, ast.Expr):
        tree.body.pop()
    exec(compile(tree, name, "exec"), namespace)
    if isinstance(shown, ast.Expr):
        value = eval(compile(ast.Expression(shown.value), name, "eval"), namespace)
        show = getattr(value, "_repr_html_", value.__repr__)
        print(f"shown: {len(show())} characters of a {type(value).__name__}")


def _blame(path: Path, where: str, error: BaseException) -> None:
    """Prints the traceback from the page on, and the block that failed."""
    reason = f"{type(error).__name__}: {error}"
    if isinstance(error, subprocess.CalledProcessError):
        reason = f"bash ended with {error.returncode}"
    else:
        frames = error.__traceback__
        while frames and not frames.tb_frame.f_code.co_filename.startswith(str(path)):
            frames = frames.tb_next
        traceback.print_exception(error.with_traceback(frames), file=sys.stdout)
    print(f"failed: {where}: {reason}", flush=True)
