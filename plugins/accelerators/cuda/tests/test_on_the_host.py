"""What the GPU is given, decided without one."""

from dataclasses import dataclass, field

import pytest
import torch
from torch import nn
from torch.optim import SGD, Adam

from trainbus_cuda.fusing import fuse, with_sparse_gradients
from trainbus_cuda.prefetch import Ahead, Copy, _moved, pinned
from trainbus_cuda.settings import Settings


@pytest.mark.parametrize(
    "tensor",
    [
        torch.ones(4, 1).expand(4, 3),
        torch.arange(100.0).reshape(10, 10)[:, ::5],
        torch.ones(2, 3, 4, 4).to(memory_format=torch.channels_last),
        torch.tensor(1.0),
        torch.ones(0, 3),
    ],
    ids=["expanded", "slice", "channels last", "scalar", "empty"],
)
def test_what_is_pinned_is_dense(tensor):
    found = pinned(tensor, pin=False)
    assert torch.equal(found, tensor)
    assert 0 not in found.stride() or not found.numel()
    assert found.untyped_storage().nbytes() == found.numel() * found.element_size()


def test_channels_stay_last():
    images = torch.ones(2, 3, 4, 4).to(memory_format=torch.channels_last)
    assert pinned(images, pin=False).is_contiguous(memory_format=torch.channels_last)


@dataclass
class Counted:
    """A record that makes a tensor of its own."""

    x: torch.Tensor
    size: torch.Tensor = field(init=False)

    def __post_init__(self):
        self.size = torch.tensor(len(self.x))


def test_only_what_was_made_on_the_stream_is_kept_for_it(monkeypatch):
    monkeypatch.setattr("trainbus_cuda.prefetch.pinned", lambda tensor: tensor)
    batch, made = _moved(Counted(torch.ones(4)), torch.device("meta"))
    assert batch.x.device.type == "meta"
    assert all(tensor.device.type == "meta" for tensor in made)


class Side:
    """Copies at once."""

    def begin(self, batch):
        return Copy(batch, None)

    def hand_over(self, sent):
        return sent.batch


def test_a_loader_that_fails_loses_no_batch():
    def fails():
        yield 1
        yield 2
        raise OSError("gone")

    loader = iter(Ahead(fails(), Side()))
    assert [next(loader), next(loader)] == [1, 2]
    with pytest.raises(OSError, match="gone"):
        next(loader)


@pytest.mark.parametrize("number", [0, 1, 2, 5])
def test_each_batch_comes_once(number):
    assert list(Ahead(range(number), Side())) == list(range(number))


def test_sparse_gradients_are_left_to_the_usual_kernels():
    model = nn.Sequential(nn.Embedding(10, 3, sparse=True), nn.Linear(3, 1))
    optimizer = SGD(model.parameters(), lr=0.1)
    assert not fuse(optimizer, "cpu", with_sparse_gradients(model))
    model(torch.tensor([1, 2])).sum().backward()
    optimizer.step()


def test_moments_are_laid_out_as_their_weights():
    model = nn.Conv2d(3, 4, 3).to(memory_format=torch.channels_last)
    optimizer = Adam(model.parameters())
    model(torch.ones(1, 3, 5, 5)).sum().backward()
    optimizer.step()
    state = optimizer.state[model.weight]
    state["exp_avg"] = state["exp_avg"].contiguous().clone(memory_format=torch.contiguous_format)
    value = state["exp_avg"].clone()
    assert fuse(optimizer, "cpu")
    assert state["exp_avg"].stride() == model.weight.stride()
    assert torch.equal(state["exp_avg"], value)


def test_tf32_is_off_also_where_the_whole_had_it_on():
    def precisions():
        torch.get_float32_matmul_precision()  # which torch refuses where both ways are mixed
        backends = torch.backends
        return [each.fp32_precision for each in (backends, backends.cudnn, backends.mkldnn.matmul)]

    before, own = torch.backends.fp32_precision, precisions()
    torch.backends.fp32_precision = "tf32"
    try:
        settings = Settings(tf32=False, cudnn_benchmark=False)
        settings.apply()
        assert torch.backends.cudnn.conv.fp32_precision != "tf32"
        assert not torch.backends.cudnn.allow_tf32
        settings.put_back()
        assert torch.backends.fp32_precision == "tf32"
    finally:
        torch.backends.fp32_precision = before
    assert precisions() == own, "what is inherited stays so"
