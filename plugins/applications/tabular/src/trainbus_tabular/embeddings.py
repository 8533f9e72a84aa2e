"""What a network sees of numbers and of categories: embeddings of each."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

#: Categories of up to so many codes are zeros and ones, those of more get vectors of this size
#: (Holzmüller et al., 2024, whose numbers were found on many data sets).
ONE_HOT, EMBEDDED = 9, 8


def _uniform(shape: Sequence[int], fan_in: int) -> nn.Parameter:
    bound = fan_in**-0.5
    return nn.Parameter(torch.empty(*shape).uniform_(-bound, bound))


class LinearNumbers(nn.Module):
    """A line in `width` dimensions for each number: rows x columns -> rows x columns x width."""

    #: These are no matrices: see `trainbus_learner.groups`.
    without_decay = ("weight", "bias")

    def __init__(self, columns: int, width: int) -> None:
        super().__init__()
        self.weight = _uniform((columns, width), width)
        self.bias = _uniform((columns, width), width)

    def forward(self, numbers: Tensor) -> Tensor:
        """The vectors."""
        return torch.addcmul(self.bias, self.weight, numbers.unsqueeze(-1))


class LinearEach(nn.Module):
    """A linear layer of its own for each column: rows x columns x a -> rows x columns x b."""

    def __init__(self, columns: int, inputs: int, outputs: int, bias: bool = True) -> None:
        super().__init__()
        self.weight = _uniform((columns, inputs, outputs), inputs)
        self.bias = _uniform((columns, outputs), inputs) if bias else None

    @property
    def without_decay(self) -> tuple[str, ...]:
        """The bias has two dimensions, and is one still."""
        return () if self.bias is None else ("bias",)

    def forward(self, values: Tensor) -> Tensor:
        """Each column by its layer."""
        made = (values.transpose(0, 1) @ self.weight).transpose(0, 1)
        return made if self.bias is None else made + self.bias


class PiecewiseLinear(nn.Module):
    """Numbers as a sum of ramps, one for each piece between two edges.

    A value is the vector [1, ..., 1, how far it is in its piece, 0, ..., 0], and a linear layer for
    each column makes a vector of `width` of it (Gorishniy et al., "On embeddings for numerical
    features in tabular deep learning", 2022); as in "TabM" (2024, version B there) a plain line is
    added, and the ramps begin at zero. There is no bound at the ends: the first and the last piece
    go on.

    Args:
        pieces: of each column.
        width: of a vector.
    """

    weight: Tensor
    bias: Tensor
    low: Tensor
    high: Tensor

    def __init__(self, pieces: Sequence[int], width: int) -> None:
        super().__init__()
        self.pieces = tuple(pieces)
        shape = (len(pieces), max(pieces))
        for name in ("weight", "bias", "low", "high"):
            self.register_buffer(name, torch.zeros(shape))
        self.line = LinearNumbers(len(pieces), width)
        self.linear = LinearEach(len(pieces), max(pieces), width, bias=False)
        nn.init.zeros_(self.linear.weight)

    @torch.no_grad()
    def take(self, bins: Sequence[Tensor]) -> PiecewiseLinear:
        """Take the edges of each column; the last piece of each is at the end of its row."""
        self.high.fill_(1.0)
        for row, edges in enumerate(bins):
            slope = 1 / edges.diff()
            shift = -edges[:-1] * slope
            for buffer, values in ((self.weight, slope), (self.bias, shift)):
                buffer[row, : len(slope) - 1] = values[:-1]
                buffer[row, -1] = values[-1]
            first = 0 if len(slope) > 1 else -1
            self.low[row, first] = -torch.inf
            self.high[row, -1] = torch.inf
        return self

    def ramps(self, numbers: Tensor) -> Tensor:
        """Rows x columns x pieces."""
        ramps = torch.addcmul(self.bias, self.weight, numbers.unsqueeze(-1))
        return ramps.clamp(self.low, self.high)

    def forward(self, numbers: Tensor) -> Tensor:
        """Rows x columns x width."""
        made: Tensor = self.line(numbers) + self.linear(self.ramps(numbers))
        return made


class Periodic(nn.Module):
    """Numbers as cosines and sines of learned frequencies, a linear layer, and ReLU.

    "PLR" of Gorishniy et al. (2022), with a layer for each column.

    Args:
        columns: of numbers.
        width: of a vector.
        frequencies: of a column.
        scale: the deviation of the frequencies at first; what has to fit the data.
    """

    without_decay = ("weight",)

    def __init__(
        self, columns: int, width: int = 24, frequencies: int = 48, scale: float = 0.1
    ) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(columns, frequencies))
        nn.init.trunc_normal_(self.weight, 0.0, scale, a=-3 * scale, b=3 * scale)
        self.linear = LinearEach(columns, 2 * frequencies, width)

    def forward(self, numbers: Tensor) -> Tensor:
        """Rows x columns x width."""
        turns = 2 * math.pi * self.weight * numbers.unsqueeze(-1)
        made: Tensor = self.linear(torch.cat([turns.cos(), turns.sin()], -1))
        return made.relu()


class PeriodicBias(nn.Module):
    """ "PBLD" of RealMLP (Holzmüller et al., 2024): cosines with phases, a line, and the number.

    What is learned is kept divided by `pace`, which for Adam is a learning rate that many times as
    great: the authors' is a tenth.

    Args:
        columns: of numbers.
        frequencies: of a column.
        width: of a vector, the number itself among it.
        scale: the deviation of the frequencies at first.
        pace: by what the learning rate is multiplied.
    """

    without_decay = ("weight", "phase")

    def __init__(
        self,
        columns: int,
        frequencies: int = 16,
        width: int = 4,
        scale: float = 0.1,
        pace: float = 0.1,
    ) -> None:
        super().__init__()
        self.pace = pace
        self.weight = nn.Parameter(scale / pace * torch.randn(columns, frequencies))
        self.phase = nn.Parameter(math.pi / pace * (2 * torch.rand(columns, frequencies) - 1))
        self.linear = LinearEach(columns, frequencies, width - 1)
        with torch.no_grad():
            for parameter in self.linear.parameters():
                parameter.div_(pace)

    def forward(self, numbers: Tensor) -> Tensor:
        """Rows x columns x width."""
        turns = 2 * math.pi * self.weight * numbers.unsqueeze(-1) + self.phase
        line = self.linear((turns * self.pace).cos()) * self.pace
        return torch.cat([numbers.unsqueeze(-1), line], -1)


class Categories(nn.Module):
    """Codes of categories as one flat vector: zeros and ones of few, learned vectors of many.

    Args:
        cardinalities: codes of each column, with 0 for what is not known.
        one_hot: columns of up to so many codes are zeros and ones.
        width: of the vectors of the others.
    """

    first: Tensor
    rows: Tensor
    ones: Tensor
    others: Tensor

    def __init__(
        self, cardinalities: Sequence[int], one_hot: int = ONE_HOT, width: int = EMBEDDED
    ) -> None:
        super().__init__()
        few = [place for place, size in enumerate(cardinalities) if size <= one_hot]
        many = [place for place, size in enumerate(cardinalities) if size > one_hot]
        self.flags = sum(cardinalities[place] for place in few)
        #: The size of what each column is, in the order of the vector.
        self.chunks = [*(cardinalities[place] for place in few), *[width] * len(many)]
        for name, places in (("ones", few), ("others", many)):
            self.register_buffer(name, torch.tensor(places, dtype=torch.long), persistent=False)
        for name, places in (("first", few), ("rows", many)):
            sizes = torch.tensor([cardinalities[place] for place in places], dtype=torch.long)
            self.register_buffer(name, sizes.cumsum(0) - sizes, persistent=False)
        total = sum(cardinalities[place] for place in many)
        self.table = nn.Embedding(total, width) if many else None

    def forward(self, codes: Tensor) -> Tensor:
        """Rows x columns -> rows x the sum of the chunks."""
        made = []
        if self.flags:
            places = codes[:, self.ones] + self.first
            ones = torch.ones_like(places, dtype=torch.get_default_dtype())
            made.append(ones.new_zeros(codes.shape[0], self.flags).scatter(1, places, ones))
        if self.table is not None:
            made.append(self.table(codes[:, self.others] + self.rows).flatten(1))
        return torch.cat(made, 1)
