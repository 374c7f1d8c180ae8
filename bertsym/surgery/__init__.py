"""Cutting, joining and changing symbols: every result is a bundle, compared with what it was made from."""
