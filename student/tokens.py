"""Phrases as OpenCLIP's byte-pair tokens: the student's own, whatever tokenizer its teacher has."""

# U distinct phrases, L tokens of the context, B samples, P prompts of the sample that has most

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor

from manifests.errors import RecipeError

NUM_WORDS = 49_406  # byte pairs
VOCABULARY = NUM_WORDS + 2  # and the two ends


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """The phrases of a batch, each tokenized once."""

    phrases: list[str]  # U
    tokens_ul: Tensor  # int64 [U, L]
    phrase_bp: Tensor  # int64 [B, P] row of `tokens_ul`; 0 where a prompt is padding

    def to(self, device: torch.device | str) -> "Asked":
        """The same with its tensors on `device`."""
        return Asked(phrases=self.phrases, tokens_ul=self.tokens_ul.to(device), phrase_bp=self.phrase_bp.to(device))


def ask(phrases: Sequence[Sequence[str]], *, context: int) -> Asked:
    """What a batch asks: `phrases` of each sample, as `Batch.phrases` has them.

    Raises:
        RecipeError: a phrase has more tokens than the context.
    """
    row_of: dict[str, int] = {}
    width = max([1, *map(len, phrases)])
    rows = [[row_of.setdefault(phrase, len(row_of)) for phrase in asked] for asked in phrases]
    distinct = list(row_of) or [""]
    return Asked(
        phrases=distinct,
        tokens_ul=tokenize(distinct, context=context),
        phrase_bp=torch.tensor([row + [0] * (width - len(row)) for row in rows], dtype=torch.int64).reshape(-1, width),
    )


def tokenize(phrases: Sequence[str], *, context: int) -> Tensor:
    """Token ids [U, L]: start, byte pairs, end, then zeros.

    Raises:
        RecipeError: a phrase has more tokens than the context.
    """
    tokens_ul = torch.zeros((len(phrases), context), dtype=torch.int64)
    for row, phrase in enumerate(phrases):
        ids = token_ids(phrase)
        if len(ids) > context:
            raise RecipeError(
                f"phrase {phrase[:60]!r} has {len(ids)} tokens with its ends; expected at most {context}. Shorten it, "
                "or train with a larger model.context"
            )
        tokens_ul[row, : len(ids)] = torch.tensor(ids)
    return tokens_ul


@cache
def token_ids(phrase: str) -> tuple[int, ...]:
    """Start, byte pairs and end of one phrase, of any length."""
    tokenizer = _tokenizer()
    return (tokenizer.sot_token_id, *tokenizer.encode(phrase), tokenizer.eot_token_id)


@cache
def _tokenizer() -> Any:  # noqa: ANN401 - open_clip is not typed
    from open_clip.tokenizer import SimpleTokenizer

    return SimpleTokenizer()
