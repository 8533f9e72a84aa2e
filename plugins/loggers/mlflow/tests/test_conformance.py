"""What is asked of every plugin of trainbus, with a local data base."""

from trainbus.testing import conformance

TestConformance = conformance("mlflow")
