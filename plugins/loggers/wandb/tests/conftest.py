"""A tiny task, W&B's own environment, a reader of its files, and a server for its client."""

import gzip
import json
import struct
import threading
import time
import zlib
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import wandb
from wandb.proto.wandb_internal_pb2 import Record

from trainbus.testing import make_line_loader
from trainbus.testing.fixtures import clean_environment, own_directory  # noqa: F401

KEY = "0123456789" * 4


clean = clean_environment(
    "WANDB_", scope="module", WANDB_MODE="offline", WANDB_ERROR_REPORTING="false"
)


@pytest.fixture(scope="module", autouse=True)
def own_client(tmp_path_factory, clean):
    """A client that knows nothing of this machine, and writes nothing to its home."""
    home = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HOME", str(home))
        patch.setenv("NETRC", str(home / "netrc"))
        for name in ("DATA", "CACHE", "CONFIG"):
            patch.setenv(f"WANDB_{name}_DIR", str(home / name.lower()))
        wandb.teardown()
        yield
        wandb.teardown()


@pytest.fixture
def environment(monkeypatch):
    """Start the client once more, with these variables of its environment."""

    def change(**variables):
        for name, value in variables.items():
            monkeypatch.setenv(f"WANDB_{name}", value)
        wandb.teardown()

    yield change
    wandb.teardown()


@pytest.fixture(scope="session")
def batches():
    """Five batches of two samples."""
    return list(make_line_loader())


class Reader:
    """All that is in one file of W&B: blocks of 32 KiB of checked parts of records."""

    def __init__(self, path):
        self.path = path
        self.records = list(_records(path.read_bytes()))

    def of(self, kind):
        return [getattr(r, kind) for r in self.records if r.WhichOneof("record_type") == kind]

    @property
    def rows(self):
        """The history; what is nested has a dotted name."""
        return [
            {".".join(i.nested_key) or i.key: json.loads(i.value_json) for i in row.item}
            for row in self.of("history")
        ]

    def series(self, name):
        """Global step and value of each row that has the metric."""
        return [(row["trainer/global_step"], row[name]) for row in self.rows if name in row]

    @property
    def config(self):
        changes = [change for config in self.of("config") for change in config.update]
        return {
            ".".join(each.nested_key) or each.key: json.loads(each.value_json) for each in changes
        }

    @property
    def run(self):
        return self.of("run")[-1]

    @property
    def exit_code(self):
        (end,) = self.of("exit")
        return end.exit_code

    @property
    def files(self):
        """The directory with images, tables and texts."""
        return self.path.parent / "files"


def _records(data):
    assert struct.unpack_from("<4sHB", data) == (b":W&B", 0xBEE1, 0)
    position, whole = 7, b""
    while position + 7 <= len(data):
        if (left := 32768 - position % 32768) < 7:  # no place for the head of a part
            position += left
            continue
        checksum, length, kind = struct.unpack_from("<IHB", data, position)
        part = data[position + 7 : position + 7 + length]
        if len(part) < length:  # the process was killed
            return
        assert zlib.crc32(part, zlib.crc32(bytes([kind]))) == checksum
        position += 7 + length
        first, last = kind in (1, 2), kind in (1, 4)
        whole = part if first else whole + part
        if last:
            record = Record()
            record.ParseFromString(whole)
            yield record


@pytest.fixture(scope="session")
def read():
    """Read what the client wrote under a directory: one reader for each file, oldest first."""

    def files(directory, ended=True):
        paths = sorted(directory.glob("wandb/*run-*/*.wandb"), key=lambda path: path.parent.name)
        deadline = time.monotonic() + 10
        # The client writes the end of a run a moment after it says that the run is finished.
        while ended and not Reader(paths[-1]).of("exit") and time.monotonic() < deadline:
            time.sleep(0.01)
        return [Reader(path) for path in paths]

    return files


class Server:
    """As much of a W&B server as its client needs to send a run."""

    def __init__(self):
        #: What it answers with, and whether it takes rows.
        self.status, self.busy = 200, False
        self.rows, self.exit_codes, self.runs = [], [], []
        handler = type("Handler", (_Handler,), {"server_of_test": self})
        self.http = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self.url = f"http://127.0.0.1:{self.http.server_port}"
        threading.Thread(target=self.http.serve_forever, daemon=True).start()

    def answer(self, query, variables):
        if "Viewer" in query:
            viewer = {"id": "1", "entity": "me", "username": "me", "flags": "{}"}
            return {"viewer": viewer | {"email": "", "teams": {"edges": []}}}
        if "UpsertBucket" in query:
            self.runs.append(variables)
            project = {"id": "3", "name": variables["project"], "entity": {"id": "4", "name": "me"}}
            bucket = {"id": "2", "name": variables["name"], "project": project}
            return {"upsertBucket": {"bucket": bucket, "inserted": True}}
        if "RunResumeStatus" in query and self.rows:
            tail = json.dumps([json.dumps(self.rows[-1])])
            bucket = {"id": "2", "name": variables["name"], "historyLineCount": len(self.rows)}
            bucket |= {"eventsLineCount": 0, "logLineCount": 0, "eventsTail": "[]", "config": "{}"}
            bucket |= {"historyTail": tail, "summaryMetrics": "{}", "wandbConfig": '{"t": 1}'}
            return {"model": {"bucket": bucket}}
        if "CreateRunFiles" in query:
            files = [
                {"name": name, "uploadUrl": f"{self.url}/upload"} for name in variables["files"]
            ]
            return {"createRunFiles": {"runID": "2", "uploadHeaders": [], "files": files}}
        return {}

    def take(self, stream):
        """Rows of the history, and how the run ended."""
        for line in stream.get("files", {}).get("wandb-history.jsonl", {}).get("content", []):
            self.rows.append(json.loads(line))
        if stream.get("complete"):
            self.exit_codes.append(stream["exitcode"])


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_of_test: Server

    def do_POST(self):
        server, answer = self.server_of_test, {}
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.headers.get("Content-Encoding") == "gzip":
            body = gzip.decompress(body)
        status = server.status
        if status == 401:
            answer = {"errors": [{"message": "user is not logged in"}]}
        elif self.path == "/graphql":
            query = json.loads(body)
            name = query.get("operationName") or query["query"]
            answer = {"data": server.answer(name, query.get("variables") or {})}
        elif self.path.endswith("/file_stream"):
            if server.busy:
                status = 503
            else:
                server.take(json.loads(body))
        data = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    do_GET = do_PUT = do_POST

    def log_message(self, *_arguments):
        pass


@pytest.fixture
def server(environment):
    """A server, and a client that has a key for it."""
    server = Server()
    environment(BASE_URL=server.url, API_KEY=KEY, MODE="online")
    yield server
    wandb.teardown()
    server.http.shutdown()
    server.http.server_close()
