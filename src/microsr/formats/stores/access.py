"""Where the small files of a chunked store (Zarr, N5) come from: a folder, or a server (http, https).

Python's own client is enough for both: a store is read by names that are known, never listed.
"""

from __future__ import annotations

import http.client
import time
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path
from typing import Protocol

from microsr.core.errors import UserError
from microsr.core.urls import note_reading, url

SECONDS = 30
"""Without an answer, after which a server is asked again."""
TRIES = 4
MISSING = (403, 404, 410)
"""Answers that say that there is no such file; object stores give 403 where a list is not public."""


class Files(Protocol):
    """The files of a store."""

    name: str
    """Of the store, for people."""

    def get(self, key: str, first: int | None = None, count: int | None = None) -> bytes | None:
        """Content of the file `key`, None if there is none; or `count` bytes from byte `first` on (negative: from the
        end), all that follow if `count` is None.

        Raises
        ------
        UserError
            The server does not give it.
        """
        ...

    def has(self, key: str) -> bool:
        """Whether there is such a file; errors as of `get`."""
        ...


def open_files(path: str) -> Files:
    """The files below a folder, or below a URL."""
    return _Server(address) if (address := url(path)) else _Folder(Path(path))


def _cut_bytes(content: bytes, first: int | None, count: int | None) -> bytes:
    content = content[first:] if first is not None else content
    return content if count is None else content[:count]


class _Folder:
    def __init__(self, path: Path) -> None:
        self.name, self._path = str(path), path

    def get(self, key: str, first: int | None = None, count: int | None = None) -> bytes | None:
        try:
            with (self._path / key).open("rb") as stream:
                if first is None:
                    return stream.read()
                stream.seek(first, 2 if first < 0 else 0)
                return stream.read() if count is None else stream.read(count)
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
            return None

    def has(self, key: str) -> bool:
        return (self._path / key).is_file()


class _Server:
    def __init__(self, address: str) -> None:
        self.name = address

    def has(self, key: str) -> bool:
        return self._ask(key, urllib.request.Request(self._address(key), method="HEAD"), None, None) is not None

    def _address(self, key: str) -> str:
        return f"{self.name}/{urllib.parse.quote(key)}"

    def get(self, key: str, first: int | None = None, count: int | None = None) -> bytes | None:
        request = urllib.request.Request(self._address(key))
        if first is not None:
            last = "" if count is None or first < 0 else first + count - 1
            request.add_header("Range", f"bytes={first if first < 0 else f'{first}-'}{last}")
        content = self._ask(key, request, first, count)
        if content is not None:
            note_reading(self.name, key if first is None else f"{key} from {first}, {count or 'all'}", content)
        return content

    def _ask(self, key: str, request: urllib.request.Request, first: int | None, count: int | None) -> bytes | None:
        for attempt in range(TRIES):
            try:
                with urllib.request.urlopen(request, timeout=SECONDS) as answer:
                    content, partly = answer.read(), answer.status == http.client.PARTIAL_CONTENT
                return _cut_bytes(content, None, count) if partly else _cut_bytes(content, first, count)
            except urllib.error.HTTPError as error:
                if error.code in MISSING:
                    return None
                why = f"HTTP {error.code}"
            except (OSError, http.client.HTTPException) as error:
                why = str(getattr(error, "reason", "") or error) or type(error).__name__
            if attempt < TRIES - 1:
                time.sleep(0.2 * 2**attempt)
        raise UserError(
            f"{self.name}: the server does not give {key} ({why[:160]}); try again later, or copy the store here"
        )
