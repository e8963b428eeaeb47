"""The page of the proof: what every arm read on pictures that it never saw, with intervals.

    python benchmarks/proof_page.py DIR [--page FILE.md] [--figures FOLDER] [--html FILE.html]

What the page says above its tables stays as people wrote it. A figure is the mean over the folds that are finished; its
interval is Student's t over three folds or more, or where there is one fold, that of its own bootstrap over pictures. A
difference between two arms is taken fold by fold, and where a metric is a sum over pictures, also drawn from the
pictures of all folds together.
"""

import argparse
import base64
import re
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.proof_figures import draw, draw_sweeps
from benchmarks.proof_learnt import draw_learnt, learnt, tell
from benchmarks.proof_sweep_tables import sweep_tables
from benchmarks.proof_tables import read_all, tables

BELOW = "<!-- written by benchmarks/proof_page.py from here on -->"
STYLE = """body { font: 16px/1.5 system-ui, sans-serif; max-width: 72rem; margin: 2rem auto; padding: 0 1rem }
table { border-collapse: collapse; display: block; overflow-x: auto; font-size: 0.85rem }
td, th { border: 1px solid #8888; padding: 0.2rem 0.5rem; text-align: left }
td { white-space: nowrap }
img { max-width: 100%; background: white }
pre { overflow-x: auto }
:root { color-scheme: light dark }"""


def to_html(text: str, folder: Path) -> str:
    """A page of Markdown as one HTML file, its pictures inside; paths of pictures start at `folder`."""
    from markdown_it import MarkdownIt

    def inside(match: re.Match[str]) -> str:
        picture = folder / match[1]
        if not picture.is_file():
            raise SystemExit(f"error: {picture}: shown on the page, and not there; draw it first, as the page says")
        kind = "jpeg" if match[2] == "jpg" else match[2]
        return f'src="data:image/{kind};base64,{base64.b64encode(picture.read_bytes()).decode()}"'

    body = MarkdownIt("commonmark", {"html": False}).enable("table").render(text.replace(BELOW, ""))
    body = re.sub(r'src="([^":]+\.(png|jpg))"', inside, body)
    body = re.sub(r"<h2>(.*?)</h2>", lambda match: f'<h2 id="{_anchor(match[1])}">{match[1]}</h2>', body)
    title = next((line.removeprefix("# ") for line in text.splitlines() if line.startswith("# ")), "The proof")
    head = f'<meta charset="utf-8"><title>{title}</title><style>{STYLE}</style>'
    return f'<!doctype html>\n<html lang="en"><head>{head}</head>\n<body>\n{body}</body></html>\n'


def _anchor(heading: str) -> str:
    """What a link to a heading is called, as on GitHub."""
    return re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-")


def main(argv: Sequence[str] | None = None) -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, metavar="DIR", help="what benchmarks/proof.py wrote")
    parser.add_argument("--page", type=Path, help="where the tables go [DIR/results.md]")
    parser.add_argument("--figures", type=Path, help="where the plots go [DIR]")
    parser.add_argument("--html", type=Path, help="the page as one file [DIR/results.html]")
    options = parser.parse_args(argv)
    found = read_all(options.folder)
    if not found:
        raise SystemExit(f"error: {options.folder}: no evaluation; run benchmarks/proof.py first")
    written: Path = options.page or options.folder / "results.md"
    html: Path = options.html or options.folder / "results.html"
    figures: Path = options.figures or options.folder
    drawn = [*draw(found, figures), *draw_sweeps(found, figures)]
    parts = [tables(found), sweep_tables(found)]
    if len(pairs := learnt(options.folder, found)) > 1:
        drawn.append(draw_learnt(pairs, figures))
        parts.append(tell(pairs))
    head = written.read_text(encoding="utf-8").partition(BELOW)[0] if written.exists() else ""
    text = head + BELOW + "\n\n" + "\n".join(parts)
    written.write_text(text, encoding="utf-8")
    html.write_text(to_html(text, written.parent), encoding="utf-8")
    print(f"wrote {written}, {html} and {', '.join(map(str, drawn))}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
