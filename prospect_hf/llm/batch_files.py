"""What lies in the folder of batches: the state, the requests of each batch, and the tries that came before them.

The state is written before and after each step that is paid for, so that a killed run goes on where it stopped.
"""

from __future__ import annotations

import hashlib
import json
import secrets
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

from prospect_hf.checked_json import (
    as_dict,
    get,
    get_dict,
    get_index,
    get_list,
    get_optional_text,
    get_text,
    json_lines,
    load_json,
    parse_json,
)
from prospect_hf.content_hash import file_hash
from prospect_hf.errors import DataError, UsageError
from prospect_hf.files import replacing, write_json
from prospect_hf.llm.questions import Tries, tries_in

VERSION = 1
# Bytes of a batch's file that OpenAI takes.
BATCH_BYTES = 200_000_000


@dataclass
class Batch:
    """One batch: a file of requests, and what became of it.

    Args:
        number: of the batch in its folder, from 0.
        round: 0 for new questions; the requests that follow a batch have the next round.
        requests: their number.
        input_tokens, output_tokens: the most that they can take.
        sha256: of its file.
        mark: stands in the batch's metadata at the server, so that a batch is found whose id was not written down.
        refused: how often the server refused the batch as a whole, which costs nothing.
        file_id: of the uploaded file; "" before.
        batch_id: of the submitted batch; "" before.
        done: whether its answers have been collected.
    """

    number: int
    round: int
    requests: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    sha256: str = ""
    mark: str = ""
    refused: int = 0
    file_id: str = ""
    batch_id: str = ""
    done: bool = False

    def __post_init__(self) -> None:
        self.mark = self.mark or secrets.token_hex(16)

    @property
    def most(self) -> tuple[int, int]:
        """The most tokens (input, output) that its requests can take."""
        return self.input_tokens, self.output_tokens


class BatchFolder:
    """The folder of the batches of one run.

    Args:
        path: the folder, which is made.
        address, model: whom the batches ask.

    Raises:
        DataError: the state file is broken.
        UsageError: the folder has open batches of another server or model.
    """

    def __init__(self, path: Path, address: str, model: str) -> None:
        self.path, self._whom = path, {"address": address, "model": model}
        self.batches: list[Batch] = []
        path.mkdir(parents=True, exist_ok=True)
        if self._state.exists():
            self._load()

    @property
    def _state(self) -> Path:
        return self.path / "batches.json"

    def _load(self) -> None:
        where = str(self._state)
        state = as_dict(load_json(self._state), where)
        if get_index(state, "version", where) != VERSION:
            raise UsageError(f"{where} was written by another version of this package: give another folder.")
        for number, entry in enumerate(get_list(state, "batches", where)):
            place = f"{where}, batch {number}"
            facts = as_dict(entry, place)
            self.batches.append(
                Batch(
                    number,
                    get_index(facts, "round", place),
                    get_index(facts, "requests", place),
                    get_index(facts, "input_tokens", place),
                    get_index(facts, "output_tokens", place),
                    get_text(facts, "sha256", place),
                    get_text(facts, "mark", place),
                    get_index(facts, "refused", place),
                    get_optional_text(facts, "file_id", place),
                    get_optional_text(facts, "batch_id", place),
                    get(facts, "done", place) is True,
                )
            )
        whom = {key: get_text(state, key, where) for key in self._whom}
        if whom != self._whom and self.open:
            raise UsageError(
                f"{where} has {len(self.open)} open batches of the model {whom['model']} at {whom['address']}: go on "
                f"with that model, or give another folder."
            )

    def save(self) -> None:
        """Write the state, whole or not at all."""
        write_json(
            self._state, {"version": VERSION, **self._whom, "batches": [asdict(batch) for batch in self.batches]}
        )

    @property
    def open(self) -> list[Batch]:
        """The batches whose answers have not been collected."""
        return [batch for batch in self.batches if not batch.done]

    def requests_path(self, number: int) -> Path:
        """The file that is uploaded."""
        return self.path / f"{number:04}.jsonl"

    def verify(self, batch: Batch) -> None:
        """Raise ``DataError`` where the file of a batch is not as it was written."""
        path = self.requests_path(batch.number)
        if not path.exists() or file_hash(path) != batch.sha256:
            raise DataError(
                f"{path} is not as it was written, so the answers of its batch cannot be told apart: restore it, or "
                f"delete {self.path} to ask its questions anew."
            )

    def requests(self, batch: Batch) -> Iterator[tuple[str, dict[str, Any], int]]:
        """(key, body, bytes) of the requests of a batch, in their order, read one by one."""
        path = self.requests_path(batch.number)
        for number, line in json_lines(path):
            where = f"{path}, line {number}"
            record = as_dict(parse_json(line, where), where)
            yield get_text(record, "custom_id", where), get_dict(record, "body", where), len(line.encode())

    def tries(self, batch: Batch) -> dict[str, Tries]:
        """The tries that came before a batch, by key; without an entry there were none."""
        path = self._tries_path(batch.number)
        if not path.exists():
            return {}
        found = {}
        for key, facts in as_dict(load_json(path), str(path)).items():
            tries = tries_in(as_dict(facts, f"{path}, {key}"))
            if tries is None:
                raise DataError(f"{path}, {key}: its tries, tokens and usd must be numbers from 0 up, and raw texts.")
            found[key] = tries
        return found

    def _tries_path(self, number: int) -> Path:
        return self.path / f"{number:04}.tries.json"

    def write_tries(self, number: int, tries: Mapping[str, Tries]) -> None:
        """Keep the tries that came before a batch."""
        write_json(self._tries_path(number), {key: value.facts() for key, value in tries.items()})


class BatchWriter:
    """Writes requests to the files of new batches, line by line; they count once the state names them.

    Args:
        folder: where to; the numbers follow those of its batches.
        round_number: of the new batches.
        most_requests: of one batch.
        limit_key: the key of a request with its limit of tokens.
    """

    def __init__(self, folder: BatchFolder, round_number: int, most_requests: int, limit_key: str) -> None:
        self._folder, self._round, self._most, self._limit_key = folder, round_number, most_requests, limit_key
        self._files, self._bytes, self._hash = ExitStack(), 0, hashlib.sha256()
        self._file: BinaryIO | None = None
        self._tries: dict[str, Tries] = {}
        self.batches: list[Batch] = []

    def add(self, key: str, body: Mapping[str, Any], tries: Tries) -> tuple[int, int]:
        """Write one request; returns the most tokens (input, output) that it can take."""
        record = {"custom_id": key, "method": "POST", "url": "/v1/chat/completions", "body": body}
        line = (json.dumps(record, ensure_ascii=False) + "\n").encode()
        if self._file is None or self.batches[-1].requests == self._most or self._bytes + len(line) > BATCH_BYTES:
            self._end_file()
            number = len(self._folder.batches) + len(self.batches)
            path = self._files.enter_context(replacing(self._folder.requests_path(number)))
            self._file = self._files.enter_context(path.open("wb"))
            self.batches.append(Batch(number, self._round))
        self._file.write(line)
        self._hash.update(line)
        self._bytes += len(line)
        if tries != Tries():
            self._tries[key] = tries
        # Upper bound of the input tokens: a token has at least one byte.
        most = len(line), int(body[self._limit_key])
        batch = self.batches[-1]
        batch.requests += 1
        batch.input_tokens += most[0]
        batch.output_tokens += most[1]
        return most

    def _end_file(self) -> None:
        self._files.close()
        if self.batches and self._file is not None:
            self._folder.write_tries(self.batches[-1].number, self._tries)
            self.batches[-1].sha256 = self._hash.hexdigest()
        self._file, self._bytes, self._hash, self._tries = None, 0, hashlib.sha256(), {}

    def __enter__(self) -> BatchWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self._end_file()
        else:
            self._files.__exit__(kind, error, trace)
