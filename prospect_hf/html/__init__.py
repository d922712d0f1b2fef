"""Pages of one file: data, styles and script in one template; nothing is fetched and no text of the data is markup.

``session_timeline.js`` beside this file draws the timeline of a session for every page that includes it; its header is
the contract of its data. A template includes a file of this folder where a line of it holds nothing but
``/* include: NAME */`` or ``<!-- include: NAME -->``. Every page begins with ``head.html``, which has the policy of all
pages: no script but their own, pictures that lie in the page itself, and nothing else.
"""

from __future__ import annotations

import base64
import hashlib
import io
import json
import re
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any

from PIL import Image

from prospect_hf.files import write_text

DATA, HASH = "__PAGE_DATA__", "__SCRIPT_HASH__"
_INCLUDE = re.compile(r"^(?:/\*|<!--) include: ([\w.]+) (?:\*/|-->)$", re.MULTILINE)
_BEGIN, _END = "<script>", "</script>"


def write_html(path: Path, template: str, data: Mapping[str, Any]) -> None:
    """Write a page: the template with the files it includes, ``data`` at ``__PAGE_DATA__`` and the script's hash.

    The hash goes to ``__SCRIPT_HASH__``, into the page's policy, so that no other script runs. The file is written
    beside its place, then renamed.

    Args:
        path: the page.
        template: its HTML, with one ``<script>`` without attributes.
        data: anything that JSON can hold.

    Raises:
        FileNotFoundError: the template includes a file that is not in this folder.
        ValueError: a number in ``data`` is not finite.
    """
    page = _INCLUDE.sub(lambda match: _included(match[1]), template)
    begin = page.index(_BEGIN) + len(_BEGIN)
    script = page[begin : page.index(_END, begin)]
    digest = base64.b64encode(hashlib.sha256(script.encode("utf-8")).digest()).decode("ascii")
    head, tail = page.replace(HASH, f"sha256-{digest}").split(DATA)
    write_text(path, head + _safe_json(data) + tail)


def picture_uri(picture: Image.Image, size: tuple[int, int]) -> str:
    """The picture as a JPEG of at most ``size`` (width, height) in pixels, in the address itself (``data:``)."""
    small = picture.convert("RGB")
    small.thumbnail(size)
    buffer = io.BytesIO()
    small.save(buffer, "JPEG", quality=72)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


def _included(name: str) -> str:
    return resources.files(__name__).joinpath(name).read_text(encoding="utf-8").rstrip("\n")


def _safe_json(data: Mapping[str, Any]) -> str:
    """JSON in which no HTML parser finds markup: ASCII only (so U+2028/9 are escapes), without <, > and &."""
    encoded = json.dumps(data, allow_nan=False, separators=(",", ":"))
    return encoded.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")
