"""What becomes of parameters, tags and artifacts."""

from io import BytesIO

import numpy
import pytest
import torch
from matplotlib.figure import Figure
from PIL import Image
from tensorboard.plugins.hparams import api_pb2, metadata

from trainbus import Trainer
from trainbus.testing import Line
from trainbus_tensorboard import TensorBoard


@pytest.fixture
def log(batches, read):
    """Fit for two steps with one call on the run in between; returns what can be read back."""

    def fit(call, **hparams):
        trainer = Trainer(plugins=[TensorBoard()], max_steps=2)
        trainer.on("train_batch_end", once=True)(call)
        run = trainer.fit(Line(**hparams), batches)
        assert run.errors == []
        return read(run.dir / "tensorboard")

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
    events = log(
        lambda run: None,
        lr=0.1, layers=2, bias=True, name="größe", size=(3, 4), limit=None, start=float("nan"),
        many=10**400, path="\udcff", optimizer={"betas": {"first": 0.5}},
    )  # fmt: skip
    hparams = {
        name: getattr(v, v.WhichOneof("kind")) for name, v in started(events).hparams.items()
    }
    assert hparams == {
        "lr": 0.1, "layers": 2.0, "bias": True, "name": "größe", "size": "[3, 4]", "limit": "None",
        "start": "nan", "many": str(10**400), "path": "?", "optimizer.betas.first": 0.5,
    }  # fmt: skip
    assert hparams["bias"] is True


def test_parameters_are_a_text(log):
    events = log(lambda run: None, lr=0.1, note="a|b\nc")
    assert events.text("params") == [
        "| name | value |\n| --- | --- |\n| lr | 0.1 |\n| note | a\\|b c |"
    ]


def test_ten_thousand_parameters_are_in_the_row(log):
    events = log(lambda run: None, **{f"p{i}": i for i in range(10_000)})
    assert len(started(events).hparams) == 10_000


def test_parameters_told_before_the_first_metric_are_in_the_row(batches, read):
    model = torch.nn.Linear(4, 1)
    trainer = Trainer(plugins=[TensorBoard()])
    with trainer.open(model, torch.optim.SGD(model.parameters(), lr=0.1)) as run:
        run.log_params({"lr": 0.1})
        run.log_params({"batch": 2})
        for batch in run.batches(batches, epochs=1):
            loss = model(batch[0]).square().mean()
            run.log(loss=loss)
            run.step(loss)
    events = read(run.dir / "tensorboard")
    assert set(started(events).hparams) == {"lr", "batch"}
    assert "| batch | 2 |" in events.text("params")[-1]


def test_parameters_without_any_metric_are_in_the_row(batches, read):
    class Silent(Line):
        def training_step(self, batch, run):
            return self(batch[0]).mean()

    run = Trainer(plugins=[TensorBoard()]).fit(Silent(lr=0.1), batches)
    assert set(started(read(run.dir / "tensorboard")).hparams) == {"lr"}


def test_the_row_says_how_the_run_ended(log):
    assert ended(log(lambda run: None, lr=0.1)).status == api_pb2.STATUS_SUCCESS


def test_the_row_of_a_failed_run_says_so(batches, read):
    trainer = Trainer(plugins=[TensorBoard()])
    paths = []

    @trainer.on("train_batch_end")
    def fail(run):
        paths.append(run.dir / "tensorboard")
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        trainer.fit(Line(lr=0.1), batches)
    events = read(paths[0])
    assert ended(events).status == api_pb2.STATUS_FAILURE
    assert [step for step, _ in events.series("train/loss")] == [1]


def test_a_run_without_parameters_has_no_hparams_row(log):
    events = log(lambda run: None)
    assert [name for name in events.Tags()["tensors"] if "hparams" in name] == []


def test_tags_are_a_text(log):
    events = log(lambda run: run.log_tags({"team": "vision", "größe": "日本"}))
    assert events.text("tags") == [
        "| name | value |\n| --- | --- |\n| team | vision |\n| größe | 日本 |"
    ]


# --- artifacts -----------------------------------------------------------------------------------


def test_a_figure_is_an_image_of_its_size(log):
    figure = Figure(figsize=(2, 1), dpi=50)
    figure.subplots().plot([1, 2])
    (event,) = log(lambda run: run.log_artifact("größe/curve", figure, "figure")).Images(
        "größe/curve"
    )
    assert (event.step, event.width, event.height) == (1, 100, 50)
    assert pixels(event).std() > 0


@pytest.mark.parametrize(
    "image",
    [
        pytest.param(torch.randint(256, (3, 2, 5), dtype=torch.uint8), id="tensor"),
        pytest.param(torch.randint(256, (1, 2, 5), dtype=torch.uint8), id="gray tensor"),
        pytest.param(Image.new("RGBA", (5, 2), (9, 8, 7, 6)), id="PIL"),
        pytest.param(Image.new("P", (5, 2), 9), id="palette PIL"),
    ],
)
def test_an_image_is_kept_as_it_is(log, image):
    (event,) = log(lambda run: run.log_artifact("image", image, "image")).Images("image")
    assert (event.width, event.height) == (5, 2)
    if isinstance(image, torch.Tensor):
        assert pixels(event).reshape(2, 5, -1).transpose(2, 0, 1).tolist() == image.tolist()
    else:
        shown = Image.open(BytesIO(event.encoded_image_string))
        assert shown.convert("RGBA").tobytes() == image.convert("RGBA").tobytes()


def test_a_text_is_kept_as_markdown(log):
    events = log(lambda run: run.log_artifact("my notes", "# Größe\n*fine*", "text"))
    assert events.text("my notes") == ["# Größe\n*fine*"]
    assert events.Tensors("my notes/text_summary")[0].step == 1


def test_a_table_is_a_text_with_all_its_columns(log):
    rows = [{"class": "a|b", "f1": 0.5}, {"class": "c", "support": 3}]
    events = log(lambda run: run.log_artifact("per class", rows, "table"))
    assert events.text("per class")[0].splitlines() == [
        "| class | f1 | support |",
        "| --- | --- | --- |",
        "| a\\|b | 0.5 |  |",
        "| c |  | 3 |",
    ]


def test_an_empty_table_says_so(log):
    events = log(lambda run: run.log_artifact("per class", [], "table"))
    assert events.text("per class") == ["(no rows)"]


@pytest.mark.parametrize("kind", ["file", "model"])
def test_a_file_is_named_with_its_size(log, tmp_path, kind):
    path = tmp_path / "weights.pt"
    path.write_bytes(bytes(1234))
    events = log(lambda run: run.log_artifact("weights", path, kind))
    assert events.text("weights") == [f"`{path}` (1,234 bytes)"]


def test_a_directory_is_named(log, tmp_path):
    path = tmp_path / "export"
    path.mkdir()
    events = log(lambda run: run.log_artifact("export", path, "model"))
    assert events.text("export") == [f"`{path}` (a directory)"]


def test_figure_table_and_text_of_one_name_do_not_hide_each_other(log):
    def give(run):
        run.log_artifact("confusion", torch.zeros(3, 2, 2), "image")
        run.log_artifact("confusion", [{"a": 1}], "table")

    events = log(give)
    assert len(events.Images("confusion")) == len(events.text("confusion")) == 1
