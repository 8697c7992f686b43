"""The beginning of a file on the Hub, without the rest of it."""

from __future__ import annotations

import os
from pathlib import Path

from edgellm.files.refusals import write_error
from edgellm.hub.client import quiet, renamed_error

PIECE = 1 << 20
"""Bytes taken at a time."""


def fetch_beginning(repository: str, name: str, destination: Path, nbytes: int) -> bool:
    """Write the first bytes of a file on the Hub, with a hole of the rest's size behind them.

    Args:
        repository: ``owner/name``.
        name: the file's path in it.
        destination: the file to be written.
        nbytes: how many bytes are wanted.

    Returns:
        Whether that is the whole file.

    Raises:
        ModelNotFoundError, DownloadError: as ``hub.download``.
        ConversionError: the disk refuses.
    """
    from huggingface_hub import hf_hub_url
    from huggingface_hub.utils import build_hf_headers, get_session, hf_raise_for_status

    headers = build_hf_headers() | {"Range": f"bytes=0-{nbytes - 1}"}
    url = hf_hub_url(repository, name)
    try:
        with quiet(), get_session().stream("GET", url, headers=headers, timeout=10) as response:
            hf_raise_for_status(response)
            # a server that gives no parts gives all of it
            claimed = response.headers.get("Content-Range", "").rpartition("/")[2]
            total = int(claimed or response.headers.get("Content-Length") or 0)
            content = bytearray()
            for piece in response.iter_bytes(PIECE):
                content += piece
                if len(content) >= nbytes:
                    break
    except Exception as error:
        raise renamed_error(error, repository) from error
    try:
        destination.write_bytes(content[:nbytes])
        os.truncate(destination, max(total, len(content)))
    except OSError as error:
        raise write_error(destination, error) from error
    return len(content) >= total
