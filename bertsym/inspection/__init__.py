"""What a symbol is, told without running it."""
