"""What is told about the work done: metrics and logs."""
