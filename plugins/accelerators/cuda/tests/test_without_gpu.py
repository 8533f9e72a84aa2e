"""Without a GPU it says why, and changes nothing."""

import pytest
import torch

from trainbus import Trainer, UsageError
from trainbus_cuda.device import CudaDevice

pytestmark = pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")


def test_it_says_why(monkeypatch):
    for variable in ("CUDA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES"):
        monkeypatch.delenv(variable, raising=False)
    assert "torch" in CudaDevice().unavailable() or "driver" in CudaDevice().unavailable()


@pytest.mark.skipif(not torch.backends.cuda.is_built(), reason="this torch has no CUDA at all")
@pytest.mark.parametrize("value", ["", "-1"])
def test_gpus_that_the_environment_hides(monkeypatch, value):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", value)
    assert CudaDevice().unavailable() == f"CUDA_VISIBLE_DEVICES={value!r} hides all GPUs"


def test_auto_takes_the_cpu_and_says_why(make_net, batches):
    run = Trainer(plugins=["cuda"]).fit(make_net(), batches)
    reason = CudaDevice().unavailable()
    assert run.header["device"] == f"cpu (auto, the only one; cuda is not available: {reason})"
    assert "cuda" not in run.header


def test_by_name_it_is_an_error_with_the_reason(make_net, batches):
    trainer = Trainer(plugins=["cuda"], accelerator="cuda")
    with pytest.raises(UsageError, match=r"'cuda' is not available: .*\. Available: cpu") as raised:
        trainer.fit(make_net(), batches)
    assert CudaDevice().unavailable() in str(raised.value)


def test_it_changes_nothing(make_net, batches):
    from trainbus_cuda import Cuda

    before = torch.get_float32_matmul_precision(), torch.backends.cudnn.benchmark
    inside, weights = [], []
    for plugins in ([], [Cuda(cudnn_benchmark=True, graphs=True, snapshot=True)]):
        torch.manual_seed(0)
        trainer, task = Trainer(plugins=plugins), make_net()
        trainer.on("fit_start")(
            lambda run: inside.append(
                (torch.get_float32_matmul_precision(), torch.backends.cudnn.benchmark)
            )
        )
        trainer.on("fit_start")(lambda run: inside.append(run.optimizers[0].defaults["fused"]))
        trainer.fit(task, batches)
        weights.append(task.state_dict())
    assert inside == [before, None] * 2
    torch.testing.assert_close(*weights, rtol=0, atol=0)
