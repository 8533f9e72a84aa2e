"""A training that is described by a file."""
