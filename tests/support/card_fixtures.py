"""Hostile texts for cards, and what a card is made of whatever texts are in it."""

from __future__ import annotations

import re

HOSTILE = [
    *("a\n---\nlicense: mit", "yes", "1.0", "null", "~", "2026-11-27", "[a, b]", "{a: b}", "a: b", "a #b", "'", '"'),
    *("- a", "? a", "!!python/object:os.system x", "&anchor", "*alias", "%TAG", "@a", "`a`", "```", "~~~", "a|b", "|"),
    *("{{ 7 * 7 }}", "{% raw %}", "{{ self.__init__.__globals__ }}", "{# x #}", "</details>", "<script>x</script>"),
    *("<img src=x onerror=alert(1)>", "[a](javascript:x)", "![a](b)", "\r", "\r\n---\r\n", "\u2028", "\x85", "\x00"),
    *("\ud800", "\u202egpj.exe", "a\\", "a\\|b", "# a", "1. a", "=== ", "---", "...", " a ", "\t", "𝒜🛠️", "<!--"),
    *("| a | b |\n|---|---|\n| c | d |", "&lt;b&gt;", "&#124;", "**b**", "_b_", "http://x|y", "\ufeff", "\ufffe"),
]  # fmt: skip


def shape_of(card: str) -> list[str]:
    """What a card is made of: its headings, rules, rows with their number of cells, fences, tags and other lines."""
    kinds = []
    in_code = False
    for line in card.split("\n"):
        fence = line.startswith(("```", "~~~"))
        if in_code and not fence:
            continue  # lines of code may be any
        in_code ^= fence
        cells = len(re.findall(r"(?<!\\)\|", line))
        tags = re.findall(r"<[/!a-z]\w*", line)
        links = len(re.findall(r"(?<!\\)\]\(", line)) + len(re.findall(r"`", line))
        kinds.append(f"{line[:2] if line[:1] in '#-=`~+>' else 'text'} {cells} {tags} {links} {not line}")
    return kinds
