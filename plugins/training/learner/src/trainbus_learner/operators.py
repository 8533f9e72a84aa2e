"""Which functions a program may call: those that compute, by their schemas, and no others.

The namespace of an operator says nothing of what it does: `aten.from_file` writes files.
"""

from __future__ import annotations

import re
from typing import Any

import torch


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_NAMESPACES = ("aten", "prims", "torchvision")
_OPERATOR = re.compile(r"torch\.ops\.(aten|prims|torchvision)\.(\w+)\.(\w+)")
#: Functions on sizes.
_SIZES = _words(
    """
    _operator.abs _operator.add _operator.and_ _operator.eq _operator.floordiv _operator.ge
    _operator.getitem _operator.gt _operator.invert _operator.le _operator.lshift _operator.lt
    _operator.mod _operator.mul _operator.ne _operator.neg _operator.not_ _operator.or_
    _operator.pos _operator.pow _operator.rshift _operator.sub _operator.truediv _operator.xor
    math.ceil math.floor math.sqrt math.trunc torch._sym_sqrt torch.sym_float torch.sym_int
    torch.sym_ite torch.sym_max torch.sym_min torch.sym_not torch.sym_sqrt torch.sym_sum
    """
)
#: Operators that hold parts of the program, which are looked at as the rest is.
_PARTS = _words(
    """
    torch.ops.higher_order.associative_scan torch.ops.higher_order.cond
    torch.ops.higher_order.map_impl torch.ops.higher_order.scan
    torch.ops.higher_order.while_loop torch.ops.higher_order.wrap_with_autocast
    torch.ops.higher_order.wrap_with_set_grad_enabled
    """
)
#: Types of arguments and results, in lists or left out too; a `number` is any.
_VALUE = re.compile(r"(Optional\[|List\[)*(Tensor|int|bool|number|float|complex|Device)\]*")
_GENERATOR = ("Generator", "Optional[Generator]")
#: Arguments of text that choose a way to compute; any other may be a name of something.
_CHOICES = _words(
    """
    UPLO activation approximate driver equation indexing interpolation mode norm ord pad_mode
    padding reduce rounding_mode side
    """
)
#: What says nothing back: it looks at tensors, and stops the program.
_ASSERTIONS = _words(
    """
    _assert_async _assert_scalar _assert_tensor_metadata sym_constrain_range
    sym_constrain_range_for_size
    """
)
#: Operators without a name of their own for users, which exported programs have.
_INNER = _words(
    """
    _adaptive_avg_pool2d _adaptive_avg_pool3d _batch_norm_no_update _cdist_forward _conj
    _convolution _embedding_bag _embedding_bag_forward_only _euclidean_dist _fft_c2c _fft_c2r
    _fft_r2c _fused_rms_norm _int_mm _is_all_true _is_any_true _linalg_det _linalg_eigh
    _linalg_slogdet _linalg_solve_ex _linalg_svd _local_scalar_dense _log_softmax
    _native_batch_norm_legit _native_batch_norm_legit_functional
    _native_batch_norm_legit_no_training _native_multi_head_attention _pack_padded_sequence
    _pad_packed_sequence _pdist_forward _prelu_kernel _reshape_alias _safe_softmax
    _scaled_dot_product_attention_math _scaled_dot_product_flash_attention_for_cpu
    _shape_as_tensor _softmax _stack _to_copy _trilinear _unique2 _unsafe_index _unsafe_view
    _upsample_bicubic2d_aa _upsample_bilinear2d_aa _upsample_nearest_exact1d
    _upsample_nearest_exact2d _upsample_nearest_exact3d _weight_norm _weight_norm_interface
    """
)
#: Kernels for one library, those of training, and what changes what a tensor is made of.
_REFUSED = re.compile(
    r"(cudnn|fbgemm|miopen|mkldnn|mps|q|quantized|quantize|dequantize)(_.*)?|.*backward.*"
    r"|.*resize.*|set_?|set_data|shallow_copy_data_|record_stream|retain_grad|requires_grad_|.*seed"
)


def computes(name: str) -> bool:
    """Whether a program may call the function of this name.

    It is an operator of torch whose schema has tensors and numbers alone, no texts but those that
    choose a way to compute, and results; or one of a few functions on sizes.
    """
    if name in _SIZES | _PARTS:
        return True
    match = _OPERATOR.fullmatch(name)
    if match is None:
        return False
    namespace, operator, overload = match.groups()
    packet = getattr(getattr(torch.ops, namespace), operator, None)
    found = getattr(packet, overload, None)
    return isinstance(found, torch._ops.OpOverload) and is_harmless(found._schema)


def is_harmless(schema: Any) -> bool:
    """Whether the operator of a schema has no effect but on tensors; see `computes`."""
    namespace, _, name = schema.name.partition("::")
    overload = schema.overload_name
    if namespace not in _NAMESPACES:
        return False
    if name.startswith("_") and name not in _INNER | _ASSERTIONS:
        return False
    if _REFUSED.fullmatch(name) or "out" in re.split(r"[_\W]", overload):
        return False
    asserts = name in _ASSERTIONS
    for argument in schema.arguments:
        kind = str(argument.type)
        is_text = kind in ("str", "Optional[str]")
        fits = _VALUE.fullmatch(kind) or kind in _GENERATOR
        fits = fits or (is_text and (argument.name in _CHOICES or asserts))
        if not fits:
            return False
    returns = [str(each.type) for each in schema.returns]
    return asserts or (bool(returns) and all(_VALUE.fullmatch(each) for each in returns))
