"""Pieces of an HTML page that needs nothing but itself."""

from collections.abc import Sequence
from html import escape

CSS = """
:root { color-scheme: light dark; --ink: #1c2330; --paper: #fff; --faint: #5d6573; --line: #d5d9e0; --wash: #f3f5f8;
  --link: #1d4f91; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e4e7ec; --paper: #15181e; --faint: #9aa3b2; --line: #363c48; --wash: #1f242d; --link: #8ab8ff; }
}
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1.5rem 1rem 4rem; max-width: 75rem; background: var(--paper); color: var(--ink);
  font: 1rem/1.55 system-ui, sans-serif; }
h1 { font-size: 1.7rem; line-height: 1.2; }
h2 { font-size: 1.25rem; margin: 3rem 0 .75rem; padding-top: 1rem; border-top: 1px solid var(--line); }
p, figcaption, nav { max-width: 52rem; }
img.small { min-width: 0; }
a { color: var(--link); }
figure { margin: 0; }
img { display: block; max-width: 100%; min-width: 40rem; height: auto; margin: 0 auto 1rem 0; padding: .5rem;
  border-radius: .4rem;
  background: #fff; border: 1px solid var(--line); }
code { font: .875em ui-monospace, monospace; padding: .1em .3em; border-radius: .25em; background: var(--wash);
  overflow-wrap: anywhere; }
details { margin: .5rem 0; font-size: .9rem; }
summary { cursor: pointer; color: var(--faint); }
.wide { overflow-x: auto; overflow-y: hidden; }
table { border-collapse: collapse; font-size: .875rem; }
th, td { padding: .3rem .75rem .3rem 0; text-align: left; vertical-align: top; border-bottom: 1px solid var(--line); }
details td { overflow-wrap: anywhere; }
th { font-weight: 600; white-space: nowrap; }
"""

# The page may load nothing at all, and says so itself.
POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"


def page(title: str, body: str) -> str:
    """A whole document; `body` is HTML already."""
    return (
        "<!DOCTYPE html>\n<html lang='en'>\n<head>\n<meta charset='utf-8'>\n"
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">\n'
        "<meta name='viewport' content='width=device-width, initial-scale=1'>\n"
        f"<title>{escape(title)}</title>\n<style>{CSS}</style>\n</head>\n<body>\n{body}\n</body>\n</html>\n"
    )


def table(heading: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Rows of text; the first cell of each names it. `heading`: may be empty."""
    head = "".join(f"<th scope=col>{escape(cell)}</th>" for cell in heading)
    head = f"<thead><tr>{head}</tr></thead>" if heading else ""
    body = "".join(
        f"<tr><th scope=row>{escape(first)}</th>{''.join(f'<td>{escape(cell)}</td>' for cell in rest)}</tr>"
        for first, *rest in rows
    )
    return f"<div class=wide><table>{head}<tbody>{body}</tbody></table></div>"


def details(summary: str, body: str) -> str:
    """Folded text; `body` is HTML already."""
    return f"<details><summary>{escape(summary)}</summary>{body}</details>"
