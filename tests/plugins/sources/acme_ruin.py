"""A company's plugin that cannot be imported."""

raise RuntimeError("the office is closed")
