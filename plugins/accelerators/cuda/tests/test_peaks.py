"""The rates of data sheets, by the names that torch reports."""

import pytest
import torch

from trainbus_cuda.peaks import peak_flops


@pytest.mark.parametrize(
    ("name", "dtype", "tera"),
    [
        ("NVIDIA H100 80GB HBM3", torch.bfloat16, 989),
        ("NVIDIA H100 80GB HBM3", torch.float32, 67),
        ("NVIDIA H100 PCIe", torch.bfloat16, 756),
        ("NVIDIA H100 NVL", torch.float16, 835),
        ("NVIDIA A100-SXM4-40GB", torch.bfloat16, 312),
        ("NVIDIA A100 80GB PCIe", torch.float64, 19.5),
        ("NVIDIA A10", torch.bfloat16, 125),
        ("NVIDIA L40S", torch.bfloat16, 362),
        ("Tesla T4", torch.float16, 65),
        ("Tesla V100-SXM2-16GB", torch.float16, 125),
        ("NVIDIA GeForce RTX 4090", torch.bfloat16, 165.2),
        ("NVIDIA RTX 6000 Ada Generation", torch.float32, 91.1),
        ("AMD Instinct MI300X", torch.bfloat16, 1307.4),
        ("AMD Instinct MI250X / MI250", torch.float16, 191.5),
    ],
)
def test_a_known_gpu(name, dtype, tera):
    assert peak_flops(name, dtype, tf32=False) == pytest.approx(tera * 1e12)


@pytest.mark.parametrize(
    ("name", "dtype"),
    [
        ("NVIDIA A10G", torch.bfloat16),
        ("NVIDIA GeForce RTX 4090 Laptop GPU", torch.bfloat16),
        ("NVIDIA GeForce RTX 3090 Ti", torch.float16),
        ("NVIDIA A100-SXM4-40GB MIG 1g.5gb", torch.bfloat16),
        ("Tesla T4", torch.bfloat16),
        ("NVIDIA L4", torch.float64),
        ("NVIDIA L4", torch.float8_e4m3fn),
    ],
)
def test_what_is_not_known_is_none(name, dtype):
    assert peak_flops(name, dtype, tf32=False) is None


def test_tf32_counts_where_float32_is_multiplied_in_it():
    assert peak_flops("NVIDIA A100-SXM4-80GB", torch.float32, tf32=True) == 156e12
    assert peak_flops("Tesla T4", torch.float32, tf32=True) == 8.1e12
