"""`python` and `planil` without their imports: one process imports, and forks for each.

Pages start programs dozens of times, and JAX, MuJoCo and this package take seconds each
time. Here a server imports them once. A program is a fork of it, with the caller's
arguments, directory, environment and files, and ends with the caller's exit code.

    python -m tests.docs.forks SOCKET DIRECTORY

writes the programs `python`, `planil` and `page` into DIRECTORY; they ask the server. What
a fork cannot do as a fresh process would, they leave to Python itself: options such as
-O, and variables that are read by imports. JAX must not have computed before a fork.
"""

import contextlib
import json
import os
import runpy
import select
import signal
import socket
import sys
from pathlib import Path

READ_BY_IMPORTS = ("PYTHONPATH", "XLA_FLAGS", "JAX_")
_PROGRAM = """\
#!{python} -IS
import array, json, os, socket, sys

name, arguments = os.path.basename(sys.argv[0]), sys.argv[1:]
given = {{k: v for k, v in os.environ.items() if k.startswith({read_by_imports!r})}}
first = arguments[0] if arguments else ""
forks = name != "python" or first in ("-c", "-m") or first.endswith(".py")
if name != "page" and not (forks and given == {given!r}):
    module = ["-m", "planil_jax.cli.planil"] if name == "planil" else []
    os.execv({python!r}, [{python!r}, *module, *arguments])
server = socket.socket(socket.AF_UNIX)
server.connect({address!r})
job = [name, arguments, os.getcwd(), dict(os.environ)]
socket.send_fds(server, [b"\\n"], [0, 1, 2])
server.sendall(json.dumps(job).encode() + b"\\n")
sys.exit(int(server.makefile().readline() or 70))
"""


def main() -> None:
    address, directory = sys.argv[1:]
    _import()
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(address)
    listener.listen()
    _write_programs(address, Path(directory))
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    job = _serve(listener)
    _run(*job)


def _import() -> None:
    """What programs need; not commands, whose flags are defined when they are imported."""
    import matplotlib.pyplot  # noqa: F401
    from jax._src import xla_bridge

    import planil_jax.api
    import planil_jax.envs.mjcf
    import planil_jax.reporting.report  # noqa: F401

    if xla_bridge.backends_are_initialized():
        raise SystemExit("an import computes with JAX, so that forks would hang")


def _write_programs(address: str, directory: Path) -> None:
    given = {k: v for k, v in os.environ.items() if k.startswith(READ_BY_IMPORTS)}
    text = _PROGRAM.format(
        python=sys.executable,
        read_by_imports=READ_BY_IMPORTS,
        given=given,
        address=address,
    )
    for name in ("python", "planil", "page"):
        (directory / f"{name}.new").write_text(text)
        (directory / f"{name}.new").chmod(0o755)
        os.replace(directory / f"{name}.new", directory / name)


def _serve(listener: socket.socket) -> tuple[str, list[str]]:
    """Forks for each caller and tells it how the fork ended; returns in forks alone."""
    callers: dict[int, socket.socket] = {}
    try:
        while True:
            if select.select([listener], [], [], 0.02)[0]:
                caller = listener.accept()[0]
                _, files, _, _ = socket.recv_fds(caller, 1, 3)
                job = json.loads(caller.makefile().readline())
                pid = os.fork()
                if pid == 0:
                    return _become(files, *job)
                callers[pid] = caller
                for file in files:
                    os.close(file)
            while callers:
                pid, status = os.waitpid(-1, os.WNOHANG)
                if not pid:
                    break
                code = os.waitstatus_to_exitcode(status) % 256
                with callers.pop(pid) as caller, contextlib.suppress(BrokenPipeError):
                    caller.sendall(f"{code}\n".encode())  # unless it lost its patience
    except SystemExit:  # the server is told to end; a fork never gets here
        for pid in callers:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
        raise


def _become(
    files: list[int], name: str, arguments: list[str], cwd: str, env: dict[str, str]
) -> tuple[str, list[str]]:
    """This process takes the caller's files, directory and environment."""
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    for number, file in enumerate(files):
        os.dup2(file, number)
        os.close(file)
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(env)
    return name, arguments


def _run(name: str, arguments: list[str]) -> None:
    """Runs a program in this process, as Python would."""
    from tests.docs import page, sizes

    if "PAGES_AS_THEY_ARE" not in os.environ:
        sizes.install()
    if name == "page":
        page.play(Path(arguments[0]))
        return
    if name == "planil":
        arguments = ["-m", "planil_jax.cli.planil", *arguments]
    kind, *rest = arguments
    if kind == "-m":
        sys.path[0], sys.argv = os.getcwd(), rest
        runpy.run_module(rest[0], run_name="__main__", alter_sys=True)
    elif kind == "-c":
        sys.path[0], sys.argv = "", ["-c", *rest[1:]]
        exec(compile(rest[0], "<string>", "exec"), {"__name__": "__main__"})
    else:
        sys.path[0], sys.argv = str(Path(kind).resolve().parent), arguments
        runpy.run_path(kind, run_name="__main__")


if __name__ == "__main__":
    main()
