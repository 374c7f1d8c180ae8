"""Report what a symbol is, without running it."""
