"""A run that is left goes on with the same samples, at any number of processes."""

import pytest
import torch

from trainbus import CheckpointError, Loader, StopRun, Trainer, hookimpl
from trainbus.builtin import Checkpoint
from trainbus.testing.processes import ranks
from trainbus_distributed import Distributed

from .conftest import Small, dataset, digest, fit, loader


class Numbers(Small):
    """Notes which samples made each step."""

    def __init__(self, dropout=0.0):
        super().__init__(dropout)
        self.steps = []

    def training_step(self, batch, run):
        self.steps.append((run.global_step, batch[2].tolist()))
        return super().training_step(batch, run)


def train(resume=None, stop=None, dropout=0.0, accumulate=1, kind=Loader, epochs=2, count=64):
    """Train with a state at each step; leave after `stop` steps in all processes."""

    class Stop:
        @hookimpl
        def on_train_batch_end(self, run):
            if run.global_step == stop:
                raise StopRun("left")

    task = Numbers(dropout)
    plugins = [Checkpoint("valid/loss", every_steps=1, keep_last=40), *([Stop()] if stop else [])]
    told = fit(
        task, loader(count, kind=kind), loader(24), plugins, resume, accumulate=accumulate,
        epochs=epochs,
    )  # fmt: skip
    return {**told, "samples": task.steps}


@pytest.mark.parametrize(
    "kind", [Loader, pytest.param(torch.utils.data.DataLoader, marks=pytest.mark.slow)]
)
def test_the_same_number_of_processes_ends_with_the_same_bits(kind):
    whole = ranks(2, lambda: train(dropout=0.5, kind=kind))
    left = ranks(2, lambda: train(dropout=0.5, kind=kind, stop=3))
    assert left[0]["status"] == left[1]["status"] == "stopped"
    assert left[0]["steps"] == left[1]["steps"] < whole[0]["steps"]
    back = ranks(2, lambda: train(dropout=0.5, kind=kind, resume="auto"))
    assert [each["digest"] for each in back] == [each["digest"] for each in whole]
    assert back[0]["dir"] == left[0]["dir"]
    assert back[0]["metrics"] == whole[0]["metrics"]


def _samples(told, from_step=0):
    """The samples of each step, of all processes together."""
    together = {}
    for each in told:
        for step, numbers in each["samples"]:
            if step >= from_step:
                together.setdefault(step, []).extend(numbers)
    return {step: sorted(numbers) for step, numbers in together.items()}


def test_another_number_of_processes_reads_the_same_samples_in_the_same_steps():
    whole = train(accumulate=4)
    steps = _samples([whole])
    two = ranks(2, lambda: train(accumulate=2, stop=1))
    state = two[0]["dir"] + "/checkpoints/step-00000001"
    assert _samples(two, 0)[0] == steps[0]
    one = train(accumulate=4, resume=state, stop=2)
    assert _samples([one])[1] == steps[1]
    state = one["dir"] + "/checkpoints/step-00000002"
    four = ranks(4, lambda: train(accumulate=1, resume=state))
    assert _samples(four) == {step: numbers for step, numbers in steps.items() if step >= 2}
    assert len({each["digest"] for each in four}) == 1
    assert four[0]["metrics"]["valid/loss"] == pytest.approx(
        whole["metrics"]["valid/loss"], abs=1e-6
    )
    assert four[0]["metrics"]["train/loss_epoch"] == pytest.approx(
        whole["metrics"]["train/loss_epoch"], abs=1e-6
    )


def test_a_place_that_cannot_be_shared_out_is_an_error_in_all():
    alone = train(stop=3)
    state = alone["dir"] + "/checkpoints/step-00000003"

    def go_on():
        with pytest.raises(CheckpointError, match="stands behind 3 batches"):
            train(resume=state)

    ranks(2, go_on)


def test_a_state_that_is_not_there_is_an_error_in_all():
    def go_on():
        with pytest.raises(CheckpointError, match="nowhere"):
            train(resume="nowhere")

    ranks(2, go_on)


def test_one_directory_one_journal_one_set_of_states():
    told = ranks(2, lambda: train())
    from pathlib import Path

    assert told[0]["dir"] == told[1]["dir"]
    assert len(list(Path("runs").iterdir())) == 1
    names = {each.name for each in Path(told[0]["dir"]).iterdir()}
    assert {"journal.db", "run.json", "checkpoints"} <= names
    assert not [name for name in names if "rank" in name]


def test_in_the_background():
    def go():
        told = fit(
            Small(), loader(64), loader(24), [Checkpoint("valid/loss", background=True)], epochs=3
        )
        return told["dir"], told["digest"]

    (directory, bits), (_, others) = ranks(2, go)
    assert bits == others
    task = Small()
    Trainer(epochs=3).validate(task, loader(24), weights=directory + "/checkpoints/step-00000024")
    assert digest(task) == bits


def test_no_property_of_a_run_is_a_meeting():
    def look():
        looked = []

        class Look:
            @hookimpl
            def on_train_batch_end(self, run):
                before = run.peers.meetings
                if run.rank == 0:
                    kind = type(run)
                    public = [name for name in dir(kind) if not name.startswith("_")]
                    for name in public:
                        if isinstance(getattr(kind, name), property):
                            getattr(run, name)
                            looked.append(name)
                assert run.peers.meetings == before

        fit(Small(), loader(32), loader(24), [Look()])
        return sorted(set(looked))

    assert {"dir", "metrics"} <= set(ranks(2, look)[0])


def test_meetings_are_few():
    """Of a pass and of a state: counted, so that one too many is noticed."""

    def count(epochs):
        before = Distributed(timeout=20.0).provide_peers()
        fit(Small(), Loader(dataset(64), batch_size=4), loader(24), [Checkpoint()], epochs=epochs)
        return before.meetings

    one, three = (ranks(2, count, epochs)[0] for epochs in (1, 3))
    # Of an epoch: its 8 steps agree at first after each; two passes with one mean each; one state.
    assert (three - one) / 2 <= 8 + 2 + 3 + 6
