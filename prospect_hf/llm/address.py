"""Checks the addresses of language-model servers."""

from __future__ import annotations

import re
from ipaddress import ip_address

from prospect_hf.errors import UsageError


def check_address(url: str, name: str) -> str:
    """The host in a server's address; ``name`` is the setting named in the message.

    Raises:
        UsageError: not a server address, or one with credentials; the message does not repeat the address.
    """
    plain = re.fullmatch(r"https?://(\[[0-9a-f:.]+\]|[^\s/?#@:\[\]]+)(:\d{1,5})?(/[^\s?#]*)?", url, re.IGNORECASE)
    if plain is None:
        raise UsageError(
            f"{name} must be http(s)://HOST[:PORT]/PATH, without user, password, ? or #; the key "
            f"belongs in the environment variable that llm.api_key_env names."
        )
    return plain[1].strip("[]").lower()


def is_loopback(host: str) -> bool:
    """Whether ``host`` is the local machine."""
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False
