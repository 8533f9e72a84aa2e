"""What is asked of every plugin of trainbus; without torch_xla, what it does where it is absent."""

from trainbus.testing import conformance

TestConformance = conformance("xla")
