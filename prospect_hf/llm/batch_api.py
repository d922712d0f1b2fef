"""The calls of OpenAI's Batch API: upload a file, submit it as a batch, look at the batch, read what it gave."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from prospect_hf.errors import UsageError
from prospect_hf.llm.answers import TransientError, parsed, quoted
from prospect_hf.llm.server import Server

# Batches on a page of the list.
PAGE = 100


def upload(server: Server, path: Path) -> str:
    """Upload a file of requests; returns its id. Errors of all these functions as in :meth:`Server.errors`."""
    with server.errors(), path.open("rb") as file:
        reply = server.openai.files.with_raw_response.create(file=(path.name, file), purpose="batch")
        return str(_facts(server, reply.http_response.text)["id"])


def submit(server: Server, file_id: str, mark: str) -> str:
    """Submit an uploaded file as a batch that has ``mark`` in its metadata; returns its id."""
    with server.errors():
        reply = server.openai.batches.with_raw_response.create(
            input_file_id=file_id, endpoint="/v1/chat/completions", completion_window="24h", metadata={"run": mark}
        )
        return str(_facts(server, reply.http_response.text)["id"])


def find(server: Server, mark: str) -> str | None:
    """The id of the batch with ``mark`` in its metadata; None where there is none."""
    after = ""
    while True:
        with server.errors():
            batches_api = server.openai.batches.with_raw_response
            reply = batches_api.list(limit=PAGE, after=after) if after else batches_api.list(limit=PAGE)
            match parsed(reply.http_response.text):
                case {"data": list(page), **rest}:
                    batches = [batch for batch in page if isinstance(batch, dict) and isinstance(batch.get("id"), str)]
                case _:
                    raise _unexpected(server, reply.http_response.text)
        for batch in batches:
            if isinstance(batch.get("metadata"), dict) and batch["metadata"].get("run") == mark:
                return str(batch["id"])
        # A server that knows no pages would give the same one for ever.
        if not rest.get("has_more") or not batches or batches[-1]["id"] == after:
            return None
        after = batches[-1]["id"]


def look(server: Server, batch_id: str) -> dict[str, Any]:
    """What the server tells of a batch: ``status``, and ids, counts and errors as far as there are any."""
    with server.errors(), _existing(server, f"batch {batch_id}"):
        text = server.openai.batches.with_raw_response.retrieve(batch_id).http_response.text
        facts = _facts(server, text)
    if not isinstance(facts.get("status"), str):
        raise _unexpected(server, text)
    return facts


def download(server: Server, file_id: str, folder: Path) -> BinaryIO:
    """A result file, open at its beginning, to be closed by the caller.

    It has no name on the disk, since an answer in it may hold the key.
    """
    file: BinaryIO = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115
    try:
        with (
            server.errors(),
            _existing(server, f"result file {file_id}"),
            server.openai.files.with_streaming_response.content(file_id) as reply,
        ):
            for piece in reply.iter_bytes():
                file.write(piece)
    except Exception as error:
        file.close()
        # By name, since openai's HTTP client depends on its version; openai does not wrap what a stream raises.
        if not any(kind.__name__ == "TransportError" for kind in type(error).__mro__):
            raise
        message = f"{server.address} broke off a result file ({quoted(str(error), server.secret)})"
        raise TransientError(message, "check llm.base_url, and that the server runs") from None
    file.seek(0)
    return file


@contextmanager
def _existing(server: Server, name: str) -> Iterator[None]:
    """What the server does not know may be another project's: it is not asked for anew unasked."""
    import openai

    try:
        yield
    except openai.NotFoundError:
        raise UsageError(
            f"{server.address} has no {name}: use the key of the project that submitted it, or delete the folder of "
            f"the batches to ask its questions anew."
        ) from None


def _facts(server: Server, text: str) -> dict[str, Any]:
    match parsed(text):
        case {"id": str()} as facts:
            return dict(facts)
    raise _unexpected(server, text)


def _unexpected(server: Server, text: str) -> TransientError:
    message = f"{server.address} gave no file or batch, but {quoted(text, server.secret)}"
    return TransientError(message, "llm.batch=true needs a server with OpenAI's Batch API")
