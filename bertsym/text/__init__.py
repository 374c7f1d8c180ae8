"""From tables and texts to padded arrays: tasks, readers, tokenizer, features, batches."""
