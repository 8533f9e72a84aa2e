"""MLflow's own server: over HTTP, refused, cut off, and killed in the middle of a run."""

import http.server
import json
import math
import socket
import threading
import time
import urllib.request
from contextlib import contextmanager

import pytest
import torch

from trainbus import PluginError, RecordRejected, Trainer
from trainbus.builtin.journal import Journal
from trainbus.testing import Line
from trainbus_mlflow import MLflow, names


@pytest.fixture
def experiment(request):
    """An experiment of this test's own."""
    return request.node.name


def only_run(server, experiment, read):
    """The one run of an experiment."""
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=server.uri)
    found = client.get_experiment_by_name(experiment)
    (run,) = client.search_runs([found.experiment_id])
    return read(server.uri, run.info.run_id)


def test_a_whole_run_over_http(batches, read, server, experiment, tmp_path, capsys):
    trainer = Trainer(plugins=[MLflow(server.uri, experiment)])
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "weights.bin").write_bytes(bytes(100))

    @trainer.on("train_epoch_end")
    def log(run):
        run.log({"a(b)": math.nan, "größe": math.inf})
        run.log_artifact("curves/größe", torch.ones(3, 2, 2), "image")
        run.log_artifact("my model", tmp_path / "model", "model")
        run.log_artifact("rows", [{"a": 1.5}], "table")
        run.log_tags({"team": "vision"})

    run = trainer.fit(Line(width=4, long="x" * 10_000), batches, batches)
    assert run.errors == []
    assert "View run" not in capsys.readouterr().out  # the header says it
    remote = only_run(server, experiment, read)
    assert [step for step, _ in remote.series("train/loss")] == [1, 2, 3, 4, 5]
    assert math.isnan(remote.series(names.name("train/a(b)"))[0][1])
    assert remote.series("train/größe")[0][1] == 1.7976931348623157e308
    assert remote.params == {"width": "4", "long": "x" * 5997 + "..."}
    assert remote.tags["team"] == "vision"
    assert remote.info.status == "FINISHED"
    assert remote.files() == [
        "curves/größe/step-00000005.png",
        "my model/step-00000005/weights.bin",
        "rows/step-00000005.json",
    ]
    assert json.loads(remote.load("rows/step-00000005.json"))["data"] == [[1.5]]
    page = f"{server.uri}/#/experiments/{remote.info.experiment_id}/runs/{remote.id}"
    assert run.header["mlflow"] == page
    with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(page) as answer:
        assert b"MLflow" in answer.read()


def test_one_number_that_the_server_refuses_costs_only_itself(begun, read, server, experiment):
    case = begun(server.uri, experiment=experiment)
    for step in range(100):
        case.plugin.on_metrics(case.run, step, {"good": step}, 1e9 + step)
    case.plugin.on_metrics(case.run, 1, {"bad": 1.0}, -5.0)
    with pytest.raises(RecordRejected, match="metrics 'bad': "):
        case.plugin.on_log_flush(case.run)
    case.plugin.on_log_flush(case.run)  # it is forgotten
    remote = only_run(server, experiment, read)
    assert remote.names == ["good"]
    assert len(remote.series("good")) == 100


@pytest.mark.slow
def test_a_file_of_100_mb(begun, read, server, experiment, tmp_path):
    from trainbus import Artifact

    case = begun(server.uri, experiment=experiment)
    with (tmp_path / "big.bin").open("wb") as file:
        file.truncate(100_000_000)
    case.plugin.on_artifact(case.run, Artifact("big", "file", tmp_path / "big.bin", 1))
    remote = only_run(server, experiment, read)
    (entry,) = remote.client.list_artifacts(remote.id, "big/step-00000001")
    assert entry.file_size == 100_000_000


# --- a server that refuses, or is away -----------------------------------------------------------


@pytest.fixture(params=[401, 403, 503])
def refusing(request):
    """A server that answers every request with one status."""

    class Refuse(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_error(request.param)

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Refuse)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}", request.param
    server.shutdown()
    server.server_close()


def test_a_server_that_refuses_stops_the_run_before_its_first_step(batches, refusing):
    uri, status = refusing
    started = time.monotonic()
    with pytest.raises(PluginError) as caught:
        Trainer(plugins=[MLflow(uri.replace("//", "//me:secret@"))]).fit(Line(), batches)
    assert time.monotonic() - started < 10
    message = str(caught.value)
    if status == 503:
        assert f"{uri} cannot be reached (too many 503 error responses)" in message
    else:
        assert f"{uri} refuses these credentials ({status})" in message
        assert "export MLFLOW_TRACKING_USERNAME=... MLFLOW_TRACKING_PASSWORD=..." in message
    assert "secret" not in message


@contextmanager
def gate(port):
    """A way to a port that can be closed and opened: `gate.open`."""
    listener = socket.create_server(("127.0.0.1", 0))
    gate.open, gate.port, links = False, listener.getsockname()[1], []

    def copy(source, target):
        try:
            while gate.open and (data := source.recv(65536)):
                target.sendall(data)
        except OSError:
            pass
        source.close()
        target.close()

    def serve():
        while True:
            try:
                near, _ = listener.accept()
            except OSError:
                return
            if not gate.open:
                near.close()
                continue
            far = socket.create_connection(("127.0.0.1", port))
            links.extend([near, far])
            for pair in ((near, far), (far, near)):
                threading.Thread(target=copy, args=pair, daemon=True).start()

    threading.Thread(target=serve, daemon=True).start()
    yield gate
    listener.close()
    for link in links:
        link.close()


def test_a_server_that_comes_after_the_start_gets_all(batches, read, server, experiment):
    with gate(server.port) as way:
        uri = f"http://127.0.0.1:{way.port}"
        plugin = MLflow(uri, experiment, offline_fallback=True)
        trainer = Trainer(plugins=[plugin])

        @trainer.on("train_batch_end")
        def open_it(run):
            if run.global_step == 3:
                time.sleep(0.7)  # some deliveries fail
                way.open = True

        run = trainer.fit(Line(width=4), batches)
    assert run.header["mlflow"].startswith(f"offline: {uri} cannot be reached")
    assert run.errors == []
    remote = only_run(server, experiment, read)
    assert [step for step, _ in remote.series("train/loss")] == [1, 2, 3, 4, 5]
    assert remote.params["width"] == "4"
    assert remote.info.status == "FINISHED"


@pytest.mark.slow
def test_a_server_that_is_killed_and_started_again_has_every_metric_once(batches, read, own_server):
    """SIGKILL while metrics are sent, several seconds without a server, the same database."""
    trainer = Trainer(plugins=[MLflow(own_server.uri, "killed"), Journal(seconds=0.1)])
    told = {}

    @trainer.on("metrics")
    def listen(step, metrics):
        for name, value in metrics.items():
            told.setdefault(name, []).append((step, value))

    @trainer.on("train_batch_end")
    def disturb(run):
        run.log({f"m{i}": run.global_step + i for i in range(100)})
        time.sleep(0.02)
        if run.global_step == 100:
            own_server.kill()
        if run.global_step == 200:
            time.sleep(1)
            own_server.start()

    run = trainer.fit(Line(width=4), batches * 60)
    own_server.wait()
    assert run.errors == []
    assert run.global_step == 300
    remote = only_run(own_server, "killed", read)
    assert set(remote.names) == set(told)
    assert {name: remote.series(name) for name in remote.names} == told
    assert remote.info.status == "FINISHED"
    assert remote.params["width"] == "4"
