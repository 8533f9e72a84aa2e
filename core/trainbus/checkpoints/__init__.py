"""States of runs on the disk: how they are written, found and read."""
