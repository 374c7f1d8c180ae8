"""Tokenizers without a ``tokenizer.json``, converted to one: byte-level BPE and SentencePiece."""
