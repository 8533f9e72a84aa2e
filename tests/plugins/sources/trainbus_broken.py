"""A plugin whose import fails."""

raise RuntimeError("no licence file")
