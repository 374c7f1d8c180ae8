"""Fine-tuning: data-parallel steps, optimizer and schedule, checkpoints, progress reports."""
