"""What is asked of every plugin of trainbus, without a connection."""

from trainbus.testing import conformance

TestConformance = conformance(
    "comet",
    mode="offline",
    skip={"flushes_what_it_was_given": "an offline archive is written when the run ends"},
)
