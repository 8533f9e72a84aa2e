"""What TensorBoard's own server answers."""

import json
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from contextlib import contextmanager

import pytest
import torch

from trainbus import Trainer
from trainbus.testing import Line
from trainbus_tensorboard import TensorBoard


@contextmanager
def served(logdir):
    """A function that asks a TensorBoard on `logdir`."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))

    def ask(path, query=None, body=None):
        url = f"http://127.0.0.1:{port}/data/{path}?{urllib.parse.urlencode(query or {})}"
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(url, data, {"Content-Type": "application/json"})
        with opener.open(request, timeout=10) as answer:
            return json.load(answer)

    command = [sys.executable, "-m", "tensorboard.main", "--logdir", str(logdir)]
    with (logdir / "server.log").open("w") as output:
        server = subprocess.Popen(
            [*command, "--host", "127.0.0.1", "--port", str(port)], stdout=output, stderr=output
        )
        try:
            yield ask
        finally:
            server.terminate()
            server.wait(10)


def wait_for(condition, seconds=60):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            if answer := condition():
                return answer
        except (urllib.error.URLError, ConnectionError):
            pass
        time.sleep(0.1)
    raise TimeoutError


def test_scalars_images_texts_and_the_hparams_page_are_served(batches):
    trainer = Trainer(plugins=[TensorBoard()])

    @trainer.on("train_epoch_end")
    def show(run):
        run.log_artifact("a picture", torch.zeros(3, 4, 6), "image")
        run.log_artifact("a text", "it is *fine*", "text")

    task = Line(width=4, name="größe")
    first = trainer.fit(task, batches, batches)
    trainer.test(task, batches)
    second = trainer.fit(Line(width=8, depth=2), batches)
    run = f"{first.dir.name}/tensorboard"
    last = {f"{run.dir.name}/tensorboard": run.metrics for run in (first, second)}
    with served(first.dir.parent) as ask:
        tags = wait_for(lambda: len(found := ask("plugin/scalars/tags")) == 3 and found)
        assert set(tags[run]) == {"train/loss", "train/loss_epoch", "valid/loss"}
        points = ask("plugin/scalars/scalars", {"run": run, "tag": "train/loss"})
        assert [step for _, step, _ in points] == [1, 2, 3, 4, 5]
        (image,) = ask("plugin/images/images", {"run": run, "tag": "a picture", "sample": 0})
        assert image["step"] == 5
        (text,) = ask("plugin/text/text", {"run": run, "tag": "a text/text_summary"})
        assert "it is <em>fine</em>" in text["text"]
        experiment = ask("plugin/hparams/experiment", body={"includeMetrics": True})
        columns = {info["name"] for info in experiment["hparamInfos"]}
        assert columns == {"width", "name", "depth"}
        statuses = ["STATUS_SUCCESS", "STATUS_FAILURE", "STATUS_RUNNING", "STATUS_UNKNOWN"]
        page = {"startIndex": 0, "sliceSize": 10, "allowedStatuses": statuses}
        rows = ask("plugin/hparams/session_groups", body=page)["sessionGroups"]
    assert len(rows) == 3
    for row in rows:
        values = {each["name"]["tag"]: each["value"] for each in row["metricValues"]}
        assert row["hparams"]["width"] in (4, 8)
        if row["name"] in last:
            assert values == pytest.approx(last[row["name"]], rel=1e-6)
        else:
            assert set(values) == {"test/loss"}
