"""What Trackio's dashboard answers."""

import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from contextlib import contextmanager

import torch

from trainbus import Trainer
from trainbus.testing import Line
from trainbus_trackio import Trackio

SHOW = "import sys; from trackio.cli import main; sys.argv = ['trackio', *sys.argv[1:]]; main()"


@contextmanager
def shown(project, log):
    """The URL of `trackio show`."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with log.open("w") as output:
        server = subprocess.Popen(
            [sys.executable, "-c", SHOW, "show", "--project", project, "--host", "127.0.0.1"],
            stdout=output, stderr=output, env=os.environ | {"GRADIO_SERVER_PORT": str(port)},
        )  # fmt: skip
        try:
            yield f"http://127.0.0.1:{port}"
        finally:
            server.terminate()
            server.wait(10)


def get(url, body=None):
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"Content-Type": "application/json"})
    deadline = time.monotonic() + 60
    while True:
        try:
            with opener.open(request, timeout=10) as answer:
                return answer.read()
        except urllib.error.HTTPError:
            raise
        except (urllib.error.URLError, ConnectionError):
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)


def test_the_dashboard_shows_the_run(batches, project, place, tmp_path):
    trainer = Trainer(plugins=[Trackio(project, group="all")])

    @trainer.on("train_epoch_end")
    def show(run):
        run.log_artifact("a picture", torch.zeros(3, 4, 6), "image")

    run = trainer.fit(Line(lr=0.1), batches)
    with shown(project, tmp_path / "server.log") as url:

        def ask(name, **arguments):
            return json.loads(get(f"{url}/api/{name}", {"project": project, **arguments}))["data"]

        (listed,) = ask("get_runs_for_project")
        assert listed["name"] == run.dir.name
        config = ask("get_run_configs")[listed["id"]]
        assert (config["lr"], config["_Group"]) == (0.1, "all")
        logs = ask("get_logs", run=run.dir.name)
        assert [row["step"] for row in logs if "train/loss" in row] == [1, 2, 3, 4, 5]
        (picture,) = (row["a picture"] for row in logs if "a picture" in row)
        path = urllib.parse.quote(str(place / "media" / picture["file_path"]))
        assert get(f"{url}/file?path={path}").startswith(b"\x89PNG")
