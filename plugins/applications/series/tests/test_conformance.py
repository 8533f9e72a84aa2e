"""What is asked of every plugin of trainbus."""

from trainbus.testing import conformance

TestConformance = conformance("series")
