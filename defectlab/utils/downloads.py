"""Downloads of files on request, which continue after an interruption."""

import http.client
import logging
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

from defectlab.utils.disk import DiskError, disk_errors
from defectlab_runtime.errors import InputError

logger = logging.getLogger(__name__)

Progress = Callable[[int, int | None], None]

_CHUNK = 1 << 20
_ATTEMPTS = 3
_TIMEOUT_S = 30


def check_url(url: str, *, error: type[InputError], otherwise: str) -> None:
    """Check that a URL uses http or https.

    Raises:
        error: It is not; `otherwise` says what else can be done.
    """
    if urlsplit(url).scheme not in {"http", "https"}:
        raise error(f"Only http and https can be downloaded, not {url}. {otherwise}")


def fetch(url: str, part: Path, progress: Progress | None, *, error: type[InputError], otherwise: str) -> None:
    """Download `url` into `part`, continuing a partial file, in at most three attempts.

    Args:
        url: An http or https address.
        part: What was loaded so far stays here, whatever happens.
        progress: Called with (done, total) bytes.
        error: The class of what is raised.
        otherwise: What else can be done, as the end of a sentence that begins "copy the file from elsewhere and".
    """
    for attempt in range(1, _ATTEMPTS + 1):
        try:
            if _request(url, part, progress):
                return
            problem = "the connection was cut"
        except urllib.error.HTTPError as answer:
            raise error(f"{url}: the server answers {answer.code} {answer.reason}.") from answer
        except DiskError:  # another attempt would meet the same disk
            raise
        except (OSError, http.client.HTTPException) as failure:
            problem = str(getattr(failure, "reason", failure)) or type(failure).__name__
        done = part.stat().st_size if part.is_file() else 0
        logger.warning("%s: %s after %d bytes (attempt %d of %d)", url, problem, done, attempt, _ATTEMPTS)
    raise error(
        f"{url}: {problem}; {done} bytes are kept in {part}. Run the same command again to continue, or copy the file "
        f"from elsewhere and {otherwise}."
    )


def _request(url: str, part: Path, progress: Progress | None) -> bool:
    """Make one HTTP request that writes or continues `part`; return whether the file is complete."""
    start = part.stat().st_size if part.is_file() else 0
    request = urllib.request.Request(url, headers={"User-Agent": "defectlab", "Accept-Encoding": "identity"})
    if start:
        request.add_header("Range", f"bytes={start}-")
    try:
        response = urllib.request.urlopen(request, timeout=_TIMEOUT_S)
    except urllib.error.HTTPError as error:
        if error.code != 416:
            raise
        # Range beyond the end: the part is whole (its checksum will tell) or of another, longer file.
        if error.headers.get("Content-Range", "").rpartition("/")[2] == str(start):
            return True
        part.unlink()
        return False
    with response:
        length = response.headers.get("Content-Length")
        content_range = response.headers.get("Content-Range", "")
        if start and not (response.status == 206 and content_range.startswith(f"bytes {start}-")):
            logger.info("The server does not continue downloads: starting again")
            start = 0
        total = start + int(length) if length else None
        done = start
        with part.open("ab" if start else "wb") as file:
            while block := response.read(_CHUNK):
                with disk_errors(part, total):
                    file.write(block)
                done += len(block)
                if progress:
                    progress(done, total)
    return total is None or done == total
