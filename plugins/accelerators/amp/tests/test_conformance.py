"""What is asked of every plugin of trainbus, in three precisions."""

from trainbus.testing import conformance

TestConformance = conformance("amp")
TestScaled = conformance("amp", precision="fp16", synchronises=1)
TestConverted = conformance("amp", precision="bf16-true")
