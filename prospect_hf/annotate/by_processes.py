"""Labels by an aligner that needs no server, in one process or several. The result does not depend on their number."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, wait
from concurrent.futures.process import BrokenProcessPool
from itertools import islice

from prospect_hf.align.alignment import Aligner, Alignment
from prospect_hf.align.named import named_aligner
from prospect_hf.annotate.corpus import Video
from prospect_hf.errors import DataError
from prospect_hf.workers import worker_pool

CHUNK = 4  # videos that a worker is given at a time
AHEAD = 2  # chunks that wait for each worker


def alignments(
    name: str, encoder: str, videos: Iterable[Video], processes: int
) -> Iterator[tuple[Video, Alignment | DataError]]:
    """The alignment of each video, or why it has none, as they are made; few videos are held at a time.

    Args:
        name, encoder: as in ``named_aligner``.

    Raises:
        UsageError: there is no such encoder.
        DataError: a worker process died.
    """
    if processes == 1:
        align = named_aligner(name, encoder).align
        yield from ((video, _aligned(align, video)) for video in videos)
        return
    with worker_pool(processes, _begin, name, encoder, processes) as pool:
        waiting: dict[Future[list[Alignment | DataError]], list[Video]] = {}
        rest = iter(videos)
        try:
            while True:
                while len(waiting) < AHEAD * processes and (chunk := list(islice(rest, CHUNK))):
                    waiting[pool.submit(_work, chunk)] = chunk
                if not waiting:
                    return
                for future in wait(waiting, return_when=FIRST_COMPLETED).done:
                    yield from zip(waiting.pop(future), future.result(), strict=True)
        except BrokenProcessPool:
            raise DataError(
                "a worker process was killed, perhaps for lack of memory; run again with a smaller labels.processes "
                "(the videos that are labelled are kept)."
            ) from None


_aligner: list[Aligner] = []  # of this worker process


def _begin(name: str, encoder: str, processes: int) -> None:
    if name == "semantic":
        import torch  # the words need none of it

        torch.set_num_threads(max(torch.get_num_threads() // processes, 1))
    _aligner.append(named_aligner(name, encoder).align)


def _work(videos: list[Video]) -> list[Alignment | DataError]:
    return [_aligned(_aligner[0], video) for video in videos]


def _aligned(align: Aligner, video: Video) -> Alignment | DataError:
    try:
        return align(video.task)
    except DataError as error:
        return error
