"""Fine-tuning with MXNet's Module API: the loop, the optimizer, the schedule, the metrics."""
