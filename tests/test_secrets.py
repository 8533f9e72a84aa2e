"""Keys, tokens and passwords: known by names, places and shapes, and hidden everywhere."""

import argparse
import json
import sqlite3
import subprocess
import sys
from collections import UserList, deque, namedtuple
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import pytest

from trainbus import Trainer, hookimpl
from trainbus.secrets import HIDDEN, hide, hide_secrets_of, is_secret
from trainbus.testing import Line, make_line_loader


@pytest.mark.parametrize(
    "name",
    [
        "api_key", "apiKey", "API_KEY", "APIKey", "x-api-key", "apikey", "token", "hfToken",
        "hf_token", "authtoken", "AUTH_TOKEN_2", "clientSecret", "client_secret", "password",
        "dbPassword", "userpassword", "passwd", "pwd", "passphrase", "bearer", "Authorization",
        "credentials", "secrets", "aws.secret_access_key", "private-key", "session_cookie",
        "jwt", "githubPat", "password_of_the_database", "api_keys", "accessTokens", "passwords",
        "api_key_v2", "token_old", "HF_TOKEN_PROD",
    ],
)  # fmt: skip
def test_a_secret_is_known_by_its_name(name):
    assert is_secret(name)


@pytest.mark.parametrize(
    "name",
    [
        "lr", "tokens", "max_tokens", "tokenizer", "token_ids", "keys", "keyboard", "monkey",
        "pad_token", "eosToken", "mask_token", "key_size", "path", "author", "compass", "spin",
        "patience", "bypass", "hidden", "signal", 3, None, "label_key", "sort_key", "eot_token",
        "group_keys", "image_token", "test", "v2",
    ],
)  # fmt: skip
def test_other_names_are_no_secrets(name):
    assert not is_secret(name)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("https://me:SECRET@host/x", "https://me:***@host/x"),
        ("postgres+psycopg2://me:SECRET@host", "postgres+psycopg2://me:***@host"),
        ("https://host/?token=SECRET&page=2", "https://host/?token=***&page=2"),
        ("https://host/a?page=2&X-Amz-Signature=SECRET", "https://host/a?page=2&X-Amz-Signature=***"),
        ("Authorization: Bearer SECRET1", "Authorization: Bearer ***"),
        ("sent with Bearer SECRETSECRET", "sent with Bearer ***"),
        ('{"api_key": "SECRET", "lr": 0.1}', '{"api_key": "***", "lr": 0.1}'),
        ("{'password': 'SECRET'}", "{'password': '***'}"),
        ("apiToken=SECRET lr=0.1", "apiToken=*** lr=0.1"),
        ("cannot use hf_abcdefghijklmnopqrstu", "cannot use ***"),
        ("ghp_0123456789abcdefghij is refused", "*** is refused"),
        ("unexpected token: else", "unexpected token: else"),
        ("no key: label", "no key: label"),
        ("https://host:8080/x is down", "https://host:8080/x is down"),
        ("lr=0.1, epochs: 3", "lr=0.1, epochs: 3"),
        ("password='two words'", "password='***'"),
        ('{"secret": "a b, c"}', '{"secret": "***"}'),
        ("https://me:P@SS/WORD@host/x", "https://me:***@host/x"),
        ("https://host:8080/@me and https://host:80", "https://host:8080/@me and https://host:80"),
        ("-----BEGIN PRIVATE KEY-----\nSECRET\n-----END PRIVATE KEY-----\nx", "***\nx"),
        ("-----BEGIN RSA PRIVATE KEY-----\nSECRET", "***"),
    ],
)  # fmt: skip
def test_a_secret_is_known_by_its_place_and_its_shape(text, shown):
    assert hide(text) == shown


def test_values_inside_of_values_are_hidden_and_the_rest_is_as_it_was():
    given = {"lr": 0.1, "db": {"password": "abc", "port": 5432}, "all": [{"apiKey": "x"}, ("a", 1)]}
    assert hide(given) == {
        "lr": 0.1, "db": {"password": HIDDEN, "port": 5432}, "all": [{"apiKey": HIDDEN}, ("a", 1)],
    }  # fmt: skip
    assert given["db"]["password"] == "abc"


@dataclass
class Login:
    user: str
    password: str


Pair = namedtuple("Pair", ["user", "token"])


@pytest.mark.parametrize(
    "value",
    [
        Login("me", "SECRET"), Pair("me", "SECRET"), argparse.Namespace(user="me", token="SECRET"),
        SimpleNamespace(user="me", token="SECRET"), [Login("me", "SECRET")],
        {"https://me:SECRET@host"}, frozenset({"token=SECRET"}), b"token=SECRET",
    ],
)  # fmt: skip
def test_a_secret_is_found_in_records_of_any_kind(value):
    assert "SECRET" not in str(hide({"it": value}))


def test_a_variable_that_is_set_later_is_hidden_too(monkeypatch):
    assert hide("with open-1-sesame") == "with open-1-sesame"
    monkeypatch.setenv("MY_SERVICE_TOKEN", "open-1-sesame")
    assert hide("with open-1-sesame") == f"with {HIDDEN}"


def test_a_word_is_hidden_where_it_is_named_and_nowhere_else():
    assert hide({"my_key": "timestamp"}) == {"my_key": HIDDEN}
    assert hide("no column timestamp") == "no column timestamp"


def test_switches_and_fractions_are_no_secrets():
    assert hide({"token": True, "key": 0.5, "secret": None}) == {
        "token": True, "key": 0.5, "secret": None,
    }  # fmt: skip


def test_a_secret_of_pydantic_is_hidden_under_any_name():
    from pydantic import SecretStr

    assert hide({"login": SecretStr("sesame-open-1")}) == {"login": HIDDEN}
    assert hide("tried sesame-open-1") == f"tried {HIDDEN}"


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        (["--token", "SECRET"], ["--token", HIDDEN]),
        (["--api-key=SECRET"], [f"--api-key={HIDDEN}"]),
        (["--apiToken=SECRET"], [f"--apiToken={HIDDEN}"]),
        (["wandb.api_key=SECRET"], [f"wandb.api_key={HIDDEN}"]),
        (["https://me:SECRET@host"], [f"https://me:{HIDDEN}@host"]),
        (["https://host/?token=SECRET"], [f"https://host/?token={HIDDEN}"]),
        (["-H", "Authorization: Bearer SECRET"], ["-H", f"Authorization: Bearer {HIDDEN}"]),
        (["--cfg", '{"api_key": "SECRET"}'], ["--cfg", f'{{"api_key": "{HIDDEN}"}}']),
        (["train.py", "--lr", "0.1"], ["train.py", "--lr", "0.1"]),
    ],
)  # fmt: skip
def test_command_lines(given, shown):
    assert hide_secrets_of(given) == shown


class Logger:
    """Keeps what it gets."""

    def __init__(self):
        self.got = []

    @hookimpl
    def on_log_start(self, run):
        self.got.append(run.header)

    @hookimpl
    def on_params(self, params):
        self.got.append(dict(params))

    @hookimpl
    def on_tags(self, tags):
        self.got.append(dict(tags))


def test_none_is_written_or_sent_wherever_it_comes_from(monkeypatch):
    """In hyper-parameters, tags, the header, the reason of a stop, an exception, errors."""
    monkeypatch.setattr("sys.argv", ["train.py", "--hub-token", "MYSECRET-1"])

    class Net(Line):
        def training_step(self, batch, run):
            run.log_params({"apiKey": "MYSECRET-2", "db": "postgres://me:MYSECRET-3@host"})
            run.log_tags({"hub_token": "MYSECRET-4", "note": "with MYSECRET-2"})
            run.errors.append("cannot reach https://host?key=MYSECRET-5")
            raise RuntimeError("refused: MYSECRET-1 and https://me:MYSECRET-6@host")

    logger = Logger()
    trainer = Trainer(plugins=[logger])
    trainer.on("fit_start")(lambda run: run.header.update(link="https://host?token=MYSECRET-7"))
    runs = []
    trainer.on("run_start")(lambda run: runs.append(run))
    with pytest.raises(RuntimeError):
        trainer.fit(Net(), make_line_loader(2))
    directory = runs[0].dir
    journal = "".join(sqlite3.connect(directory / "journal.db").iterdump())
    written = (directory / "run.json").read_text()
    assert "MYSECRET" not in journal + written + str(logger.got)
    assert json.loads(written)["header"]["link"] == "https://host?token=***"
    assert "refused: ***" in journal


@pytest.mark.parametrize("name", ["run.json", "journal.db"])
def test_what_a_run_keeps_is_its_owners(name):
    run = Trainer().fit(Line(), make_line_loader(2))
    assert (run.dir / name).stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(
    "part", ["x", "ACGT", "a:", "a.", "_-", "://:@", "token='", "-----BEGIN PRIVATE KEY-----"]
)
def test_a_long_text_is_read_once(part):
    """In a child, since a search that goes back and forth listens to no signal."""
    script = "import sys; from trainbus.secrets import hide; hide(sys.stdin.read())"
    subprocess.run(
        [sys.executable, "-c", script], input=part * 100_000, text=True, timeout=60, check=True
    )


def test_what_holds_itself_is_let_be():
    value = {"token": "abc"}
    value["itself"] = value
    assert hide(value)["token"] == HIDDEN


class Listing(list):
    """A list of somebody's."""


SECRET = "s3cr3t-4f9d2c7b1a"


def deep(levels):
    value = {"api_key": SECRET}
    for _ in range(levels):
        value = {"d": value}
    return value


@pytest.mark.parametrize(
    "value",
    [
        deep(60),
        Listing([{"api_key": SECRET}]),
        deque([{"password": SECRET}]),
        UserList([{"password": SECRET}]),
        {"a": {"api_key": SECRET}}.values(),
        {f"https://me:{SECRET}@host/x": 1},
        Path(f"/a?token={SECRET}"),
        ValueError(f"token={SECRET}"),
        bytearray(f"token={SECRET}".encode()),
        f'{{"password": "ab\\"{SECRET}"}}',
        f"Authorization: Digest {SECRET}",
        f"Authorization: ApiKey {SECRET}",
        f"Proxy-Authorization: Negotiate {SECRET}",
        "npm_0123456789abcdefABCDEF",
    ],
    ids=lambda value: type(value).__name__,
)
def test_it_is_hidden_in_whatever_is_written(value):
    hidden = str(hide(value))
    assert SECRET not in hidden
    assert "npm_0123" not in hidden


def test_what_is_inside_of_a_secret_is_remembered():
    inside = "r3m3mb3r-7d1c9e"
    hide({"api_keys": [inside]})
    assert hide(f"again {inside}") == "again ***"
