"""Whether images are still those of a manifest: a record names them by content. No torch here."""

import logging
from pathlib import Path

from defectlab.data.images import REMEMBERED, probe_all
from defectlab.data.manifest import Manifest
from defectlab.errors import DataError

logger = logging.getLogger(__name__)

SHOWN = 5


def check_unchanged(manifest: Manifest) -> None:
    """Refuse to go on with images or masks whose content is another than when the manifest was built.

    Files whose size and times are as they were are not read again. One that has vanished is none of this: what was
    read of it is as it was, and reading it again says so by itself.

    Raises:
        DataError: Names those that have changed.
    """
    wanted: dict[Path, str] = {}
    for entry in manifest.entries:
        wanted[manifest.absolute(entry)] = entry.sha256
        mask = manifest.absolute_mask(entry)
        if mask is not None and entry.mask_sha256 is not None:
            wanted[mask] = entry.mask_sha256
    if len(wanted) > REMEMBERED // 2:  # what was known of the first would be forgotten with the last
        logger.info("%d files: too many to look once more whether one has changed meanwhile", len(wanted))
        return
    found = zip(wanted, probe_all(list(wanted)), strict=True)
    changed = [path for path, facts in found if facts.sha256 not in ("", wanted[path])]
    if changed:
        names = "\n".join(f"  {path}" for path in changed[:SHOWN])
        more = f"\n  and {len(changed) - SHOWN} more" if len(changed) > SHOWN else ""
        raise DataError(
            f"These files of {manifest.name} have changed since its images were checked, so that scores and record "
            f"would be of different images:\n{names}{more}\nStart it again: it then takes them as they are now."
        )
