"""A run that goes on, and records that are delivered again."""

import pytest
from tensorboard.plugins.hparams import api_pb2, metadata

from trainbus import PluginError, Trainer
from trainbus.builtin import Checkpoint
from trainbus.testing import Line
from trainbus_tensorboard import TensorBoard


def status(events):
    content = events.SummaryMetadata(metadata.SESSION_END_INFO_TAG).plugin_data.content
    return metadata.parse_session_end_info_plugin_data(content).status


def test_a_fit_that_goes_on_is_one_run_with_one_row(batches, read):
    plugins = ["checkpoint", TensorBoard()]
    first = Trainer(epochs=1, plugins=plugins).fit(Line(lr=0.1), batches)
    run = Trainer(epochs=2, plugins=plugins).fit(Line(lr=0.1), batches, resume="auto")
    assert run.dir == first.dir
    events = read(run.dir / "tensorboard")
    assert [step for step, _ in events.series("train/loss")] == list(range(1, 11))
    assert [step for step, _ in events.series("train/loss_epoch")] == [5, 10]
    assert len(events.Tensors(metadata.SESSION_START_INFO_TAG)) == 1
    assert len(events.Tensors(metadata.SESSION_END_INFO_TAG)) == 1
    assert len(events.text("params")) == 1


def test_the_row_of_a_run_that_goes_on_says_how_it_ended_at_last(info, read):
    run, logger = info(), TensorBoard()
    logger.on_log_start(run)
    logger.on_params(run, {"lr": 0.1})
    logger.on_metrics(run, 1, {"loss": 1.0}, 1.0)
    logger.on_log_flush(run)
    logger.on_log_end(run, "interrupted")
    assert status(read(run.dir / "tensorboard")) == api_pb2.STATUS_FAILURE
    run, logger = info(run.state), TensorBoard()
    logger.on_log_start(run)
    logger.on_log_end(run, "completed")
    events = read(run.dir / "tensorboard")
    assert status(events) == api_pb2.STATUS_SUCCESS
    assert len(events.Tensors(metadata.SESSION_START_INFO_TAG)) == 1


@pytest.mark.parametrize("flushes_before", [0, 1])
def test_what_a_killed_process_wrote_and_did_not_note_is_not_doubled(info, read, flushes_before):
    """Killed between the flush and the note of it, its last records are delivered again."""
    run, logger = info(), TensorBoard()
    logger.on_log_start(run)
    records = [(step, {"loss": float(step)}, 1e9 + step) for step in (1, 2)]
    if flushes_before:
        logger.on_metrics(run, *records.pop(0))
        logger.on_log_flush(run)
    noted = info(run.state).state
    for record in records:
        logger.on_metrics(run, *record)
    logger.on_log_flush(run)
    run, logger = info(noted), TensorBoard()
    logger.on_log_start(run)
    for record in records:
        logger.on_metrics(run, *record)
    logger.on_log_flush(run)
    assert read(run.dir / "tensorboard").points() == {"loss": [(1, 1.0), (2, 2.0)]}


def test_parameters_that_were_told_before_a_kill_are_in_the_row(info, read):
    run, logger = info(), TensorBoard()
    logger.on_log_start(run)
    logger.on_params(run, {"lr": 0.1})
    logger.on_log_flush(run)
    run, logger = info(run.state), TensorBoard()
    logger.on_log_start(run)
    logger.on_metrics(run, 1, {"loss": 1.0}, 1.0)
    logger.on_log_end(run, "completed")
    events = read(run.dir / "tensorboard")
    content = events.SummaryMetadata(metadata.SESSION_START_INFO_TAG).plugin_data.content
    assert set(metadata.parse_session_start_info_plugin_data(content).hparams) == {"lr"}


def test_a_row_whose_beginning_was_not_written_begins_again(info, read, monkeypatch):
    run, logger = info(), TensorBoard()
    logger.on_log_start(run)
    logger.on_params(run, {"lr": 0.1})
    logger.on_metrics(run, 1, {"loss": 1.0}, 1.0)
    (run.dir / "tensorboard").rename(run.dir / "away")
    with pytest.raises(FileNotFoundError):
        logger.on_log_flush(run)
    (run.dir / "away").rename(run.dir / "tensorboard")
    logger.on_params(run, {"lr": 0.1})
    logger.on_metrics(run, 1, {"loss": 1.0}, 1.0)
    logger.on_log_end(run, "completed")
    events = read(run.dir / "tensorboard")
    assert events.points() == {"loss": [(1, 1.0)]}
    assert len(events.Tensors(metadata.SESSION_START_INFO_TAG)) == 1


def test_a_replay_asks_for_the_directory_elsewhere_that_the_journal_names(info, read, tmp_path):
    run = info()
    TensorBoard(dir=tmp_path / "logs").on_log_start(run)
    with pytest.raises(PluginError, match=r"went to .*logs.*: -o tensorboard\.dir=.*logs"):
        TensorBoard().on_log_start(info(run.state))
    logger, run = TensorBoard(dir=tmp_path / "logs"), info(run.state)
    logger.on_log_start(run)
    logger.on_metrics(run, 1, {"loss": 1.0}, 1.0)
    logger.on_log_end(run, "completed")
    assert read(tmp_path / "logs" / run.id).points() == {"loss": [(1, 1.0)]}
    assert run.header["tensorboard"] == "tensorboard --logdir logs"


@pytest.mark.parametrize(
    "state",
    [
        {"file": "../../mine.txt", "size": 1},
        {"file": "/etc/passwd", "size": 1},
        {"file": "events.out.tfevents.1.h.1.1", "size": -1},
        {"file": "events.out.tfevents.1.h.1.1", "size": "1"},
        {"begun": 3},
        {"params": []},
    ],
)
def test_a_state_that_it_did_not_write_is_refused(info, state, tmp_path):
    mine = tmp_path / "mine.txt"
    mine.write_text("a text of the user")
    with pytest.raises(PluginError, match="did not write what the journal"):
        TensorBoard().on_log_start(info(state))
    assert mine.read_text() == "a text of the user"


def test_a_link_in_place_of_its_directory_is_refused(info, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    run = info()
    run.dir.mkdir(parents=True, exist_ok=True)
    (run.dir / "tensorboard").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    with pytest.raises(PluginError, match="by a link"):
        TensorBoard().on_log_start(run)
    assert not list((tmp_path / "elsewhere").iterdir())


class Marked(Line):
    """Its values say of which history they are."""

    mark = 0.0

    def training_step(self, batch, run):
        run.log(value=run.global_step + self.mark)
        return super().training_step(batch, run)


def test_a_run_that_goes_back_shows_one_history(batches, read):
    plugins = [Checkpoint(keep_last=9), TensorBoard()]
    first = Trainer(epochs=3, plugins=plugins).fit(Marked(), batches)
    task = Marked()
    task.mark = 100.0
    path = first.dir / "checkpoints" / "step-00000005"
    Trainer(epochs=2, plugins=plugins).fit(task, batches, resume=path)
    points = read(first.dir / "tensorboard").series("train/value")
    assert points == [(n + 1, n) for n in range(5)] + [(n + 1, n + 100) for n in range(5, 10)]


def test_a_run_that_goes_back_and_makes_the_same_again_shows_it_once(batches, read):
    plugins = [Checkpoint(keep_last=9), TensorBoard()]
    first = Trainer(epochs=3, plugins=plugins).fit(Marked(), batches)
    path = first.dir / "checkpoints" / "step-00000005"
    Trainer(epochs=4, plugins=plugins).fit(Marked(), batches, resume=path)
    points = read(first.dir / "tensorboard").series("train/value")
    assert points == [(n + 1, n) for n in range(20)]
