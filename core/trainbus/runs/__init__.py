"""Looking at runs that were made."""
