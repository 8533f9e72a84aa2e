"""What is asked of every plugin of trainbus, without a connection."""

from trainbus.testing import conformance

TestConformance = conformance("comet", mode="offline")
