"""Pictures and tables of recorded runs: overlays, charts, panels, the HTML report, terminal tables."""
