"""What a device leaves behind, and what another one makes of it; nothing here needs one."""

import pytest
import torch

from trainbus import Accelerator, Task, Trainer
from trainbus.builtin import Clip
from trainbus.devices import random_state
from trainbus.engine.choice import choose

CPU = torch.device("cpu")


def test_the_random_state_of_another_device_is_left_and_told(caplog):
    random_state._tell_of_another_device.cache_clear()
    state = {**random_state.take(CPU), "device": torch.zeros(16), "device_type": "cuda"}
    torch.rand(3)
    random_state.put_back(state, CPU)
    assert torch.equal(torch.get_rng_state(), state["torch"])
    assert "the random state of cuda is of no use on cpu" in caplog.text


@pytest.mark.parametrize(
    "text",
    [
        "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`",
        "cuDNN error: CUDNN_STATUS_ALLOC_FAILED",
        "miopenStatusAllocFailed",
    ],
)
def test_libraries_that_find_the_memory_full_are_understood(text):
    assert Accelerator().is_out_of_memory(RuntimeError(text))


def test_who_asks_for_the_cpu_wakes_no_other_device():
    class Asleep(Accelerator):
        name = "asleep"

        def unavailable(self):
            raise AssertionError("woken")

    found, why = choose("cpu", [Asleep()])
    assert (found.name, why) == ("cpu", "asked for by name")


def test_the_device_of_before_is_used_again_after_a_run(monkeypatch):
    indices = [0]
    monkeypatch.setattr(torch.accelerator, "current_device_index", lambda: indices[-1])
    monkeypatch.setattr(torch.accelerator, "set_device_index", indices.append)

    class Two(Accelerator):
        def unavailable(self):
            return None

        def device_count(self):
            return 2

    accelerator = Two("cuda")
    accelerator.select(1)
    assert (indices, accelerator.device) == ([0, 1], torch.device("cuda", 1))
    accelerator.deselect()
    accelerator.deselect()
    assert indices == [0, 1, 0]


def test_a_deterministic_run_chooses_no_algorithm_by_the_clock():
    seen = []
    torch.backends.cudnn.benchmark = True
    try:
        task = Task.supervised(torch.nn.Linear(2, 1), torch.nn.functional.mse_loss)
        trainer = Trainer(deterministic=True)
        trainer.on("fit_start")(lambda: seen.append(torch.backends.cudnn.benchmark))
        trainer.fit(task, [(torch.ones(2, 2), torch.ones(2, 1))])
        assert seen == [False]
        assert torch.backends.cudnn.benchmark
    finally:
        torch.backends.cudnn.benchmark = False


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_large_gradients_of_16_bits_are_clipped_and_not_lost(dtype):
    class Large(Task):
        def __init__(self):
            super().__init__()
            self.weight = torch.nn.Parameter(torch.zeros(10_000, dtype=dtype))

        def training_step(self, batch, run):
            return (self.weight * 1000).sum()

        def configure_optimizer(self):
            return torch.optim.SGD(self.parameters(), lr=1.0)

    task = Large()
    Trainer(plugins=[Clip(1.0)]).fit(task, [torch.zeros(1)])
    assert torch.allclose(task.weight.float(), torch.tensor(-0.01), rtol=0.02)
