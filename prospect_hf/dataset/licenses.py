"""The licence of each source's annotations, which the rows derive from."""

from __future__ import annotations

# SPDX identifiers; those of the sources' own annotation releases. ProAssist's dialogues are Apache-2.0 themselves and
# embed these annotations, so the source's terms apply to the rows too.
LICENSES = {
    "assembly101": "CC-BY-NC-4.0",
    "ego4d": "MIT",
    "egoexolearn": "MIT",
    "epickitchens": "CC-BY-NC-4.0",
    "holoassist": "CDLA-Permissive-2.0",
    "wtag": "MIT",
}
