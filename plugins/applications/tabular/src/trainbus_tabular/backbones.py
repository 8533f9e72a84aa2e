"""Networks behind the embeddings, each from vectors to outputs."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from trainbus_tabular.embeddings import LinearNumbers


def perceptron(inputs: int, width: int, blocks: int, dropout: float) -> nn.Sequential:
    """Blocks of a linear layer, ReLU and dropout: the MLP of Gorishniy et al. (2021)."""
    layers: list[nn.Module] = []
    for block in range(blocks):
        layers += [nn.Linear(width if block else inputs, width), nn.ReLU(), nn.Dropout(dropout)]
    return nn.Sequential(*layers)


class ResidualBlocks(nn.Module):
    """The ResNet of Gorishniy et al. ("Revisiting deep learning models for tabular data", 2021)."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        width: int = 192,
        blocks: int = 2,
        factor: float = 2.0,
        dropout: float = 0.25,
    ) -> None:
        super().__init__()
        hidden = int(width * factor)
        self.input = nn.Linear(inputs, width)
        self.blocks = nn.ModuleList(
            nn.Sequential(
                nn.BatchNorm1d(width), nn.Linear(width, hidden), nn.ReLU(), nn.Dropout(dropout),
                nn.Linear(hidden, width), nn.Identity(),
            )
            for _ in range(blocks)
        )  # fmt: skip
        self.output = nn.Sequential(nn.BatchNorm1d(width), nn.ReLU(), nn.Linear(width, outputs))

    def forward(self, values: Tensor) -> Tensor:
        """Rows x inputs -> rows x outputs."""
        values = self.input(values)
        for block in self.blocks:
            values = values + block(values)
        made: Tensor = self.output(values)
        return made


class MemberLinear(nn.Module):
    """A linear layer for each member: rows x members x a -> rows x members x b."""

    without_decay = ("bias",)

    def __init__(self, members: int, inputs: int, outputs: int) -> None:
        super().__init__()
        bound = inputs**-0.5
        self.weight = nn.Parameter(torch.empty(members, inputs, outputs).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.empty(members, outputs).uniform_(-bound, bound))

    def forward(self, values: Tensor) -> Tensor:
        """Each member by its layer."""
        return (values.transpose(0, 1) @ self.weight).transpose(0, 1) + self.bias


class MiniEnsemble(nn.Module):
    """TabM-mini (Gorishniy et al., "TabM", 2024): one MLP that sees `members` scalings of a row.

    Gives rows x members x outputs. The loss is the mean over the losses of the members, and the
    prediction the mean of theirs.

    Args:
        chunks: the sizes of what the columns are as vectors; a scaling begins equal in each.
        outputs: of a member.
        members: how many.
        width, blocks, dropout: of the MLP.
        signs: scalings begin at 1 and -1, and not drawn from a normal distribution: for numbers
            without embeddings.
    """

    without_decay = ("scales",)

    def __init__(
        self,
        chunks: Sequence[int],
        outputs: int,
        members: int = 8,
        width: int = 256,
        blocks: int = 2,
        dropout: float = 0.1,
        signs: bool = False,
    ) -> None:
        super().__init__()
        drawn = torch.randn(members, len(chunks))
        drawn = drawn.sign() if signs else drawn
        self.scales = nn.Parameter(drawn.repeat_interleave(torch.tensor(chunks), dim=1))
        self.body = perceptron(sum(chunks), width, blocks, dropout)
        self.output = MemberLinear(members, width, outputs)

    def forward(self, values: Tensor) -> Tensor:
        """Rows x inputs -> rows x members x outputs."""
        made: Tensor = self.output(self.body(values.unsqueeze(1) * self.scales))
        return made


class _Attention(nn.Module):
    """Attention with several heads, and dropout of its weights."""

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.query, self.key, self.value, self.out = (nn.Linear(width, width) for _ in range(4))
        for each in (self.query, self.key, self.value, self.out):
            nn.init.zeros_(each.bias)
        self.heads, self.dropout = heads, dropout

    def forward(self, asking: Tensor, given: Tensor) -> Tensor:
        """Rows x tokens x width, for the tokens that ask."""
        parts = (self.query(asking), self.key(given), self.value(given))
        split = (each.unflatten(-1, (self.heads, -1)).transpose(1, 2) for each in parts)
        dropout = self.dropout if self.training else 0.0
        seen = functional.scaled_dot_product_attention(*split, dropout_p=dropout)
        made: Tensor = self.out(seen.transpose(1, 2).flatten(-2))
        return made


class _TransformerBlock(nn.Module):
    """Attention, and a network of two layers with ReGLU; norms stand before, but not the first."""

    def __init__(
        self, width: int, heads: int, attention: float, dropout: float, first: bool
    ) -> None:
        super().__init__()
        hidden = int(width * 4 / 3)
        self.before = nn.Identity() if first else nn.LayerNorm(width)
        self.attention = _Attention(width, heads, attention)
        self.norm = nn.LayerNorm(width)
        self.wide, self.narrow = nn.Linear(width, 2 * hidden), nn.Linear(hidden, width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, tokens: Tensor, last: bool) -> Tensor:
        """All tokens, or of the last block that of the row alone."""
        normed = self.before(tokens)
        asking = normed[:, :1] if last else normed
        tokens = (tokens[:, :1] if last else tokens) + self.attention(asking, normed)
        values, gates = self.wide(self.norm(tokens)).chunk(2, -1)
        return tokens + self.narrow(self.dropout(values * gates.relu()))


class Transformer(nn.Module):
    """FT-Transformer (Gorishniy et al., 2021), with the authors' defaults.

    Each column is a token, and the token of the row gathers what is predicted from.

    Args:
        numbers: columns of numbers.
        cardinalities: codes of each column of categories.
        outputs: how many.
        width, heads, blocks: of the blocks.
        attention, dropout: dropout of the attention and of the network behind it.
    """

    first: Tensor
    without_decay = ("row", "shift")

    def __init__(
        self,
        numbers: int,
        cardinalities: Sequence[int],
        outputs: int,
        width: int = 192,
        heads: int = 8,
        blocks: int = 3,
        attention: float = 0.2,
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        bound = width**-0.5
        self.row = nn.Parameter(torch.empty(width).uniform_(-bound, bound))
        self.numbers = LinearNumbers(numbers, width) if numbers else None
        self.table = nn.Embedding(sum(cardinalities), width) if cardinalities else None
        self.shift: nn.Parameter | None = None
        if self.table is not None:
            nn.init.uniform_(self.table.weight, -bound, bound)
            self.shift = nn.Parameter(torch.empty(len(cardinalities), width))
            nn.init.uniform_(self.shift, -bound, bound)
            # The tokenizer gets no decay (the authors' make_parameter_groups).
            self.table.without_decay = ("weight",)  # type: ignore[assignment]
        sizes = torch.tensor(list(cardinalities), dtype=torch.long)
        self.register_buffer("first", sizes.cumsum(0) - sizes, persistent=False)
        self.blocks = nn.ModuleList(
            _TransformerBlock(width, heads, attention, dropout, first=not block)
            for block in range(blocks)
        )
        self.output = nn.Sequential(nn.LayerNorm(width), nn.ReLU(), nn.Linear(width, outputs))

    def forward(self, numbers: Tensor, codes: Tensor) -> Tensor:
        """Numbers and codes -> rows x outputs."""
        tokens = [self.row.expand(numbers.shape[0], 1, -1)]
        if self.numbers is not None:
            tokens.append(self.numbers(numbers))
        if self.table is not None:
            tokens.append(self.table(codes + self.first) + self.shift)
        values = torch.cat(tokens, 1)
        for place, block in enumerate(self.blocks, 1):
            values = block(values, last=place == len(self.blocks))
        made: Tensor = self.output(values[:, 0])
        return made


#: How much faster than the weights RealMLP learns scales, and how much slower biases and
#: activations. What is learned is kept divided by it: for Adam that is such a learning rate.
_SCALE_PACE, _SLOW_PACE = 6.0, 0.1


class _ScaledLinear(nn.Module):
    """A linear layer as the tangent kernel has it: x W / sqrt(inputs) + b."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(inputs, outputs))
        self.bias = nn.Parameter(torch.randn(outputs) / _SLOW_PACE)
        self.factor = 1 / math.sqrt(inputs)

    def forward(self, values: Tensor) -> Tensor:
        """Rows x inputs -> rows x outputs."""
        return torch.addmm(self.bias, values, self.weight, beta=_SLOW_PACE, alpha=self.factor)


class _Parametric(nn.Module):
    """An activation f with a learned weight a for each value: x + a (f(x) - x)."""

    def __init__(self, width: int, smooth: bool) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width) / _SLOW_PACE)
        self.smooth = smooth

    def forward(self, values: Tensor) -> Tensor:
        """The values, each by its own activation: Mish for numbers, SELU for classes."""
        made = functional.mish(values) if self.smooth else functional.selu(values)
        return values + (made - values) * (self.weight * _SLOW_PACE)


class RealPerceptron(nn.Module):
    """The network of RealMLP-TD (Holzmüller et al., "Better by default", 2024).

    A learned scale for each input, three layers of 256 in the parametrization of the tangent
    kernel, parametric activations and dropout. The authors fit the first weights and biases to the
    data; here they are drawn from a normal distribution.

    Args:
        inputs: of all vectors.
        outputs: how many.
        smooth: Mish, as for numbers, and not SELU, as for classes.
        width, blocks, dropout: of the layers.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        smooth: bool,
        width: int = 256,
        blocks: int = 3,
        dropout: float = 0.15,
    ) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(inputs) / _SCALE_PACE)
        layers: list[nn.Module] = []
        for block in range(blocks):
            layers += [
                _ScaledLinear(width if block else inputs, width),
                _Parametric(width, smooth),
                nn.Dropout(dropout),
            ]
        self.layers = nn.Sequential(*layers, _ScaledLinear(width, outputs))

    def forward(self, values: Tensor) -> Tensor:
        """Rows x inputs -> rows x outputs."""
        made: Tensor = self.layers(values * (self.scale * _SCALE_PACE))
        return made
