"""Pages of one file: data and script in a template, nothing fetched, no text of the data that becomes markup."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from prospect_hf.files import write_text

# Only a script with this hash runs.
DATA, HASH = "__PAGE_DATA__", "__SCRIPT_HASH__"
_BEGIN, _END = "<script>", "</script>"


def write_html(path: Path, template: str, data: Mapping[str, Any]) -> None:
    """Write ``template`` with ``data`` as JSON at ``__PAGE_DATA__`` and its script's hash, beside and then renamed.

    Raises:
        ValueError: a number in ``data`` is not finite.
    """
    begin = template.index(_BEGIN) + len(_BEGIN)
    script = template[begin : template.index(_END, begin)]
    digest = base64.b64encode(hashlib.sha256(script.encode("utf-8")).digest()).decode("ascii")
    head, tail = template.replace(HASH, f"sha256-{digest}").split(DATA)
    write_text(path, head + _safe_json(data) + tail)


def _safe_json(data: Mapping[str, Any]) -> str:
    """JSON that no HTML parser sees an end of: ASCII only (so U+2028/9 are escapes), without <, > and &."""
    encoded = json.dumps(data, allow_nan=False, separators=(",", ":"))
    return encoded.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")
