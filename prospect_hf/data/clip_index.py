"""The clips of a split as a table of numbers, made once and kept on disk, so that a run starts without packing.

A file has one row per clip of a Parquet shard of frame rows. Its name is a hash of everything that determines it: the
sessions, the tokenizer, the tokens per frame, ``max_seq_len``, and the code that lays out and cuts streams.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import partial
from itertools import accumulate
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

import processing_dst_smolvlm
import prospect_hf
from processing_dst_smolvlm import DSTSmolVLMProcessor
from prospect_hf.code_fingerprint import code_fingerprint
from prospect_hf.data.by_position import ByPosition
from prospect_hf.data.kept_files import KeptFile, make_missing
from prospect_hf.data.packing import Clip, pack_sessions
from prospect_hf.data.session_rows import SessionRows
from prospect_hf.data.session_store import SessionStore

SESSION, BEGIN, END, TOKENS = range(4)
ROOT_CODE = ("processing_dst_smolvlm.py", "tracking_dst_smolvlm.py")
CODE = ("data/packing.py", "data/clip_index.py")


class Clips(ByPosition[Clip]):
    """The clips of ``sessions``, each made when it is asked for.

    Args:
        sessions: of a split.
        tables: ``[clips, 4]`` each, in order: session (its position in ``sessions``, counted from the first of this
            table), begin, end and tokens of a clip.
        firsts: the position in ``sessions`` of each table's first session.
    """

    def __init__(
        self, sessions: Sequence[SessionRows], tables: Sequence[NDArray[np.int32]], firsts: Sequence[int]
    ) -> None:
        self.sessions, self.tables, self.firsts = sessions, list(tables), list(firsts)
        super().__init__(map(len, tables))

    def _entry(self, piece: int, place: int) -> Clip:
        session, begin, end, tokens = self.tables[piece][place].tolist()
        return Clip(self.sessions[self.firsts[piece] + session], begin, end, tokens)

    @property
    def owners(self) -> list[int]:
        """The position in ``sessions`` of each clip's session."""
        pairs = zip(self.tables, self.firsts, strict=True)
        return [first + session for table, first in pairs for session in table[:, SESSION].tolist()]

    @property
    def lengths(self) -> list[int]:
        """The tokens of each clip."""
        return [length for table in self.tables for length in table[:, TOKENS].tolist()]


def clips_of(sessions: Sequence[SessionRows], processor: DSTSmolVLMProcessor, max_seq_len: int) -> Clips:
    """The clips of sessions that need no file.

    Raises:
        DataError: a frame and its texts do not fit beside the plan.
    """
    return Clips(sessions, [_table(sessions, processor, max_seq_len)], [0])


def open_clips(
    sessions: SessionStore, processor: DSTSmolVLMProcessor, max_seq_len: int, cache_dir: Path, processes: int = 1
) -> Clips:
    """The clips of stored sessions; the files that are missing under ``cache_dir`` are made first.

    Args:
        sessions: of a split.
        processor: the sequence builder.
        max_seq_len: largest length of a clip, in tokens.
        cache_dir: the files are kept in its folder ``clips``.
        processes: that pack.

    Raises:
        DataError: a frame and its texts do not fit beside the plan.
    """
    builder = _builder_hash(processor)
    files = []
    for file, frames in zip(sessions.files, sessions.frames_by_file, strict=True):
        name = hashlib.sha256(f"{file.name} {builder} {max_seq_len}".encode()).hexdigest()[:32]
        make = partial(_write, file, processor, max_seq_len)
        files.append(KeptFile(cache_dir / "clips" / f"{name}.npy", frames, make))
    make_missing(files, "packing clips", processes)
    tables = [np.load(file.path, mmap_mode="r", allow_pickle=False) for file in files]
    return Clips(sessions, tables, list(accumulate(sessions.sessions_by_file, initial=0))[:-1])


def _write(sessions: Path, processor: DSTSmolVLMProcessor, max_seq_len: int, path: Path) -> None:
    with path.open("wb") as file:
        np.save(file, _table(SessionStore([sessions]), processor, max_seq_len), allow_pickle=False)


def _table(sessions: Sequence[SessionRows], processor: DSTSmolVLMProcessor, max_seq_len: int) -> NDArray[np.int32]:
    """``[clips, 4]``, see :class:`Clips`."""
    spans = list(pack_sessions(sessions, processor, max_seq_len))
    numbers = np.repeat(np.arange(len(spans), dtype=np.int32), [len(of_session) for of_session in spans])
    return np.column_stack([numbers, np.concatenate([np.zeros((0, 3), np.int32), *spans])])


def _builder_hash(processor: DSTSmolVLMProcessor) -> str:
    """A hash of everything that determines how many tokens a frame and its texts take."""
    root, package = Path(processing_dst_smolvlm.__file__).parent, Path(prospect_hf.__file__).parent
    code = code_fingerprint(root, ROOT_CODE) + code_fingerprint(package, CODE)
    tokenizer = processor.tokenizer.backend_tokenizer.to_str()
    return hashlib.sha256(
        f"{code} {processor.tokens_per_frame} {processor.state_feedback} {tokenizer}".encode()
    ).hexdigest()
