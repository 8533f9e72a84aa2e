"""Tables: columns of one kind each, read from any frame, file, dict or list in the same way."""
