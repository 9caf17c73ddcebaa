"""What the pages name exists: files, commands, flags, methods, settings and functions.

The pages are README.md, CONTRIBUTING.md and docs/, but for the research log and the
results, whose commands are of earlier commits. Links within docs/ and their anchors are
checked by `mkdocs build`, which fails for one that is broken.
"""

import ast
import functools
import importlib
import inspect
import itertools
import re
import shlex
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

import planil_jax as pj
from planil_jax import config, experiment, recipes, registry
from planil_jax.base import did_you_mean
from planil_jax.cli import planil

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
OF_EARLIER_COMMITS = (DOCS / "log", DOCS / "results")
PAGES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    *sorted(
        page
        for page in DOCS.rglob("*.md")
        if not any(page.is_relative_to(folder) for folder in OF_EARLIER_COMMITS)
    ),
]
FOLDERS = (
    "planil_jax",
    "experiments",
    "benchmarks",
    "tests",
    "docs",
    "results",
    "examples",
)
GROUPS = ("loop", "run", "agent")  # of an experiment's settings
_FENCE = re.compile(r"^( *)```(\w*)[^\n]*\n(.*?)^\1```", re.MULTILINE | re.DOTALL)
_FILE = re.compile(rf"(?<![\w./~-])(?:{'|'.join(FOLDERS)})/[\w./-]*\w")
_PLACEHOLDER = re.compile(r"(?<![A-Za-z])[A-Z]{3,}(?![A-Za-z])|…|\.\.\.")


class Snippet(NamedTuple):
    """Code on a page: a fenced block, or words in backticks."""

    line: int
    language: str  # "" of words in backticks
    text: str


class Page(NamedTuple):
    """What is checked of a page."""

    path: Path
    text: str

    @property
    def snippets(self) -> list[Snippet]:
        """Blocks and words in backticks, each with its line."""
        found = []
        rest = self.text
        for match in _FENCE.finditer(self.text):
            line = self.text[: match.start(3)].count("\n") + 1
            found.append(Snippet(line, match[2] or "text", match[3]))
            blank = re.sub(r"[^\n]", " ", match[0])
            rest = rest[: match.start()] + blank + rest[match.end() :]
        for match in re.finditer(r"`([^`]+)`", rest):
            line = rest[: match.start()].count("\n") + 1
            found.append(Snippet(line, "", " ".join(match[1].split())))
        return found


@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_page_names_only_what_exists(path):
    assert list(mistakes(Page(path, path.read_text()))) == []


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("[x](planil_jax/agent.py)", "3: there is no file planil_jax/agent.py."),
        ("`tests/test_nothing.py`", "3: there is no file tests/test_nothing.py."),
        ("[x](CONTRIBUTING.md#how)", "3: CONTRIBUTING.md has no heading #how."),
        ("`planil tarin`", "3: there is no command planil tarin. Did you mean train?"),
        ("`planil train --sedes=3`", "3: planil train has no flag --sedes."),
        ("`--total_step`", "3: no command has the flag --total_step."),
        ("`run.polcy()`", "3: planil_jax.Run has no polcy."),
        ("`mppi.Confg`", "3: planil_jax.mppi has no Confg."),
        ("`pj.train('bc', sedes=3)`", "3: pj.train takes no argument sedes."),
        ("`pj.train('bc', settings={'bach': 3})`", "3: no method has the setting bach."),
        ("`pj.make_env('navigatoin')`", "3: there is no environment navigatoin."),
        ("`pj.collect('navigatoin:a=1')`", "3: there is no environment navigatoin."),
        ("`pj.train('bc', 'navigatoin')`", "3: there is no environment navigatoin."),
        ("`pj.compare(['bcc:a=1'], 'pendulum')`", "3: there is no method bcc."),
        ("`planil evaluate --tuned_trials=3`", "3: planil evaluate has no flag --tuned_"),
        ("`make tset`", "3: the Makefile has no target tset."),
        ("`python -m experiments.trian`", "3: there is no module experiments.trian."),
        ("`planil train --method=mpial`", "3: there is no method mpial."),
        ("`planil collect --env=navigatoin`", "3: there is no environment navigatoin."),
        (
            "`planil train --method=bc --set agent.planner.horizon=3`",
            "3: bc has no setting agent.planner.horizon.",
        ),
        ("`loop.num_env`", "3: no method has the setting loop.num_env."),
        ("`pj.trian`", "3: planil_jax has no trian."),
        ("`planil_jax.losses.advers`", "3: planil_jax.losses has no advers."),
        ("```python\nfrom planil_jax import mpial\n```", "4: planil_jax has no mpial."),
        (
            "```python\nimport planil_jax as pj\npj.train('bc', sedes=3)\n```",
            "5: pj.train takes no argument sedes.",
        ),
        (
            "```python\nimport planil_jax as pj\n\npj.train(\n  'bcc')\n```",
            "6: there is no method bcc.",
        ),
        (
            '```python\nsettings = {\n  "loop.step": 3}\n```',
            "5: no method has the setting loop.step.",
        ),
        ("```python\nx = (\n```", "4: a block of Python that does not parse"),
        (
            "```bash\nplanil train \\\n  --sedes=3\n```",
            "4: planil train has no flag --sedes",
        ),
    ],
)
def test_a_wrong_name_is_told_in_a_sentence_with_its_line(text, sentence):
    (found,) = mistakes(Page(ROOT / "page.md", f"# Title\n\n{text}\n"))
    assert found.startswith(f"page.md:{sentence}") and found.endswith((".", "?"))


def test_what_exists_is_not_complained_of():
    text = """# Title

    [x](planil_jax/api.py), `pj.Demos.from_arrays`, `planil_jax.envs.scenes.register`,
    `planil train --method=mpail2/small --env=gym/Hopper --set planner.horizon=3`,
    `run.policy`, `run.total_steps`, `--noactions`, `planil evaluate --tuning_trials=0`,
    `run.policy("best")`, `pj.train(...)`, `mppi.Config`, `pj.train('bc', settings=own)`,
    `docs/algorithms/NAME.md`, `make docs`, `mpail.py`

    ```bash
    X=1 planil train --method=bc --env=pendulum:pixels=64 --logdir=runs/a \\
        --set batch=3 > log 2>&1 &
    cat > a.py <<'EOF'
    planil tarin
    EOF
    ```
    """
    assert list(mistakes(Page(ROOT / "page.md", inspect.cleandoc(text)))) == []


def test_the_reference_has_every_public_name_and_the_settings_of_every_method():
    listed = (DOCS / "reference/index.md").read_text()
    names = [
        name for name in pj.__all__ if name not in (*_modules_of_package(), "__version__")
    ]
    assert [name for name in names if f"`pj.{name}`" not in listed] == []
    described = (DOCS / "reference/agents.md").read_text()
    homes = {
        f"{type(registry.method(name).config).__module__}.Config"
        for name in registry.methods()
        if not registry.foreign_module(name)
    }
    assert [home for home in sorted(homes) if f"::: {home}\n" not in described] == []


# -------------------------------------------------------------------------------- checking


def mistakes(page: Page) -> Iterator[str]:
    """A sentence for each name on a page that nothing has."""
    where = page.path.relative_to(ROOT)
    seen = set()
    for line, sentence in _mistakes(page):
        if (line, sentence) not in seen:
            seen.add((line, sentence))
            yield f"{where}:{line}: {sentence}"


def _mistakes(page: Page) -> Iterator[tuple[int, str]]:
    yield from _of_links(page)
    snippets = page.snippets
    own = set(re.findall(r"register_(?:agent|env)\(\s*[\"'](\w+)", page.text))
    for snippet in snippets:
        for number, line in enumerate(snippet.text.splitlines()):
            for match in _FILE.finditer(line):
                if not _PLACEHOLDER.search(match[0]) and not (ROOT / match[0]).exists():
                    yield snippet.line + number, f"there is no file {match[0]}."
        if snippet.language == "python":
            yield from _of_python(snippet, own)
        elif snippet.language in ("", "bash", "text", "sh", "console"):
            for line, command in _commands(snippet):
                yield from ((line, told) for told in _of_command(command, own))
        if snippet.language != "python":
            yield from _of_words(snippet, own)


def _of_links(page: Page) -> Iterator[tuple[int, str]]:
    """Links of the pages that MkDocs does not read as they are."""
    if page.path.is_relative_to(DOCS):
        return
    for number, line in enumerate(page.text.splitlines(), 1):
        for link in re.findall(r"\]\(([^)\s]+)\)", line):
            if re.match(r"\w+:", link):
                continue
            name, _, anchor = link.partition("#")
            target = page.path.parent / name if name else page.path
            if not target.exists():
                yield number, f"there is no file {name}."
            elif anchor and target.suffix == ".md" and anchor not in _anchors(target):
                yield number, f"{target.name} has no heading #{anchor}."


def _anchors(path: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    titles = re.findall(r"^#+ (.*)$", path.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def _of_words(snippet: Snippet, own: set[str]) -> Iterator[tuple[int, str]]:
    """Dotted names of the package, settings and flags in words or in a shell's lines."""
    for number, line in enumerate(snippet.text.splitlines()):
        at = snippet.line + number
        for dotted in re.findall(r"\b(?:pj|planil_jax)((?:\.[A-Za-z]\w*)+)", line):
            if _PLACEHOLDER.search(dotted) or dotted.endswith(".py"):
                continue
            if told := _missing("planil_jax" + dotted):
                yield at, told
    if snippet.language:
        return
    word = snippet.text
    modules = "|".join(_modules_of_package())
    if re.fullmatch(rf"(?:(?:{modules})\.[A-Z]\w*|(?:pj|run|{modules})\.\w+\(.*\))", word):
        yield from _of_python(snippet, own)
        return
    if re.fullmatch(rf"(?:{'|'.join(GROUPS)})(?:\.[a-z]\w*)+", word):
        is_method = word.startswith("run.") and hasattr(pj.Run, word.split(".")[1])
        if not is_method and word not in _all_settings():
            yield snippet.line, f"no method has the setting {word}."
    if flag := re.match(r"--(\w+)", word):
        if flag[1] not in _all_flags() and not flag[1].startswith("config"):
            yield snippet.line, f"no command has the flag --{flag[1]}."


# ---------------------------------------------------------------------------------- Python


def _of_python(snippet: Snippet, own: set[str]) -> Iterator[tuple[int, str]]:
    """Imports, names, arguments and settings in a block of Python."""
    try:
        tree = ast.parse(snippet.text)
    except SyntaxError as error:
        yield (
            snippet.line + (error.lineno or 1) - 1,
            f"a block of Python that does not parse: {error.msg}.",
        )
        return
    roots = {"pj": "planil_jax"}
    roots |= {name: f"planil_jax.{name}" for name in _modules_of_package()}
    for node in ast.walk(tree):
        line = snippet.line + getattr(node, "lineno", 1) - 1
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith(
            "planil_jax"
        ):
            for name in node.names:
                roots[name.asname or name.name] = f"{node.module}.{name.name}"
                if told := _missing(f"{node.module}.{name.name}"):
                    yield line, told
        elif isinstance(node, ast.Attribute):
            root, _, rest = ast.unparse(node).partition(".")
            if root == "run" and rest.isidentifier() and not hasattr(pj.Run, rest):
                yield line, f"planil_jax.Run has no {rest}."
            if root in roots and re.fullmatch(r"[\w.]+", rest):
                if told := _missing(f"{roots[root]}.{rest}"):
                    yield line, told
        elif isinstance(node, ast.Call):
            yield from ((line, told) for told in _of_call(node, roots, own))
        elif isinstance(node, ast.Dict):
            for key in node.keys:
                text = key.value if isinstance(key, ast.Constant) else None
                if isinstance(text, str) and re.fullmatch(r"[a-z_]+(\.[a-z_]+)+", text):
                    if text not in _all_settings():
                        yield (
                            snippet.line + key.lineno - 1,
                            f"no method has the setting {text}.",
                        )


def _of_call(call: ast.Call, roots: dict[str, str], own: set[str]) -> Iterator[str]:
    """Arguments of a call of the package's functions."""
    written = ast.unparse(call.func)
    root, _, rest = written.partition(".")
    if root not in roots or not re.fullmatch(r"[\w.]*", rest):
        return
    function = _object(f"{roots[root]}.{rest}".rstrip("."))
    if not callable(function):
        return
    try:
        parameters = inspect.signature(function).parameters
    except (TypeError, ValueError):
        return
    open_ended = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    for keyword in call.keywords:
        if keyword.arg and keyword.arg not in parameters and not open_ended:
            yield f"{written} takes no argument {keyword.arg}."
    if root != "pj":
        return
    given = dict(zip(parameters, call.args, strict=False))
    given |= {keyword.arg: keyword.value for keyword in call.keywords if keyword.arg}
    methods = [given.get("method"), *getattr(given.get("methods"), "elts", ())]
    for method in methods:
        if isinstance(method, ast.Constant) and isinstance(method.value, str):
            if told := _no_method(method.value.partition(":")[0], own):
                yield told
    env = given.get("name" if written == "pj.make_env" else "env")
    if isinstance(env, ast.Constant) and isinstance(env.value, str):
        if told := _no_environment(env.value, own):
            yield told
    settings = given.get("settings")
    for key in settings.keys if isinstance(settings, ast.Dict) and not own else ():
        text = key.value if isinstance(key, ast.Constant) else None
        if written == "pj.train" and isinstance(text, str) and "." not in text:
            if text not in _all_settings():
                yield f"no method has the setting {text}."


def _missing(dotted: str) -> str | None:
    """The sentence about a dotted name that the package lacks; None: it has it."""
    parts = dotted.split(".")
    found: Any = importlib.import_module(parts[0])
    for depth, part in enumerate(parts[1:], 1):
        parent = ".".join(parts[:depth])
        if isinstance(found, types.ModuleType):
            found = _member(found, part)
        elif inspect.isclass(found):
            if part in getattr(found, "__dataclass_fields__", {}):
                return None
            found = getattr(found, part, _ABSENT)
        else:
            return None  # of what a function returns nothing is known
        if found is _ABSENT:
            return f"{parent} has no {part}."
    return None


_ABSENT = object()


def _member(module: types.ModuleType, name: str) -> Any:
    if hasattr(module, name):
        return getattr(module, name)
    try:
        return importlib.import_module(f"{module.__name__}.{name}")
    except ModuleNotFoundError:
        return _ABSENT


def _object(dotted: str) -> Any:
    if _missing(dotted):
        return None
    found: Any = importlib.import_module("planil_jax")
    for part in dotted.split(".")[1:]:
        if isinstance(found, types.ModuleType):
            found = _member(found, part)
        elif inspect.isclass(found):
            found = getattr(found, part, None)
        else:
            return None
    return found


def _modules_of_package() -> list[str]:
    return [name for name in pj.__all__ if isinstance(getattr(pj, name), types.ModuleType)]


# -------------------------------------------------------------------------------- commands


def _commands(snippet: Snippet) -> Iterator[tuple[int, list[str]]]:
    """The commands of a snippet, each with the line where it begins."""
    until = ""  # of a here-document
    begun, begins = "", 0
    for number, line in enumerate(snippet.text.splitlines()):
        if until:
            until = "" if line.strip() == until else until
            continue
        if here := re.search(r"<<-?\s*['\"]?(\w+)", line):
            until = here[1]
            continue
        begins = begins if begun else snippet.line + number
        begun += " " + line.strip().removesuffix("\\")
        if line.rstrip().endswith("\\"):
            continue
        for command in re.split(r"\s(?:\||&&|;|&)(?:\s|$)", begun):
            yield begins, _words(command)
        begun = ""


def _words(command: str) -> list[str]:
    try:
        words = shlex.split(command, comments=True)
    except ValueError:
        words = command.split()
    while words and (
        re.match(r"\w+=", words[0]) or words[0] in ("nohup", "!", "time", "$")
    ):
        words.pop(0)
    return words


def _of_command(words: list[str], own: set[str]) -> Iterator[str]:
    """What is wrong with the words of a command."""
    if not words:
        return
    program, *rest = words
    if program == "make":
        targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
        for target in rest[:1]:
            if re.fullmatch(r"[a-z-]+", target) and target not in targets:
                yield f"the Makefile has no target {target}."
        return
    if program.endswith("python") and rest[:1] == ["-m"] and len(rest) > 1:
        module, rest = rest[1], rest[2:]
        if module.partition(".")[0] not in FOLDERS:
            return
        if not (ROOT / f"{module.replace('.', '/')}.py").exists():
            yield f"there is no module {module}."
            return
        folder, _, name = module.partition(".")
        written = f"python -m {module}"
        if folder == "experiments":
            known = _flags(name)
        else:
            known = _flags_in(ROOT / f"{module.replace('.', '/')}.py") | _flags_of_app()
    elif program == "planil" and rest and re.match(r"[a-z]", rest[0]):
        name, *rest = rest
        if name not in planil.COMMANDS:
            yield f"there is no command planil {name}.{did_you_mean(name, planil.COMMANDS)}"
            return
        written, known = f"planil {name}", _flags(name)
    else:
        return
    yield from _of_arguments(written, rest, known, own)


def _of_arguments(
    written: str, rest: list[str], known: set[str], own: set[str]
) -> Iterator[str]:
    given: dict[str, str] = {}
    changed: list[str] = []
    for word, following in itertools.pairwise([*rest, ""]):
        if not (match := re.match(r"--(\w+)(\.[\w.]+)?(?:=(.*))?$", word, re.DOTALL)):
            continue
        name, field, value = match[1], match[2], match[3]
        value = following if value is None else value
        if name not in known:
            yield f"{written} has no flag --{name}."
        elif name == "set":
            changed.append(value.partition("=")[0])
        elif name == "sweep":
            changed.append(value.partition("=")[0])
        elif field and "config" not in given:
            changed.append(field[1:])
        given[name] = value
    method, env = given.get("method", ""), given.get("env", "")
    if _PLACEHOLDER.search(method + env):
        return
    if method and (told := _no_method(method, own, env)):
        yield told
        return
    if env and (told := _no_environment(env, own)):
        yield told
    for path in filter(None, changed):
        if _PLACEHOLDER.search(path):
            continue
        if method and method not in own:
            if path not in _settings(method.partition("/")[0]):
                yield f"{method} has no setting {path}."
        elif path not in _all_settings() and not own:
            yield f"no method has the setting {path}."


def _flags(command: str) -> set[str]:
    """The flags of a command of planil, read from its source."""
    folder = ROOT / "planil_jax" / "cli"
    found = _flags_in(folder / f"{command}.py") | _flags_of_app()
    source = (folder / f"{command}.py").read_text()
    for module in re.findall(r"(\w+)\.define_flags\(\)", source):
        found |= _flags_in(folder / f"{module}.py")
    return found


def _flags_of_app() -> set[str]:
    return _flags_in(ROOT / "planil_jax" / "cli" / "app.py") | {"help"}


@functools.cache
def _flags_in(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            kind, first = node.func.attr, node.args[0] if node.args else None
            if kind.startswith("DEFINE_") and isinstance(first, ast.Constant):
                found |= {first.value}
                if kind == "DEFINE_bool":
                    found |= {f"no{first.value}"}
    return found


@functools.cache
def _all_flags() -> set[str]:
    files = [*(ROOT / "planil_jax" / "cli").glob("*.py")]
    files += [*(ROOT / "benchmarks").glob("*.py"), *(ROOT / "experiments").glob("*.py")]
    return {"help"}.union(*map(_flags_in, files))


# ------------------------------------------------------------ methods, environments, fields


def _no_method(name: str, own: set[str], env: str = "") -> str | None:
    if name.isupper():
        return None
    plain, _, _ = name.partition("/")
    if plain not in (*registry.methods(), *own, "scripted"):
        return f"there is no method {name}."
    if name != plain and env and name not in recipes.methods(env):
        return f"there is no recipe {name} in {env}."
    return None


def _no_environment(name: str, own: set[str]) -> str | None:
    stem = name.partition(":")[0]
    known = {*registry.environments(), *own}
    families = [known_name[:-1] for known_name in known if known_name.endswith("/*")]
    if stem.isupper() or stem in known or stem.startswith(tuple(families)):
        return None
    return f"there is no environment {stem}."


@functools.cache
def _settings(method: str) -> frozenset[str]:
    """Paths of the settings of a method, its groups, and the short form of its own."""
    found = set()
    for field in config.describe(experiment.for_method(method)):
        parts = field.path.split(".")
        found |= {".".join(parts[: depth + 1]) for depth in range(len(parts))}
    return frozenset(found | {path.removeprefix("agent.") for path in found})


@functools.cache
def _all_settings() -> frozenset[str]:
    return frozenset().union(*(_settings(name) for name in registry.methods()))
