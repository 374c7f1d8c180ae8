"""The model card: what a trained bundle is, in Markdown with the metadata of Hugging Face's hub."""
