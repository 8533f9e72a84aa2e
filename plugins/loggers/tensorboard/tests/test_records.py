"""What becomes of parameters, tags and artifacts."""

from io import BytesIO

import numpy
import pytest
import torch
from matplotlib.figure import Figure
from PIL import Image
from tensorboard.plugins.hparams import api_pb2, metadata

from trainbus import Trainer
from trainbus_tensorboard import TensorBoard


@pytest.fixture
def log(make_line, batches, read):
    """Fit for two steps with one call on the run in between; returns what can be read back."""

    def fit(call, **hparams):
        trainer = Trainer(plugins=[TensorBoard()], max_steps=2)
        trainer.on("train_batch_end", once=True)(call)
        run = trainer.fit(make_line(**hparams), batches)
        return run, read(run.dir / "tensorboard")

    return fit


def pixels(event):
    return numpy.asarray(Image.open(BytesIO(event.encoded_image_string)))


def started(events):
    content = events.SummaryMetadata(metadata.SESSION_START_INFO_TAG).plugin_data.content
    return metadata.parse_session_start_info_plugin_data(content)


def ended(events):
    content = events.SummaryMetadata(metadata.SESSION_END_INFO_TAG).plugin_data.content
    return metadata.parse_session_end_info_plugin_data(content)


# --- parameters and tags -------------------------------------------------------------------------


def test_parameters_keep_their_types_in_the_hparams_row(log):
    _, events = log(
        lambda run: None,
        lr=0.1, layers=2, bias=True, name="größe", size=(3, 4), limit=None, start=float("nan"),
        seen=torch.tensor(5), optimizer={"betas": {"first": numpy.float32(0.5)}},
    )  # fmt: skip
    hparams = {
        name: getattr(v, v.WhichOneof("kind")) for name, v in started(events).hparams.items()
    }
    assert hparams == {
        "lr": 0.1, "layers": 2.0, "bias": True, "name": "größe", "size": "(3, 4)", "limit": "None",
        "start": "nan", "seen": 5.0, "optimizer.betas.first": 0.5,
    }  # fmt: skip
    assert hparams["bias"] is True


def test_parameters_are_on_the_disk_before_the_first_step(make_line, batches, read):
    trainer = Trainer(plugins=[TensorBoard(flush_secs=3600)])
    seen = []

    @trainer.on("train_epoch_start")
    def look(run):
        seen.extend(read(run.dir / "tensorboard").text("params"))

    trainer.fit(make_line(lr=0.1, note="a|b\nc"), batches)
    assert seen == ["| name | value |\n| --- | --- |\n| lr | 0.1 |\n| note | a\\|b c |"]


def test_parameters_told_later_are_on_the_disk_at_once(log, read):
    seen = []

    def tell(run):
        run.log_artifact("takes long to write", "x" * 1_000_000, "text")
        run.log_params({"lr": 0.1})
        seen.extend(read(run.dir / "tensorboard").text("params"))

    log(tell)
    assert seen == ["| name | value |\n| --- | --- |\n| lr | 0.1 |"]


def test_a_run_in_progress_has_its_hparams_row(make_line, batches, read):
    trainer = Trainer(epochs=2, plugins=[TensorBoard()])
    seen = []

    @trainer.on("exception")
    def look(run):
        seen.append(read(run.dir / "tensorboard"))

    @trainer.on("epoch_end")
    def interrupt(run):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        trainer.fit(make_line(lr=0.1), batches)
    assert started(seen[0]).hparams["lr"].number_value == 0.1


def test_parameters_told_before_the_first_metric_are_in_the_row(batches, read):
    model = torch.nn.Linear(4, 1)
    trainer = Trainer(plugins=[TensorBoard()])
    with trainer.open(model, torch.optim.SGD(model.parameters(), lr=0.1)) as run:
        run.log_params({"lr": 0.1})
        run.log_params({"batch": 2})
        for batch in run.batches(batches, epochs=1):
            loss = model(batch).square().mean()
            run.log(loss=loss)
            run.step(loss)
    events = read(run.dir / "tensorboard")
    assert set(started(events).hparams) == {"lr", "batch"}
    assert "| batch | 2 |" in events.text("params")[-1]


def test_parameters_without_any_metric_are_in_the_row(make_line, batches, read):
    class Silent(make_line):
        def training_step(self, batch, run):
            return self.linear(batch).mean()

    run = Trainer(plugins=[TensorBoard()]).fit(Silent(lr=0.1), batches)
    assert set(started(read(run.dir / "tensorboard")).hparams) == {"lr"}


def test_the_row_says_how_the_run_ended(log):
    _, good = log(lambda run: None, lr=0.1)
    assert ended(good).status == api_pb2.STATUS_SUCCESS


def test_the_row_of_a_failed_run_says_so(make_line, batches, read):
    trainer = Trainer(plugins=[TensorBoard()])
    paths = []

    @trainer.on("train_batch_end")
    def fail(run):
        paths.append(run.dir / "tensorboard")
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        trainer.fit(make_line(lr=0.1), batches)
    assert ended(read(paths[0])).status == api_pb2.STATUS_FAILURE


def test_a_run_without_parameters_has_no_hparams_row(log):
    _, events = log(lambda run: None)
    assert [name for name in events.Tags()["tensors"] if "hparams" in name] == []


def test_tags_are_a_text(log):
    _, events = log(lambda run: run.log_tags({"team": "vision", "größe": "日本"}))
    assert events.text("tags") == [
        "| name | value |\n| --- | --- |\n| team | vision |\n| größe | 日本 |"
    ]


# --- artifacts -----------------------------------------------------------------------------------


def test_a_figure_is_an_image_and_stays_as_it_is(log):
    figure = Figure(figsize=(2, 1), dpi=50)
    figure.subplots().plot([1, 2])
    canvas = figure.canvas
    _, events = log(lambda run: run.log_artifact("curve of größe", figure, "figure"))
    (event,) = events.Images("curve of größe")
    assert (event.step, event.width, event.height) == (1, 100, 50)
    assert pixels(event).std() > 0
    assert figure.canvas is canvas


FLOATS = torch.tensor([[[0.0, 1.0, 0.5], [2.0, -1.0, float("nan")]]])
BYTES = [[0, 255, 128], [255, 0, 0]]


@pytest.mark.parametrize(
    ("image", "shown"),
    [
        pytest.param(FLOATS.expand(3, 2, 3), [BYTES] * 3, id="floats"),
        pytest.param(FLOATS.half().requires_grad_(), [BYTES] * 3, id="one channel of halves"),
        pytest.param(torch.tensor([BYTES] * 3).byte(), [BYTES] * 3, id="bytes"),
        pytest.param(torch.tensor([BYTES] * 4).byte(), [BYTES] * 4, id="four channels"),
        pytest.param(FLOATS > 0.6, [[[0, 255, 0], [255, 0, 0]]] * 3, id="truth values"),
        pytest.param(Image.new("RGB", (2, 1), (9, 8, 7)), [[[9, 9]], [[8, 8]], [[7, 7]]], id="PIL"),
        pytest.param(Image.new("L", (2, 1), 9), [[[9, 9]]] * 3, id="gray PIL"),
        pytest.param(Image.new("LA", (1, 1), (9, 5)), [[[9]], [[9]], [[9]], [[5]]], id="alpha PIL"),
    ],
)
def test_an_image_of_each_kind_is_shown_as_it_is(log, image, shown):
    run, events = log(lambda run: run.log_artifact("image", image, "image"))
    assert run.errors == []
    (event,) = events.Images("image")
    assert pixels(event).transpose(2, 0, 1).tolist() == shown


@pytest.mark.parametrize(
    ("kind", "value", "reason"),
    [
        ("image", torch.zeros(2, 3), "shape (2, 3)"),
        ("image", torch.zeros(8, 3, 4, 4), "shape (8, 3, 4, 4)"),
        ("image", torch.zeros(3, 4, 4, dtype=torch.int64), "torch.int64"),
        ("image", torch.zeros(3, 0, 4), "without pixels"),
        ("image", "seven.png", "neither a tensor nor a PIL image"),
        ("figure", "seven.png", "savefig"),
        ("table", [1, 2], "not iterable"),
    ],
)
def test_an_artifact_that_cannot_be_shown_costs_only_itself(log, kind, value, reason, caplog):
    run, events = log(lambda run: run.log_artifact("broken one", value, kind))
    (error,) = run.errors
    assert error.startswith(f"tensorboard: {kind} 'broken one' is left out: ")
    assert reason in error
    assert error in caplog.text
    assert [step for step, _ in events.series("train/loss")] == [1, 2]


def test_a_text_is_kept_as_markdown(log):
    _, events = log(lambda run: run.log_artifact("my notes", "# Größe\n*fine*", "text"))
    assert events.text("my notes") == ["# Größe\n*fine*"]
    assert events.Tensors("my notes/text_summary")[0].step == 1


def test_a_table_is_a_text_with_all_its_columns(log):
    rows = [{"class": "a|b", "f1": 0.5}, {"class": "c", "support": 3}]
    _, events = log(lambda run: run.log_artifact("per class", rows, "table"))
    assert events.text("per class")[0].splitlines() == [
        "| class | f1 | support |",
        "| --- | --- | --- |",
        "| a\\|b | 0.5 |  |",
        "| c |  | 3 |",
    ]


def test_an_empty_table_says_so(log):
    _, events = log(lambda run: run.log_artifact("per class", [], "table"))
    assert events.text("per class") == ["(no rows)"]


@pytest.mark.parametrize("kind", ["file", "model"])
def test_a_file_is_named_with_its_size(log, tmp_path, kind):
    path = tmp_path / "weights.pt"
    path.write_bytes(bytes(1234))
    _, events = log(lambda run: run.log_artifact("weights", path, kind))
    assert events.text("weights") == [f"`{path}` (1,234 bytes)"]


def test_a_directory_is_named(log, tmp_path):
    _, events = log(lambda run: run.log_artifact("export", tmp_path, "model"))
    assert events.text("export") == [f"`{tmp_path}` (a directory)"]
