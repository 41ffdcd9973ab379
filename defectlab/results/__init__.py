"""Run folders: what a run writes, and what everything after it reads. Never imports models."""
