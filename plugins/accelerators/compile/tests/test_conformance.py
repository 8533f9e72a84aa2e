"""What is asked of every plugin of trainbus."""

from trainbus.testing import conformance

# The conformance suite makes many short runs: what is generated for a device is not needed in them.
TestConformance = conformance("compile", backend="eager")
