"""Commands about the features kept on disk."""

from datetime import datetime

from defectlab.cli.command import Command
from defectlab.utils import paths


def cache_list() -> None:
    """List the cached features, the last used first."""
    from defectlab.backbones.feature_cache.store import FeatureStore

    store = FeatureStore()
    entries = store.entries()
    for entry in entries:
        what = " ".join(str(entry.key.get(name, "")) for name in ("backbone", "layer", "dtype", "device"))
        used = datetime.fromtimestamp(entry.used).strftime("%Y-%m-%d %H:%M")
        print(f"{what:<48} {entry.key.get('count', '?'):>6} images {entry.bytes / 1e6:>10.1f} MB  last used {used}")
    total = sum(entry.bytes for entry in entries)
    print(f"{len(entries)} arrays, {total / 1e9:.2f} of {store.limit / 1e9:.0f} GB: {paths.relative(store.root)}")


def cache_clear() -> None:
    """Remove the cached features; they are computed again when they are needed."""
    from defectlab.backbones.feature_cache.store import FeatureStore

    store = FeatureStore()
    print(f"Freed {store.clear() / 1e9:.2f} GB: {paths.relative(store.root)}")


COMMANDS = {"list": Command(cache_list), "clear": Command(cache_clear)}
