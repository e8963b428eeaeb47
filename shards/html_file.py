"""One self-contained HTML file: markup, style and script from package data, and what they show as inert JSON.

A page's own files stand beside `common.css` and `common.js`, which every page has. The content security policy allows
the page's own script and style and no network, and `<` never stands in the data, so that no phrase can break out of it.
"""

import base64
import hashlib
import html
import re
import shutil
import tempfile
from collections.abc import Callable, Iterable
from importlib import resources
from typing import Literal

import msgspec

from manifests import files

PageKind = Literal["page", "gallery", "failures"]  # which markup, style and script
_IN_MEMORY_BYTES = 64 << 20  # blocks beyond this wait in a temporary file


def write_html(
    uri: str,
    kind: PageKind,
    *,
    title: str,
    blocks: Iterable[bytes],
    index: Callable[[], object],
    package: str = "shards",
) -> int:
    """How many bytes the page has that now stands at `uri`, whole or not at all; its own files lie in `package`.

    `index` is asked once all blocks were made; in the file it stands before them, so that a browser can show the page
    while it still reads the blocks.

    Raises:
        StorageError: it cannot be written.
    """
    with tempfile.SpooledTemporaryFile(max_size=_IN_MEMORY_BYTES) as spooled, files.commit(uri) as file:
        for block in blocks:
            spooled.write(block)
        head, _, tail = _page(kind, package, title, data_block("index", index())).partition("{{blocks}}")
        file.write(head.encode())
        spooled.seek(0)
        shutil.copyfileobj(spooled, file, 1 << 20)
        file.write(tail.encode())
        return file.tell()


def data_block(name: str, content: object) -> bytes:
    """JSON that the browser keeps as text; each `<` of the data is escaped, so that nothing ends the block."""
    encoded = msgspec.json.encode(content).replace(b"<", b"\\u003c")
    return b'<script type="application/json" id="%s">%s</script>\n' % (name.encode(), encoded)


def _page(kind: PageKind, package: str, title: str, index: bytes) -> str:
    """The page but for `{{blocks}}`."""
    style = packaged("shards", "common.css") + packaged(package, f"{kind}.css")
    script = packaged("shards", "common.js") + packaged(package, f"{kind}.js")
    own = f"style-src {policy_digest(style)}; script-src {policy_digest(script)}"
    parts = {
        "title": html.escape(title),
        "policy": f"default-src 'none'; img-src data:; {own}",
        "style": style,
        "script": script,
        "index": index.decode(),
        "blocks": "{{blocks}}",
    }
    return re.sub(r"\{\{(\w+)\}\}", lambda found: parts[found[1]], packaged(package, f"{kind}.html"))


def packaged(package: str, name: str) -> str:
    """The text of a package's own file."""
    return resources.files(package).joinpath(name).read_text(encoding="utf-8")


def policy_digest(text: str) -> str:
    """What a content security policy calls the inline block that holds `text`."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode('ascii')}'"
