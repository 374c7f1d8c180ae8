"""What is known about data sets: usual names of columns, kinds of task, and published data sets."""
