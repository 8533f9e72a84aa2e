"""Files that are whole or not there, the directories of runs, and their locks."""
