"""The plugin passes the suite that every plugin has to pass."""

from __future__ import annotations

from trainbus.testing import conformance

TestConformance = conformance("learner")
