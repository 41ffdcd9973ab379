"""Runs side by side: leaderboard, paired tests, repeats, means over data sets."""
