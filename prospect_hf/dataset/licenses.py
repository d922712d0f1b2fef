"""The licence of each source's annotations, which the rows derive from, and where they come from."""

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
# Of those, the ones that allow no commercial use.
NON_COMMERCIAL = ("CC-BY-NC-4.0",)

# Source -> its name, its paper, and the page that has its annotations and says how to get its videos.
ORIGINS = {
    "assembly101": ("Assembly101", "Sener et al., CVPR 2022", "https://assembly-101.github.io"),
    "ego4d": ("Ego4D Goal-Step", "Song et al., NeurIPS 2023", "https://ego4d-data.org"),
    "egoexolearn": ("EgoExoLearn", "Huang et al., CVPR 2024", "https://github.com/OpenGVLab/EgoExoLearn"),
    "epickitchens": ("EPIC-KITCHENS-100", "Damen et al., IJCV 2022", "https://epic-kitchens.github.io"),
    "holoassist": ("HoloAssist", "Wang et al., ICCV 2023", "https://holoassist.github.io"),
    "wtag": ("WTaG", "Bao et al., Findings of EMNLP 2023", "https://github.com/sled-group/Watch-Talk-and-Guide"),
}
