"""Fine-tuning: data-parallel steps, optimizer and schedule, checkpoints."""
