"""MkDocs hooks: pages listed by folder; pages and files from outside docs/."""

import os
import re
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[2]
PAGES = {"CONTRIBUTING.md": "contributing.md", "CHANGELOG.md": "changelog.md"}
FILES = "files"  # where other files from outside docs/ lie in the site
_LINK = re.compile(r"(?<=\]\()(\.\.?/[^)#\s]+|[^):#\s]+)(?=[)#\s])")
_NOT_RUN = re.compile(r'^( *```\w+) notest(="[^"]*")?', re.MULTILINE)


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Replaces "folder/*" in the nav by the pages of the folder that it does not name.

    They come by name, the index first.
    """
    config.nav = _expanded(config.nav, Path(config.docs_dir), _named(config.nav))
    return config


def _named(nav: Any) -> set[str]:
    """Every page that the nav names."""
    if isinstance(nav, str):
        return {nav}
    return set().union(*map(_named, nav.values() if isinstance(nav, dict) else nav))


def _expanded(nav: list, docs: Path, named: set[str]) -> list:
    expanded: list = []
    for item in nav:
        if isinstance(item, dict):
            ((title, value),) = item.items()
            if isinstance(value, list):
                value = _expanded(value, docs, named)
            if value:
                expanded.append({title: value})
        elif item.endswith("/*"):
            folder = item.removesuffix("/*")
            pages = sorted(
                (docs / folder).glob("*.md"), key=lambda page: (page.stem != "index", page)
            )
            paths = [path.relative_to(docs).as_posix() for path in pages]
            expanded += [path for path in paths if path not in named]
        else:
            expanded.append(item)
    return expanded


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds the pages that lie outside docs/."""
    for source, uri in PAGES.items():
        files.append(File.generated(config, uri, abs_src_path=str(ROOT / source)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Makes links to files of the repository links within the site.

    So `../CONTRIBUTING.md` is right both in a checkout and in the site, where a copy of
    the file lies. And takes the mark of a block that the tests do not run away.
    """
    here = Path(page.file.abs_src_path).parent

    def target(match: re.Match) -> str:
        path = Path(os.path.normpath(here / match[0]))
        if not path.is_relative_to(ROOT) or not path.is_file():  # MkDocs says so
            return match[0]
        uri = _in_site(path, config, files)
        return os.path.relpath(uri, Path(page.file.src_uri).parent)

    return _LINK.sub(target, _NOT_RUN.sub(r"\1", markdown))


def _in_site(path: Path, config: MkDocsConfig, files: Files) -> str:
    """Where a file of the repository lies in the site; it is copied if need be."""
    if path.is_relative_to(config.docs_dir):
        return path.relative_to(config.docs_dir).as_posix()
    name = path.relative_to(ROOT).as_posix()
    if name in PAGES:
        return PAGES[name]
    plain = name + ".txt" if path.suffix == ".md" else name  # no page of the site
    if files.get_file_from_path(f"{FILES}/{plain}") is None:
        files.append(File.generated(config, f"{FILES}/{plain}", abs_src_path=str(path)))
    return f"{FILES}/{plain}"
