"""``prospect compare-dst A B``: how far do two sets of state labels agree, and in which videos do they not?"""

from __future__ import annotations

from pathlib import Path

from prospect_hf.annotate.comparison.arguments import CompareDstArguments
from prospect_hf.annotate.comparison.compare import compare_sets
from prospect_hf.annotate.comparison.label_sets import read_corpus, read_label_set
from prospect_hf.annotate.comparison.page import text_report, write_csv, write_figures, write_page
from prospect_hf.errors import UsageError
from prospect_hf.terminal import say


def run(compare_dst: CompareDstArguments) -> int:
    """Compare the sets, print the figures, and write the page, the figures and the table of the videos.

    The exit code is 1 where a video is in one set alone, or its labels cannot be used.

    Raises:
        UsageError: a file or folder is not there or holds no labels, both sets are one, or there is no video of a
            given id.
        DataError: a file is damaged, or no video can be compared.
    """
    a, b = read_label_set(str(compare_dst.a)), read_label_set(str(compare_dst.b))
    if a.key == b.key and [path.resolve() for path in a.files] == [path.resolve() for path in b.files]:
        raise UsageError(f"A and B are both {a.name}; give two label sets, or PATH#KEY for labels at another key.")
    corpus = None if compare_dst.root is None else read_corpus(Path(compare_dst.root))
    found = compare_sets(a, b, corpus, compare_dst.state_rule, progress=True)
    unknown = set(compare_dst.videos) - {video.uid for video in found.videos}
    if unknown:
        raise UsageError(f"compare_dst.videos: {min(unknown)} is no video that is compared.")
    output = Path(compare_dst.output_dir)
    page, figures, videos = output / "comparison.html", output / "agreement.json", output / "agreement.csv"
    write_figures(figures, found)
    write_csv(videos, found)
    write_page(page, found, compare_dst.worst, compare_dst.best, compare_dst.videos)
    say(text_report(found))
    say(f"\n{page}, {figures}, {videos}")
    return 1 if found.left else 0
