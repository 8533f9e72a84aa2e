"""Every plugin that the core ships conforms, by the suite that everybody's plugins use."""

from importlib import metadata

from trainbus.testing import conformance

UNVALIDATED = "it monitors valid/loss, and refuses a fit that does not log it"

TestAccumulate = conformance("accumulate", windows={0: 1, 1: 2})
TestCheckpoint = conformance("checkpoint")
TestCheckpointOfTheBest = conformance(
    "checkpoint", monitor="valid/loss", background=True, skip={"no validation": UNVALIDATED}
)
TestClip = conformance("clip")
TestEarlyStopping = conformance("early_stopping", skip={"no validation": UNVALIDATED})
TestEMA = conformance("ema")
TestFinetune = conformance("finetune", body="body", unfreeze_at={1: "body"}, lr_ratio=2.0)
TestJournal = conformance("journal")
TestManifest = conformance("manifest")
TestNonfinite = conformance("nonfinite")
TestNonfiniteSkip = conformance("nonfinite", mode="skip", synchronises=1)
TestNonfiniteRestore = conformance(
    "nonfinite", mode="restore", synchronises=1, plugins=["checkpoint"]
)
TestOOM = conformance(
    "oom",
    parts=2,
    skip={"a task that steps by itself": "it refuses to cut the batches of such a task"},
)
TestSchedule = conformance(
    "schedule",
    name="one_cycle",
    skip={
        "constructs_with_defaults": "one of make= and name= has to be given",
        "a loader without a length": "one_cycle is planned over all steps of the run",
    },
)
TestSummary = conformance("summary", show=True)
TestSWA = conformance("swa", start=1)
TestWatch = conformance("watch", updates=True)


def test_no_plugin_of_the_core_is_left_out():
    entries = metadata.distribution("trainbus").entry_points.select(group="trainbus.plugins")
    tested = {test.subject.found.name for name, test in globals().items() if name[:4] == "Test"}
    assert tested == {entry.name for entry in entries}
