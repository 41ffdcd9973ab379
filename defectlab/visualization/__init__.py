"""Pictures and tables of records: overlays, charts, panels, the HTML report, the terminal."""
