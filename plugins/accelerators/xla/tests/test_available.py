"""When the accelerator is there, and what it says when it is not."""

from importlib.util import find_spec

import pytest
import torch

from trainbus import PluginError, Trainer, UsageError
from trainbus.plugins.options import Given, build
from trainbus_xla import XLA
from trainbus_xla.tpus import peak_flops

without_stacks = pytest.mark.skipif(
    find_spec("torch_xla") is not None or find_spec("torch_tpu") is not None,
    reason="one of the stacks is installed",
)


def why_not(**options):
    return XLA(**options).provide_accelerator().unavailable()


@without_stacks
def test_without_a_stack_the_lines_that_install_one_are_named():
    reason = why_not()
    assert "neither torch_tpu nor torch_xla is installed" in reason
    assert "pip install torch_tpu (torch 2.11 to 2.15)" in reason
    assert "pip install torch==2.9.0 'torch_xla[tpu]==2.9.0'" in reason


@without_stacks
def test_asking_for_it_by_name_stops_the_run_with_the_reason(make_task, make_loader):
    with pytest.raises(UsageError, match="accelerator='xla' is not available: neither torch_tpu"):
        Trainer(plugins=["xla"], accelerator="xla").fit(make_task(), make_loader())


@without_stacks
def test_auto_passes_it_over_and_says_why(make_task, make_loader):
    run = Trainer(plugins=["xla"], max_steps=1).fit(make_task(), make_loader())
    assert run.accelerator.name != "xla"
    assert any("xla is not available: neither" in text for text in run.header.values())


def test_torch_tpu_without_a_tpu_says_so(installed, monkeypatch):
    monkeypatch.delenv("TORCH_DEVICE_BACKEND_AUTOLOAD", raising=False)
    installed("torch_tpu", "0.2.0")
    assert why_not() == "torch_tpu 0.2.0 is installed, but finds no TPU on this machine"


def test_torch_tpu_that_torch_was_told_not_to_load_says_so(installed, monkeypatch):
    monkeypatch.setenv("TORCH_DEVICE_BACKEND_AUTOLOAD", "0")
    installed("torch_tpu", "0.2.0")
    assert "TORCH_DEVICE_BACKEND_AUTOLOAD=0 keeps torch from loading it; unset it" in why_not()


def test_torch_tpu_comes_before_torch_xla(installed):
    installed("torch_tpu", "0.2.0")
    installed_too = XLA().provide_accelerator()
    assert type(installed_too).__name__ == "TorchTPU"


def test_sharding_is_refused_with_torch_tpu(installed):
    installed("torch_tpu", "0.2.0")
    assert "spmd=true is an option for torch_xla" in why_not(spmd=True)


@pytest.mark.skipif(find_spec("torch_tpu") is not None, reason="torch_tpu is installed")
def test_torch_xla_for_another_torch_names_both(installed):
    installed("torch_xla", "2.4.0")
    reason = why_not()
    assert f"torch_xla 2.4.0 is for torch 2.4, and this is torch {torch.__version__}" in reason
    assert "pip install torch_tpu" in reason


def test_an_unknown_option_names_those_there_are():
    with pytest.raises(PluginError, match=r"no option 'smpd'.*It has spmd"):
        build("xla", XLA, {"smpd": Given(True, "trainbus.toml")})


def test_an_option_of_the_wrong_type_is_refused():
    with pytest.raises(PluginError, match="spmd"):
        build("xla", XLA, {"spmd": Given("many", "trainbus.toml")})


@pytest.mark.parametrize(
    ("name", "tera"),
    [
        ("TPU v4", 275),
        ("TPU v5 lite", 197),
        ("TPU v5e", 197),
        ("TPU v5", 459),
        ("TPU v5p", 459),
        ("TPU v6 lite", 918),
        ("TPU v6e", 918),
        ("TPU7x", 1153.5),
        ("TPU v7", 1153.5),
    ],
)
def test_the_peak_of_a_tpu_is_that_of_its_generation(name, tera):
    assert peak_flops(name, torch.bfloat16) == tera * 1e12


def test_what_is_not_known_has_no_peak():
    assert peak_flops("CPU", torch.bfloat16) is None
    assert peak_flops("TPU v4 lite", torch.bfloat16) is None
    assert peak_flops("TPU v4", torch.float32) is None
