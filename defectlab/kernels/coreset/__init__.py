"""Greedy k-centre coresets: exact search with bounds, approximate search, estimates of the cost."""
