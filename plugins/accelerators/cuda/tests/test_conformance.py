"""What is asked of every plugin of trainbus; what needs a GPU is skipped without one."""

from trainbus.testing import conformance

TestConformance = conformance("cuda")
