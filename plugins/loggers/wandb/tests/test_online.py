"""Online, with a server on this machine that speaks what the client needs of W&B's protocol."""

import logging
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from trainbus import PluginError, Trainer
from trainbus.testing import Line
from trainbus_wandb import Wandb

# The client's threads find it gone, when a test puts an end to it.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")


@pytest.fixture
def closed_port():
    """The address of a server that is not there."""
    with socket.socket() as held:  # bound and not listening: nobody else gets it
        held.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{held.getsockname()[1]}"


def run_command(line):
    """Run a line of a message, as it stands, in a shell."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path}
    del environment["WANDB_SERVICE"]  # as from a terminal of one's own
    subprocess.run(line, shell=True, check=True, env=environment)


def started(trainer):
    """Whether a step was made."""
    steps = []
    trainer.on("train_batch_start")(lambda run: steps.append(run.global_step))
    return steps


def test_a_run_is_sent_whole_and_its_address_is_in_the_header(server, batches):
    trainer = Trainer(epochs=2, plugins=[Wandb(project="lines")])
    run = trainer.fit(Line(), batches, batches)
    (name,) = {each["name"] for each in server.runs}
    assert run.header["wandb"] == f"{server.url}/me/lines/runs/{name}"
    steps = [row["trainer/global_step"] for row in server.rows if "train/loss" in row]
    assert steps == list(range(1, 11))
    assert [row["trainer/global_step"] for row in server.rows if "valid/loss" in row] == [5, 10]
    assert server.exit_codes == [0]
    assert server.runs[0]["displayName"] == run.dir.name


def test_a_resumed_run_goes_on_in_the_same_run(server, batches):
    first = Trainer(epochs=1, plugins=[Wandb(), "checkpoint"]).fit(Line(), batches)
    server.rows[-1]["_step"] += 1  # the server had one more record than the journal knows of
    sent = len(server.rows)
    trainer = Trainer(epochs=2, plugins=[Wandb(), "checkpoint"])
    run = trainer.fit(Line(), batches, resume="auto")
    assert len({each["name"] for each in server.runs}) == 1
    numbers = [row["_step"] for row in server.rows]
    assert numbers == sorted(set(numbers))
    assert run.header["wandb"] == first.header["wandb"]
    steps = [row["trainer/global_step"] for row in server.rows[sent:] if "train/loss" in row]
    assert steps[-1] == 10


def test_what_the_server_lacks_is_sent_when_the_run_goes_on(server, batches):
    """As after a kill: the client had taken more than it had uploaded."""
    Trainer(epochs=1, plugins=[Wandb(), "checkpoint"]).fit(Line(), batches)
    del server.rows[3:]
    Trainer(epochs=2, plugins=[Wandb(), "checkpoint"]).fit(Line(), batches, resume="auto")
    steps = [row["trainer/global_step"] for row in server.rows if "train/loss" in row]
    assert steps == list(range(1, 11))
    numbers = [row["_step"] for row in server.rows]
    assert numbers == sorted(set(numbers))


def test_uploads_that_do_not_end_are_left_to_wandb_sync(server, batches, caplog, read):
    server.busy = True
    run = Trainer(plugins=[Wandb(finish_timeout=1)]).fit(Line(), batches)
    (message,) = [each for each in caplog.messages if "could not upload" in each]
    (file,) = read(run.dir.absolute())
    assert message.endswith(f"in 1 s; send the rest with: wandb sync --include-online "
                            f"{file.path.parent}")  # fmt: skip
    assert len(file.series("train/loss")) == 5


@pytest.mark.slow
def test_the_command_in_a_message_sends_what_was_not_uploaded(server, batches, caplog):
    server.busy = True
    Trainer(plugins=[Wandb(finish_timeout=1)]).fit(Line(), batches)
    server.busy = False
    (message,) = [each for each in caplog.messages if "could not upload" in each]
    run_command(message.partition("send the rest with: ")[2])
    steps = [row["trainer/global_step"] for row in server.rows if "train/loss" in row]
    assert steps == list(range(1, 6))


@pytest.mark.slow
def test_the_command_in_the_header_sends_all_parts_of_an_offline_run(server, batches):
    for epochs in (1, 2):
        trainer = Trainer(epochs=epochs, plugins=[Wandb(mode="offline"), "checkpoint"])
        run = trainer.fit(Line(), batches, resume="auto")
    assert not server.rows
    run_command(run.header["wandb"].partition("; later: ")[2])
    steps = [row["trainer/global_step"] for row in server.rows if "train/loss" in row]
    assert steps == list(range(1, 11))
    assert len({each["name"] for each in server.runs}) == 1


def test_a_key_that_the_server_refuses_stops_the_run_before_its_first_step(server, batches):
    server.status = 401
    trainer = Trainer(plugins=[Wandb()])
    steps = started(trainer)
    with pytest.raises(PluginError) as caught:
        trainer.fit(Line(), batches)
    message = str(caught.value)
    assert f"plugin 'wandb' cannot begin a run at {server.url}: user is not logged in" in message
    assert "`wandb login`" in message
    assert not steps


def test_without_credentials_the_run_stops_and_names_what_mends_it(environment, batches):
    environment(MODE="online")
    trainer = Trainer(plugins=[Wandb()])
    steps = started(trainer)
    with pytest.raises(PluginError) as caught:
        trainer.fit(Line(), batches)
    message = str(caught.value)
    assert "no API key is configured" in message
    for line in ("`wandb login`", "WANDB_API_KEY", "-o wandb.mode=offline",
                 "-o wandb.offline_fallback=true"):  # fmt: skip
        assert line in message
    assert not steps


def test_without_credentials_the_fallback_works_offline(environment, batches, read, caplog):
    environment(MODE="online")
    run = Trainer(plugins=[Wandb(offline_fallback=True)]).fit(Line(), batches)
    (file,) = read(run.dir)
    assert len(file.series("train/loss")) == 5
    (message,) = [each for each in caplog.messages if "works offline" in each]
    assert "no API key is configured" in message and "wandb sync" in message
    assert run.header["wandb"].startswith("offline; it could not begin online; later: wandb sync ")


@pytest.mark.slow
@pytest.mark.parametrize("fallback", [False, True])
def test_a_server_that_is_not_there_is_not_waited_for_long(
    environment, closed_port, batches, read, fallback
):
    environment(MODE="online", BASE_URL=closed_port, API_KEY="0123456789" * 4)
    trainer = Trainer(plugins=[Wandb(init_timeout=1, offline_fallback=fallback)])
    begun = time.monotonic()
    if fallback:
        run = trainer.fit(Line(), batches)
        assert len(read(run.dir)[0].series("train/loss")) == 5
    else:
        with pytest.raises(PluginError, match=f"at {closed_port}: .*connection refused"):
            trainer.fit(Line(), batches)
    assert time.monotonic() - begun < 60  # the client alone waits for 90 s


def test_a_name_that_wandb_does_not_take_is_an_error_also_with_the_fallback(batches, caplog):
    caplog.set_level(logging.WARNING)
    trainer = Trainer(plugins=[Wandb(project="a/b", offline_fallback=True)])
    with pytest.raises(PluginError, match="cannot begin a run: Invalid project name 'a/b'"):
        trainer.fit(Line(), batches)
