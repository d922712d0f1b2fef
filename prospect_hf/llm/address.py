"""Addresses of language-model servers: which are accepted, and which are this machine's own."""

from __future__ import annotations

import re
from ipaddress import ip_address

from prospect_hf.errors import UsageError


def check_address(url: str, name: str) -> str:
    """The host of a server's address.

    Raises:
        UsageError: no address of a server, or one with credentials in it; the message does not repeat it.
    """
    plain = re.fullmatch(r"https?://(\[[0-9a-f:.]+\]|[^\s/?#@:\[\]]+)(:\d{1,5})?(/[^\s?#]*)?", url, re.IGNORECASE)
    if plain is None:
        raise UsageError(
            f"{name} must be http(s)://HOST[:PORT]/PATH, without user, password or anything after a ? or #; the key "
            f"belongs in the environment variable that llm.api_key_env names."
        )
    return plain[1].strip("[]").lower()


def is_loopback(host: str) -> bool:
    """Whether a host is this machine itself."""
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False
