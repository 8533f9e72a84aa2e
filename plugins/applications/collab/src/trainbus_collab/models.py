"""Networks of interactions: ratings by biases and factors, rankings by histories."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from trainbus import UsageError
from trainbus.errors import nearest

#: What may be asked for by name, with its source.
RATING_ARCHS = {
    "biases": "the mean, and what each user and item adds to it (Koren, 2008)",
    "factors": "biases, and the product of a vector of each (Koren et al., 2009)",
    "mlp": "biases, and a network of both vectors (He et al., 2017)",
}
RANKING_ARCHS = {
    "ease": "a matrix of items, solved (EASE: Steck, 2019)",
    "als": "vectors of items, solved (iALS: Hu et al., 2008; Rendle et al., 2021)",
    "factors": "vectors of items; the user is the mean of the seen ones, softmax over all",
    "sasrec": "a transformer of the history in its order (Kang and McAuley, 2018), full softmax",
}


def _check(arch: str, known: dict[str, str], goal: str) -> None:
    if arch not in known:
        raise UsageError(
            f"arch={arch!r}: there is no such network of {goal}{nearest(arch, known)} There are "
            f"{', '.join(known)}"
        )


class RatingModel(nn.Module):
    """Ratings N x 1 of (users N, items N) by code; code 0 adds nothing: it is the mean.

    Args:
        users, items: how many.
        span: the least and the greatest rating; outputs end half a step beyond.
        arch: of `RATING_ARCHS`.
        width: of vectors.
        dropout: of them.
    """

    def __init__(
        self, users: int, items: int, span: tuple[float, float] | list[float],
        arch: str = "factors", width: int = 32, dropout: float = 0.3,
    ) -> None:  # fmt: skip
        super().__init__()
        _check(arch, RATING_ARCHS, "ratings")
        self.description = {
            "users": users, "items": items, "span": list(span), "arch": arch, "width": width,
            "dropout": dropout,
        }  # fmt: skip
        self.low, self.high = span
        self.mean = nn.Parameter(torch.zeros(1))
        self.user_bias = nn.Embedding(users + 1, 1, padding_idx=0)
        self.item_bias = nn.Embedding(items + 1, 1, padding_idx=0)
        nn.init.zeros_(self.user_bias.weight)
        nn.init.zeros_(self.item_bias.weight)
        self.arch = arch
        if arch != "biases":
            self.user = nn.Embedding(users + 1, width, padding_idx=0)
            self.item = nn.Embedding(items + 1, width, padding_idx=0)
            for each in (self.user, self.item):
                nn.init.normal_(each.weight, std=0.1 / width**0.5)
                with torch.no_grad():
                    each.weight[0] = 0.0
            self.dropout = nn.Dropout(dropout)
        if arch == "mlp":
            last = nn.Linear(width, 1)
            nn.init.zeros_(last.weight)
            nn.init.zeros_(last.bias)
            self.net = nn.Sequential(
                nn.Linear(2 * width, width), nn.ReLU(), nn.Dropout(dropout), last
            )

    def forward(self, users: Tensor, items: Tensor) -> Tensor:
        """N x 1."""
        made = self.mean + self.user_bias(users) + self.item_bias(items)
        if self.arch != "biases":
            mine, its = self.dropout(self.user(users)), self.dropout(self.item(items))
            if self.arch == "mlp":
                made = made + self.net(torch.cat([mine, its], 1))
            else:
                made = made + (mine * its).sum(1, keepdim=True)
        if self.training:
            return made  # type: ignore[no-any-return]  # beyond the range is no gradient
        return made.clamp(self.low, self.high)  # type: ignore[no-any-return]

    def take(self, mean: float, users: Any, items: Any) -> None:
        """Begin with biases that were solved."""
        with torch.no_grad():
            self.mean.fill_(mean)
            self.user_bias.weight[:, 0] = torch.as_tensor(users)
            self.item_bias.weight[:, 0] = torch.as_tensor(items)


class RankingModel(nn.Module):
    """Scores N x items of histories N x any by code, 0 where there is nothing.

    Whoever has seen nothing is given what is popular.

    Args:
        items: how many.
        arch: of `RANKING_ARCHS`.
        width: of vectors.
        dropout: of the items of a history ("factors"), or of vectors ("sasrec").
        layers, heads: of "sasrec".
        most: items of a history that "sasrec" sees.
        beside: whether the matrix of EASE stands beside, and what is learned is added to it.
    """

    popular: Tensor
    matrix: Tensor

    def __init__(
        self, items: int, arch: str = "ease", width: int = 64, dropout: float = 0.3,
        layers: int = 2, heads: int = 2, most: int = 50, beside: bool = True,
    ) -> None:  # fmt: skip
        super().__init__()
        _check(arch, RANKING_ARCHS, "rankings")
        self.description = {
            "items": items, "arch": arch, "width": width, "dropout": dropout, "layers": layers,
            "heads": heads, "most": most, "beside": beside,
        }  # fmt: skip
        self.arch, self.items, self.most, self.heads = arch, items, most, heads
        self.register_buffer("popular", torch.zeros(items))
        has_matrix = arch == "ease" or (beside and arch in ("factors", "sasrec"))
        self.register_buffer("matrix", torch.zeros(items if has_matrix else 0, items))
        self.scale = nn.Parameter(torch.tensor([8.0]))
        if arch != "ease":
            self.item = nn.Embedding(items + 1, width, padding_idx=0)
            nn.init.normal_(self.item.weight, std=0.1 / width**0.5)
            with torch.no_grad():
                self.item.weight[0] = 0.0
        if arch in ("factors", "sasrec"):
            self.out = nn.Linear(width, items)
            nn.init.zeros_(self.out.weight)
            nn.init.zeros_(self.out.bias)
            self.dropout = nn.Dropout(dropout)
        if arch == "sasrec":
            self.places = nn.Embedding(most, width)
            nn.init.normal_(self.places.weight, std=0.02)
            layer = nn.TransformerEncoderLayer(
                width, heads, 2 * width, dropout, "gelu", batch_first=True, norm_first=True
            )
            self.encoder = nn.TransformerEncoder(layer, layers, enable_nested_tensor=False)
            self.norm = nn.LayerNorm(width)

    def forward(self, history: Tensor) -> Tensor:
        """N x items; of float32."""
        there = (history > 0).float()
        none = 1 - there.amax(1, keepdim=True)
        made = none * self.popular
        if len(self.matrix):
            made = made + self.scale * self._matrix_scores(history)
        if self.arch == "als":
            made = made + self.scale * self._folded(history, there)
        elif self.arch == "factors":
            seen = self.dropout(there) if self.training else there
            summed = (self.item(history) * seen[..., None]).sum(1)
            made = made + self.out(summed / there.sum(1, keepdim=True).clamp(min=1).sqrt())
        elif self.arch == "sasrec":
            made = made + self.out(self._last(history))
        return made

    def _matrix_scores(self, history: Tensor) -> Tensor:
        """Summed rows of the matrix."""
        wide = torch.zeros(len(history), self.items + 1, device=history.device)
        wide = wide.scatter(1, history, 1.0)[:, 1:]
        return wide @ self.matrix

    def _folded(self, history: Tensor, there: Tensor, alpha: float = 1.0) -> Tensor:
        """The user solved from what was seen, by the penalty that vectors were solved with."""
        own = self.item.weight[1:].double()
        vectors = self.item(history).double() * there[..., None]
        size = 0.003 * (there.sum(1).double() + alpha * len(own))
        eye = torch.eye(own.shape[1], dtype=own.dtype, device=own.device)
        system = alpha * own.T @ own + torch.einsum("nsk,nsl->nkl", vectors, vectors)
        users = torch.linalg.solve(system + size[:, None, None] * eye, vectors.sum(1))
        return (users @ own.T).float()  # type: ignore[no-any-return]

    def _last(self, history: Tensor) -> Tensor:
        """What a causal encoder says at the last item; the history lies at the right."""
        history = history[:, -self.most :]
        steps = history.shape[1]
        own = self.item(history) * self.item.embedding_dim**0.5
        made = self.dropout(own + self.places.weight[-steps:])
        gone = history == 0
        causal = torch.ones(steps, steps, dtype=torch.bool, device=history.device).triu(1)
        mask = causal | gone[:, None, :]
        # Who looks at nothing looks at itself, that there is no empty softmax.
        mask = mask & ~torch.eye(steps, dtype=torch.bool, device=history.device)
        made = self.encoder(made, mask=mask.repeat_interleave(self.heads, 0))
        return self.norm(made[:, -1])  # type: ignore[no-any-return]


def rebuild(**description: Any) -> RatingModel | RankingModel:
    """The model that a `description` described."""
    return RatingModel(**description) if "users" in description else RankingModel(**description)
