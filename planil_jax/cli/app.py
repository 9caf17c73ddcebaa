"""What every command shares: flags, help, the device, and errors in one sentence.

    if __name__ == "__main__":
        app.run_command(train)    # a module of this package; or app.run(main)

`main()` takes no arguments and reads `flags.FLAGS`. Exit codes: 0 done, 1 failed, 2 a
mistake on the command line, 141 nobody reads the output any more, and 128 + n where signal
n stopped it: 130 Ctrl-C, 129 SIGHUP, 138 SIGUSR1, 140 SIGUSR2, 143 SIGTERM.

A command is a module with a docstring, whose first line the list of commands shows, and

    define_flags()        defines its flags; not on import, since others import it
    main()                does the work
    COMPUTE = False       if it needs no device
    POSITIONAL = "demos"  if a flag may also be given as an argument without a name
    help_settings(given, load)  if it trains: the experiment whose fields `--help` lists
    FLAG_OF = {...}             and the fields that have a flag instead, {"seed": "seed"}
"""

import errno
import itertools
import logging
import math
import os
import pathlib
import re
import runpy
import sys
import textwrap
import traceback
import types
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import ModuleType
from typing import NoReturn

import jax
import ml_collections
from absl import flags
from absl import logging as absl_logging

from planil_jax.base import UsageError, UserError, did_you_mean
from planil_jax.config import Field, describe, leaves
from planil_jax.precision import require_float32
from planil_jax.training import signals
from planil_jax.training.files import DamageWarning

FLAGS = flags.FLAGS

flags.DEFINE_bool("debug", False, "Show tracebacks and warnings.")
flags.DEFINE_enum("device", "auto", ["auto", "cpu", "gpu"], "Where to compute.")
flags.DEFINE_string(
    "compile_cache",
    "~/.cache/planil_jax/xla",
    "Directory that keeps compiled programs from one run to the next; empty: keep none.",
)

flags.DEFINE_bool(
    "trust_imports", False, "Import the modules that a run names; they run their code."
)

_WIDTH = 92  # columns of the help text
_REPEATED = ";\n    repeat this option to specify a list of values"  # as absl writes it
_VECTORS = "xla_cpu_prefer_vector_width"
_HELP = {"--help", "-help", "-h", "-?", "--helpshort", "--helpfull"}
_LOUD = ("jax", "jaxlib", "orbax", "flax", "etils", "absl")


def run_command(command: ModuleType) -> NoReturn:
    """Runs a command from its command line to its exit code."""
    command.define_flags()
    run(
        command.main,
        compute=getattr(command, "COMPUTE", True),
        positional=getattr(command, "POSITIONAL", ""),
    )


def run(
    main: Callable[[], None],
    *,
    config: str = "",
    compute: bool = True,
    positional: str = "",
) -> NoReturn:
    """Runs a binary from its command line to its exit code.

    Args:
      main: the binary; its module's docstring is the help text.
      config: the config file to read where the command line names none. It must not be the
        flag's default, which `config_flags` would read before errors can be caught.
      compute: whether to open a device, and to say which.
      positional: the flag that an argument without a name stands for; empty: none.
    """
    argv = sys.argv
    # Of what was closed, `2>&-`, Python makes None.
    sys.stdout, sys.stderr = (
        file or open(os.devnull, "w") for file in (sys.stdout, sys.stderr)
    )
    argv[1:] = map(_expand_home, argv[1:])
    if config and _given("config", argv) is None:
        argv.insert(1, f"--config={config}")
    try:
        with signals.heard():
            _run(main, argv, compute, positional)
        sys.stdout.flush()
    except (Exception, KeyboardInterrupt, signals.Stopped) as error:
        sys.exit(_report(error, argv))
    sys.exit(0)


def _run(main: Callable[[], None], argv: list[str], compute: bool, positional: str) -> None:
    if _HELP & set(argv[1:]):
        print(help_text(main, argv))
        return
    parse(argv, positional=positional, flag_of=_flag_of(main))
    if not FLAGS.debug:
        _quieten()
    if compute:
        _use_float32()
        _widen_vectors()
        print(_open_device(FLAGS.device), file=sys.stderr)
        _keep_compiled(FLAGS.compile_cache)
    warnings.showwarning = _show_warning
    main()


# ------------------------------------------------------------------------- command line


def parse(
    argv: list[str],
    flag_values: flags.FlagValues = FLAGS,
    positional: str = "",
    flag_of: Mapping[str, str] = types.MappingProxyType({}),
) -> None:
    """Parses the command line, program name first.

    Args:
      positional: the flag that an argument without a name stands for; empty: none.
      flag_of: fields of a config that have a flag instead, {"demonstrations": "demos"}.

    Raises:
      UsageError: anything in it is wrong; one sentence.
    """
    for name in list(flag_values):
        if flag_values[name].parser.flag_type() == "config object":
            _check_config(name, argv)
    flag_values.set_gnu_getopt()  # flags may follow an argument
    try:
        _, *rest = flag_values(argv)
    except flags.UnrecognizedFlagError as error:
        raise UsageError(_unknown(error.flagname, flag_values, flag_of)) from None
    except (flags.Error, ValueError) as error:
        lines = str(error).splitlines()
        raise UsageError(" ".join(_reword(line, flag_values) for line in lines)) from None
    if rest and positional and flag_values[positional].value is None:
        flag_values[positional].parse(rest.pop(0))
    if rest:
        raise UsageError(f"unexpected argument {rest[0]!r}; flags are --name=value.")


def numbers(name: str, flag_values: flags.FlagValues = FLAGS) -> list[float]:
    """The numbers of a list flag.

    Raises:
      UsageError: one of them is no finite number.
    """
    written: list[str] = flag_values[name].value or []
    try:
        found = [float(text) for text in written]
    except ValueError:
        found = [math.nan]
    if not all(map(math.isfinite, found)):
        raise UsageError(f"--{name}={','.join(written)}: must be numbers, such as 40,80.")
    return found


def help_text(
    main: Callable[[], None], argv: list[str], flag_values: flags.FlagValues = FLAGS
) -> str:
    """The docstring of the binary, its flags, and the fields of its experiment."""
    # absl files the flags of the main module under the name of the program.
    module = argv[0] if main.__module__ == "__main__" else main.__module__
    text = [(sys.modules[main.__module__].__doc__ or "").strip(), "", "Flags:"]
    of_module = flag_values.get_key_flags_for_module(module)
    for flag in of_module + flag_values.get_key_flags_for_module(__name__):
        default = "" if flag.default in (None, "", []) else f" Default: {flag.default}."
        text += [f"  --{'[no]' * flag.boolean}{flag.name}"]
        meaning = flag.help.replace(_REPEATED, "")
        text += [_indented(f"{meaning}{default}")]
    return "\n".join(text + _help_of_fields(main, argv))


def _help_of_fields(main: Callable[[], None], argv: list[str]) -> list[str]:
    """The fields of the experiment, or of the config file on the command line."""
    path = _given("config", argv)
    help_settings = getattr(sys.modules[main.__module__], "help_settings", None)
    if help_settings is None:
        if path is None:
            return []
        values = leaves(load_config(path))
        title = f"Fields of {path}, and their values:"
        return ["", title] + [f"  --config.{name}={value}" for name, value in values]
    settings = help_settings(lambda name: _given(name, argv), load_config)
    with_flag = {"method", *_flag_of(main)}
    fields = [field for field in describe(settings) if field.path not in with_flag]
    title = (
        f"Fields of {settings.method} in {settings.environment}, with their values, for "
        "--set PATH=VALUE (with a config file also --config.PATH=VALUE):"
    )
    return ["", *textwrap.wrap(title, _WIDTH), *map(_help_of_field, fields)]


def _help_of_field(field: Field) -> str:
    """Path, value, kind and meaning of a field, on two lines or more."""
    value = f"'{field.default}'" if field.default == "" else str(field.default)
    head = f"  {field.path}={value}"
    gap = " " * max(2, 46 - len(head))
    if len(head + gap + field.kind) > _WIDTH:
        head, gap = head + "\n", " " * 6
    return "\n".join(
        [f"{head}{gap}{field.kind}"] + [_indented(field.meaning)] * bool(field.meaning)
    )


def _indented(text: str) -> str:
    return textwrap.indent(textwrap.fill(text, _WIDTH - 6), " " * 6)


def first_line(docstring: str | None) -> str:
    """The first line of a docstring, for a list."""
    return (docstring or "").strip().partition("\n")[0]


def columns(rows: Sequence[tuple[str, str]]) -> str:
    """Names with their texts, one line each."""
    width = max(len(name) for name, _ in rows)
    return "\n".join(f"{name:{width}}  {text}".rstrip() for name, text in rows)


def _check_config(name: str, argv: list[str]) -> None:
    """Refuses a config file that does not load, and an override of a field it lacks."""
    path = _given(name, argv)
    if path is None:
        return
    config = load_config(path)
    for argument in argv[1:]:
        override = re.match(rf"--?(?:no)?{name}\.([^=]+)", argument)
        if override:
            _check_override(name, override[1].split("."), config)


def load_config(path: str) -> ml_collections.ConfigDict:
    """What `get_config` of "file.py" or "file.py:argument" returns."""
    file, *arguments = path.split(":", 1)
    if not os.path.isfile(file):
        siblings = map(str, pathlib.Path(file).parent.glob("*.py"))
        raise UsageError(f"no config file {file!r}.{_there_are(file, sorted(siblings))}")
    try:
        return runpy.run_path(file)["get_config"](*arguments)
    except UserError:
        raise
    except Exception as error:
        raise UsageError(f"config file {path} fails: {_one_line(error)}") from error


def _check_override(
    path: str, fields: list[str], node: ml_collections.ConfigDict | object
) -> None:
    for field in fields:
        if not isinstance(node, ml_collections.ConfigDict):
            raise UsageError(f"--{path} is a single value and has no field {field!r}.")
        if field not in node:
            raise UsageError(
                f"--{path} has no field {field!r}.{_there_are(field, list(node))}"
            )
        path, node = f"{path}.{field}", node[field]
    if isinstance(node, ml_collections.ConfigDict):
        raise UsageError(f"--{path} is a group; set one of its fields: {', '.join(node)}.")


def _expand_home(argument: str) -> str:
    """A flag --name=~/path with the home directory in it, which a shell leaves alone."""
    flag, equals, value = argument.partition("=")
    if argument.startswith("~"):  # after a space, or without a flag
        return os.path.expanduser(argument)
    if not equals or not flag.startswith("-") or "~" not in value:
        return argument
    return f"{flag}={','.join(map(os.path.expanduser, value.split(',')))}"


def _given(name: str, argv: list[str]) -> str | None:
    """The value of a flag on a command line that is not parsed yet, or None."""
    for argument, value in itertools.pairwise([*argv[1:], ""]):
        if argument in (f"--{name}", f"-{name}"):
            return value
        if argument.startswith((f"--{name}=", f"-{name}=")):
            return argument.split("=", 1)[1]
    return None


def _flag_of(main: Callable[[], None]) -> Mapping[str, str]:
    """Fields that have a flag instead, as the module of a command says."""
    return getattr(sys.modules[main.__module__], "FLAG_OF", {})


def _unknown(name: str, flag_values: flags.FlagValues, flag_of: Mapping[str, str]) -> str:
    config, dot, field = name.partition(".")
    if dot and config in flag_values:
        if field in flag_of:
            return f"--{name} has a flag of its own: --{flag_of[field]}."
        return f"--{name} needs a config file: add --{config}=FILE before it."
    return f"no flag --{name}.{did_you_mean(name, _visible(flag_values), '--')} Try --help."


def _visible(flag_values: flags.FlagValues) -> Iterator[str]:
    """Names of flags other than those that absl and its users bring along."""
    for module, its_flags in flag_values.flags_by_module_dict().items():
        if not module.startswith(("absl", "chex", "jax", "orbax", "ml_collections")):
            yield from (flag.name for flag in its_flags)


def _reword(line: str, flag_values: flags.FlagValues) -> str:
    """absl's message about the value of one flag, reworded."""
    found = re.fullmatch(r"flag --([^=]+)=(.*?): (.*)", line)
    if not found or found[1] not in flag_values:
        return line
    name, value, reason = found.groups()
    flag = flag_values[name]
    if "value other than None" in reason:
        return f"--{name} is required: {flag.help}"
    words = {"bool": "true or false", "tuple": "a tuple, such as '(1, 2)'"}
    wanted = words.get(flag.parser.flag_type()) or flag.parser.syntactic_help
    return f"--{name}={value}: {f'must be {wanted}' if wanted else reason}."


def _there_are(name: str, known: list[str]) -> str:
    return f"{did_you_mean(name, known)} There are: {', '.join(known)}." if known else ""


# ------------------------------------------------------------------------------- device


def _use_float32() -> None:
    if sentence := require_float32():
        print(sentence, file=sys.stderr)


def _widen_vectors() -> None:
    """Has XLA use the widest vectors that a CPU knows, unless XLA_FLAGS says otherwise.

    XLA's default is 256 bits. With 512, elementwise operations take half the time.
    """
    given = os.environ.get("XLA_FLAGS", "")
    if _VECTORS not in given:
        os.environ["XLA_FLAGS"] = f"{given} --{_VECTORS}=512".strip()


def _open_device(choice: str) -> str:
    """Opens the device of choice; a line that says which it is."""
    if choice != "auto":
        jax.config.update("jax_platforms", {"cpu": "cpu", "gpu": "cuda,cpu"}[choice])
    try:
        devices = jax.devices()
    except RuntimeError as error:
        raise UsageError(
            f"JAX opens no device: {_one_line(error)}; try --device=cpu."
        ) from error
    if devices[0].platform != "cpu":
        count = f"{len(devices)} × " if len(devices) > 1 else ""
        return f"device: {count}{devices[0].device_kind}, jax {jax.__version__}"
    if choice == "gpu":
        raise UsageError(
            'JAX finds no GPU: install its CUDA version with `pip install ".[cuda]"`, or '
            "take what there is with --device=auto."
        )
    return f"device: cpu ({_cores()} cores), jax {jax.__version__}"


def _cores() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _keep_compiled(directory: str) -> None:
    """Caches programs that took half a second or more to compile, where it can."""
    if not directory:
        return
    path = os.path.expanduser(directory)
    try:
        os.makedirs(path, exist_ok=True)
        if not os.access(path, os.W_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    except OSError as error:
        print(f"compiled programs are not kept: {path}: {error.strerror}", file=sys.stderr)
        return
    jax.config.update("jax_compilation_cache_dir", path)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)


def _show_warning(message, category, *args, plain=warnings.showwarning, **kwargs) -> None:
    """Tells damage in one line, and other warnings as Python does."""
    if issubclass(category, DamageWarning):
        print(f"note: {message}", file=sys.stderr)
    else:
        plain(message, category, *args, **kwargs)


def _quieten() -> None:
    """Silences other libraries, except for their errors."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    absl_logging.set_verbosity(absl_logging.ERROR)
    for name in _LOUD:
        logging.getLogger(name).setLevel(logging.ERROR)
        warnings.filterwarnings("ignore", module=name)


# ------------------------------------------------------------------------------- errors


def explain(error: BaseException) -> tuple[str, int]:
    """One sentence about an error, and the exit code."""
    disk_full = "No space left on device" in str(error)
    match error:
        case UserError():
            return f"error: {error}", error.exit_code
        case signals.Stopped() | signals.Interrupted():
            return error.sentence, int(error.code or 0)
        case KeyboardInterrupt():
            return "interrupted; earlier checkpoints and files are kept.", 130
        case OSError() if disk_full or error.errno in (errno.ENOSPC, errno.EDQUOT):
            return _disk_full(error.filename or "a file"), 1
        case OSError() if error.filename is not None:
            return f"error: {error.filename}: {error.strerror}.", 1
        case MemoryError():
            return _out_of_memory("this machine"), 1
    if disk_full:
        return _disk_full("a file"), 1
    if "RESOURCE_EXHAUSTED" in str(error):
        return _out_of_memory("the device"), 1
    return (
        f"error: unexpected {_one_line(error)}; run again with --debug for the traceback, "
        "and please report it.",
        1,
    )


def _out_of_memory(what: str) -> str:
    return (
        f"error: {what} is out of memory: lower loop.num_envs, agent.planner.samples or "
        "--seeds."
    )


def _disk_full(file: str) -> str:
    return (
        f"error: the disk is full: could not write {file}; the last checkpoint is kept. "
        "Free some space and run again."
    )


def _report(error: BaseException, argv: list[str]) -> int:
    """Writes an error to standard error; returns the exit code."""
    if isinstance(error, BrokenPipeError):
        # Python flushes standard output once more as it exits; nobody is there to read it.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    if FLAGS["debug"].value or "--debug" in argv:  # the flags may not be parsed yet
        traceback.print_exception(error)
    message, status = explain(error)
    if message:  # of a signal it was said already
        print(" ".join(message.split()), file=sys.stderr)
    return status


def _one_line(error: BaseException) -> str:
    """The type of an error and its message, shortened to one line."""
    message = textwrap.shorten(str(error), 300, placeholder=" …")
    return f"{type(error).__name__}: {message}" if message else type(error).__name__
