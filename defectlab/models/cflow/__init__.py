"""CFlow: conditional normalising flows over backbone features."""
