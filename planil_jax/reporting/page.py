"""One HTML file that contains everything: text, tables, figures and a player.

Functions take plain text, which they escape, and return HTML; `assemble` joins the parts.
"""

import base64
import html
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from planil_jax.base import UserError
from planil_jax.training import files

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_ASSETS = Path(__file__).parent / "assets"
_PIXELS = 98.5  # of the page, for an inch of a figure
_PHONE = "(max-width: 760px)"  # as in page.css


def assemble(title: str, parts: Iterable[str]) -> str:
    """A whole page from parts that are HTML."""
    return "\n".join(
        [
            '<!doctype html><html lang="en"><head><meta charset="utf-8">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f"<title>{html.escape(title)}</title>",
            f"<style>{_asset('page.css')}</style></head><body><main>",
            *parts,
            "</main></body></html>\n",
        ]
    )


def inline(written: str) -> str:
    """A page inside a notebook: a frame of its own, which a reader can drag taller."""
    style = "width:100%;height:800px;border:1px solid #e3e7ec;resize:vertical"
    source = html.escape(written, quote=True)
    return f'<iframe title="report" style="{style}" srcdoc="{source}"></iframe>'


def save(path: Path, text: str) -> None:
    """Writes a file completely or not at all.

    Raises:
      UserError: the disk is full, or not writable.
    """
    try:
        files.write(path, text)
    except OSError as error:
        raise UserError(f"{path} could not be written: {error.strerror}.") from error


# ------------------------------------------------------------------------------------ text


def header(title: str, facts: Sequence[str], how: str | None) -> str:
    """The top of the page: facts about the run, and the command that trains it again."""
    items = "".join(f"<li>{html.escape(fact)}</li>" for fact in facts)
    return (
        f"<header><h1>{html.escape(title)}</h1><ul class='facts'>{items}</ul>"
        f"{command(how) if how else ''}</header>"
    )


def section(title: str, *parts: str) -> str:
    """A section of parts that are HTML."""
    return f"<section><h2>{html.escape(title)}</h2>{''.join(parts)}</section>"


def text(words: str) -> str:
    """A paragraph; text between `backticks` is code."""
    pieces = html.escape(words).split("`")
    marked = [f"<code>{piece}</code>" if i % 2 else piece for i, piece in enumerate(pieces)]
    return f"<p>{''.join(marked)}</p>"


def command(words: str) -> str:
    """A command of one or more lines, to be copied; its lines are not broken."""
    return f"<pre tabindex='0'><code>{html.escape(words)}</code></pre>"


def tiles(numbers: Iterable[tuple[str, str, str]]) -> str:
    """The headline, of (number, name, details) each."""
    divisions = (
        f"<div><strong>{html.escape(number)}</strong><span>{html.escape(what)}</span>"
        f"<small>{html.escape(more)}</small></div>"
        for number, what, more in numbers
    )
    return f"<div class='tiles'>{''.join(divisions)}</div>"


def table(summary: str, rows: Iterable[tuple[str, str, bool]]) -> str:
    """A table that opens on a click: (name, value, whether it is highlighted) each."""
    lines = (
        f"<tr{' class=changed' if highlighted else ''}><th>{html.escape(name)}</th>"
        f"<td>{html.escape(value)}</td></tr>"
        for name, value, highlighted in rows
    )
    return (
        f"<details><summary>{html.escape(summary)}</summary>"
        f"<table>{''.join(lines)}</table></details>"
    )


# --------------------------------------------------------------------------------- figures


def figure(drawn: "Figure", caption: str, alt: str, narrow: "Figure | None" = None) -> str:
    """A figure as an SVG image, with its caption.

    Args:
      narrow: the same figure as a phone shows it; None: as it is.
    """
    image = f"<img {_svg(drawn, 'src')} alt='{html.escape(alt)}'>"
    if narrow is not None:
        source = f"<source media='{_PHONE}' {_svg(narrow, 'srcset')}>"
        image = f"<picture>{source}{image}</picture>"
    return f"<figure>{image}<figcaption>{html.escape(caption)}</figcaption></figure>"


def _svg(drawn: "Figure", attribute: str) -> str:
    """The attributes of an image: where it comes from, and its size."""
    import matplotlib  # here: a page without figures needs none

    file = io.StringIO()
    with matplotlib.rc_context({"svg.hashsalt": "planil_jax"}):
        drawn.savefig(file, format="svg", dpi=160, metadata={"Date": None})
    width, height = (round(_PIXELS * inches) for inches in drawn.get_size_inches())
    source = _uri("image/svg+xml", file.getvalue().encode())
    return f"{attribute}='{source}' width='{width}' height='{height}'"


def picture(pixels: np.ndarray) -> str:
    """Pixels `[G, G, 4]` in [0, 1] as the data URI of a PNG."""
    from matplotlib import image

    file = io.BytesIO()
    image.imsave(file, pixels, format="png")
    return _uri("image/png", file.getvalue())


def player(animation: Mapping[str, object], caption: str) -> str:
    """The animation of `views.animation`, with its controls."""
    # Inside a script element only "<" could end it early.
    data = json.dumps(animation, separators=(",", ":"), allow_nan=False)
    return _asset("player.html").format(
        data=data.replace("<", "\\u003c"),
        caption=html.escape(caption),
        script=_asset("player.js"),
    )


def _asset(name: str) -> str:
    return (_ASSETS / name).read_text(encoding="utf-8")


def _uri(kind: str, data: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"
