"""TF32 and cuDNN are set in both ways that torch has, and put back as they were."""

import pytest
import torch

from trainbus_cuda.device import _multiplies_in_tf32
from trainbus_cuda.settings import Settings

BACKENDS = torch.backends


def newer():
    return [
        BACKENDS.cuda.matmul.fp32_precision,
        BACKENDS.cudnn.conv.fp32_precision,
        BACKENDS.cudnn.rnn.fp32_precision,
        BACKENDS.mkldnn.matmul.fp32_precision,
    ]


def older():
    return [
        torch.get_float32_matmul_precision(),
        BACKENDS.cuda.matmul.allow_tf32,
        BACKENDS.cudnn.allow_tf32,
    ]


@pytest.fixture(autouse=True)
def as_before():
    settings = Settings(tf32=False, cudnn_benchmark=False)
    yield
    settings.apply()
    settings.put_back()


@pytest.mark.parametrize("tf32", [True, False])
def test_all_ways_to_read_it_agree(tf32):
    Settings(tf32, cudnn_benchmark=tf32).apply()
    assert older() == ["high" if tf32 else "highest", tf32, tf32]
    assert _multiplies_in_tf32() is tf32
    assert (BACKENDS.cudnn.conv.fp32_precision == "tf32") is tf32
    assert BACKENDS.cudnn.benchmark is tf32


def untouched():
    pass


def older_way():
    torch.set_float32_matmul_precision("medium")
    BACKENDS.cudnn.allow_tf32 = False


def newer_way():
    BACKENDS.cuda.matmul.fp32_precision = "tf32"
    BACKENDS.cudnn.conv.fp32_precision = "ieee"


@pytest.mark.parametrize("user", [untouched, older_way, newer_way])
@pytest.mark.parametrize("tf32", [True, False])
def test_what_the_user_had_is_put_back(user, tf32):
    user()
    before = newer()
    before_older = None if user is newer_way else older()
    benchmark = BACKENDS.cudnn.benchmark
    settings = Settings(tf32, cudnn_benchmark=not benchmark)
    settings.apply()
    assert BACKENDS.cudnn.benchmark is not benchmark
    settings.put_back()
    assert newer() == before
    assert BACKENDS.cudnn.benchmark is benchmark
    if before_older is not None:
        assert older() == before_older
