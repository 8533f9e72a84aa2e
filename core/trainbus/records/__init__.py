"""What a run logged: on the disk, and on its way to the loggers."""
