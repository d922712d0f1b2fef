"""What may be published of a run's settings: no secret, and no absolute path of the machine.

Every file that training and evaluation write about themselves is made from what ``public`` returns.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path, PurePath, PureWindowsPath
from typing import Any

# A key that has one of these words has a secret for its value; tokens are one behind TOKENS_OF alone.
SECRET_WORDS = {"token", "key", "keys", "password", "passwords", "passwd", "passphrase", "pwd", "secret", "secrets"}
SECRET_WORDS |= {"credential", "credentials", "auth", "authorization", "bearer", "cookie", "cookies"}
SECRET_WORDS |= {"apikey", "hubtoken", "authtoken", "accesstoken", "accesskey", "secretkey", "privatekey"}
TOKENS_OF = {"hub", "hf", "api", "auth", "access", "refresh", "bearer"}
# Secrets that tell themselves: of the Hub, of GitHub, of language-model services, of AWS and of Slack.
SECRET_VALUE = re.compile(
    r"(?<![A-Za-z0-9])(hf_[A-Za-z0-9]{6,}|gh[pousr]_[A-Za-z0-9]{16,}|github_pat_\w{16,}|sk-[\w-]{16,}"
    r"|AKIA[A-Z0-9]{12,}|xox[abpr]-[\w-]{8,})"
)
URL_USER = re.compile(r"(?<=://)[^/\s?#]*@")
# In a text of several settings or in the query of an address: token=abc, api_key: abc, "Bearer abc".
SECRET_ASSIGNED = re.compile(
    r"""(?i)\b([\w-]*(?:token|key|pass|pwd|secret|credential|auth|cookie)[\w-]*)(["']?\s*[=:]\s*["']?)([^\s&,;"'}]+)"""
)
BEARER = re.compile(r"(?i)\b(bearer|basic)\s+[\w.~+/-]+=*")
PATH_IN_TEXT = re.compile(
    r"""(?<![\w.~:/\\-])((?:file://)?/(?:[^\s/,;:"']+/)+[^\s/,;:"')\]}]*|[A-Za-z]:\\[^\s,;"']+)"""
)
HOME = re.compile(r"~\w*[/\\]")
REMOVED = "***"
ELSEWHERE = ".../"


def is_secret(name: str) -> bool:
    """Whether a key of this name holds a secret: ``hub_token``, ``apiKey``; not ``max_tokens``."""
    words = re.findall(r"[a-z0-9]+", re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower())
    return (
        words == ["tokens"]
        or any(word in SECRET_WORDS for word in words)
        or any(after == "tokens" and word in TOKENS_OF for word, after in pairwise(words))
    )


def public(value: Any, folder: Path) -> Any:
    """``value`` without secrets and without absolute paths.

    Keys of secrets are left out, whatever is nested in them; numbers stay (``max_tokens``, ``token_accuracy``). An
    absolute path is written as ``public_path`` writes it, other texts lose the passwords in them.

    Args:
        value: mappings, lists and plain values.
        folder: the folder that will hold the file, for paths.
    """
    if isinstance(value, Mapping):
        return {
            public(name, folder): public(part, folder)
            for name, part in value.items()
            if not (is_secret(str(name)) and not (part is None or isinstance(part, (bool, int, float))))
        }
    if isinstance(value, (list, tuple)):
        return [public(part, folder) for part in value]
    if isinstance(value, PurePath):
        value = str(value)
    return _public_text(value, folder) if isinstance(value, str) else value


def public_path(path: str | Path, folder: Path) -> str:
    """A path relative to ``folder``; ``.../NAME`` where the two have no folder in common but the root."""
    wanted, base = os.path.abspath(path), os.path.abspath(folder)
    if len(Path(os.path.commonpath([wanted, base])).parts) < 2:
        return ELSEWHERE + Path(wanted).name
    return Path(os.path.relpath(wanted, base)).as_posix()


def _public_text(text: str, folder: Path) -> str:
    text = URL_USER.sub("", text)
    text = BEARER.sub(lambda found: f"{found[1]} {REMOVED}", text)
    text = SECRET_ASSIGNED.sub(lambda found: found[1] + found[2] + REMOVED if is_secret(found[1]) else found[0], text)
    text = SECRET_VALUE.sub(REMOVED, text)
    if os.path.isabs(text):
        return public_path(text, folder)
    if PureWindowsPath(text).is_absolute() or HOME.match(text):
        return ELSEWHERE + PureWindowsPath(text).name
    return PATH_IN_TEXT.sub(lambda found: ELSEWHERE + PureWindowsPath(found[0]).name, text)
