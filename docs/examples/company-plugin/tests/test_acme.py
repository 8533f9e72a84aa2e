import json
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from trainbus import Trainer
from trainbus.testing import MemoryLog, TinyTask, conformance, make_loader

TestConformance = conformance("acme", team="vision")


@pytest.fixture
def server():
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            body = self.rfile.read(int(self.headers["Content-Length"]))
            served.messages.append(json.loads(body)["text"])
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_):
            pass

    served = HTTPServer(("127.0.0.1", 0), Handler)
    served.messages = []
    threading.Thread(target=served.serve_forever, daemon=True).start()
    yield served
    served.shutdown()
    served.server_close()


def test_a_failed_run_has_tags_and_sends_a_message(server, tmp_path):
    from acme_trainbus import Acme

    log = MemoryLog()
    acme = Acme("vision", "4711", f"http://127.0.0.1:{server.server_port}")
    trainer = Trainer(plugins=[acme, log], run_dir=tmp_path)

    @trainer.on("after_loss")
    def fail(run):
        if run.global_step == 2:
            raise RuntimeError("no more shards")

    with pytest.raises(RuntimeError):
        trainer.fit(TinyTask(), make_loader(batches=4))
    assert log.tags["cost_center"] == "4711"
    assert server.messages == ["TinyTask of vision failed at step 2: no more shards"]


def test_a_webhook_that_is_down_costs_a_warning_and_no_run(tmp_path):
    from acme_trainbus import Acme

    trainer = Trainer(plugins=[Acme("vision", webhook="http://127.0.0.1:9")], run_dir=tmp_path)
    trainer.on("after_loss")(lambda run: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        trainer.fit(TinyTask(), make_loader(batches=1))
