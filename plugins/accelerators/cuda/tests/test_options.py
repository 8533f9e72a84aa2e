"""Options that contradict the run are refused before its first step."""

import pytest

from trainbus import PluginError, Trainer, UsageError
from trainbus_cuda import Cuda


def test_choosing_by_the_clock_is_not_deterministic(make_net, batches):
    trainer = Trainer(plugins=[Cuda(cudnn_benchmark=True)], deterministic=True)
    with pytest.raises(UsageError, match=r"plugin 'cuda' \(trainbus-cuda\): cudnn_benchmark=True"):
        trainer.fit(make_net(), batches)


def test_graphs_cannot_gather_gradients(make_net, batches):
    trainer = Trainer(plugins=[Cuda(graphs=True)], accumulate=4)
    with pytest.raises(UsageError, match="those of 4 batches cannot be gathered"):
        trainer.fit(make_net(), batches)


def test_a_wrong_type_names_the_option(monkeypatch):
    monkeypatch.setenv("TRAINBUS_CUDA_TF32", "perhaps")
    with pytest.raises(PluginError, match="TRAINBUS_CUDA_TF32"):
        Trainer(plugins=["cuda"])
