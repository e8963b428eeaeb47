"""The guards: pure rules over candidates, each of which says what must not be mined as absent.

A candidate is a picture (a row of the inventory) and a phrase (a number of the inventory). Each guard answers for all
candidates at once and knows nothing of the others, so that their order changes no result, only which of them is
counted. True means: take it out.
"""

# C candidates, N pictures, V phrases, P statements of a model or a person

from typing import NamedTuple

import numpy as np
import pyarrow.compute as pc
from numpy.typing import NDArray

from manifests.ragged import rows_of_groups
from manifests.sample import CALLED_PRESENT
from miners.outside import Said
from miners.relation import Relation
from shards.inventory import ABSENT, Inventory
from shards.labelled import Pairs, among, blocked, denied, denied_by_name, distinct
from shards.labels import phrase_id

LEAST_COVERED = 0.5  # share of an alarm's area that lies on known objects. Source: SAM 3 (arXiv 2511.16719)

_Bool = NDArray[np.bool_]
_Int32 = NDArray[np.int32]
_Int64 = NDArray[np.int64]


class Verdicts(NamedTuple):
    """What a second model or a person says of each candidate; where both are False, nothing."""

    rejected_c: _Bool
    verified_c: _Bool


def annotation(inventory: Inventory, image_c: _Int64, phrase_c: _Int32) -> _Bool:
    """Candidates whose phrase the labels call present, or that was asked and left open.

    Synonyms and hypernyms of a present or open phrase count. A phrase of a vocabulary that the picture's source left
    open is taken out too, unless it is denied by name or lies in a vocabulary over which the picture is exhaustive.
    """
    blocked_c = blocked(inventory, image_c, phrase_c)
    left_open_c = _left_open(inventory, image_c, phrase_c)
    if left_open_c.any():
        left_open_c[left_open_c] = ~denied_by_name(inventory, image_c[left_open_c], phrase_c[left_open_c])
    return blocked_c | left_open_c


def known_absent(inventory: Inventory, image_c: _Int64, phrase_c: _Int32) -> _Bool:
    """Candidates that the labels themselves call absent: their evidence is `annotated`, that of all others `mined`."""
    return denied(inventory, image_c, phrase_c) & ~blocked(inventory, image_c, phrase_c)


def semantic(relation: Relation, inventory: Inventory, image_c: _Int64, phrase_c: _Int32) -> _Bool:
    """Candidates whose phrase is too close in meaning to one that is present in the picture, or was left open there."""

    def doubtful(pictures: _Int64) -> Pairs:
        rows, owner = inventory.labels.rows_of(pictures)
        said = inventory.labels.state_l[rows] != ABSENT
        return relation.expand(owner[said], inventory.labels.phrase_l[rows[said]])

    return among(len(inventory.phrases), image_c, phrase_c, doubtful)


def duplicate(
    inventory: Inventory, group_n: _Int64, image_c: _Int64, phrase_c: _Int32, *, relation: Relation | None = None
) -> _Bool:
    """Candidates of which a near-identical picture shows the phrase, or leaves it open.

    Args:
        inventory: Of all pictures.
        group_n: Group of near-duplicates of each picture, as `Assignment.group_n` has it.
        image_c: Picture of each candidate.
        phrase_c: Phrase of each candidate.
        relation: If given, a phrase that one of the near-identical picture makes doubtful is taken out too.
    """
    size_n = np.bincount(group_n, minlength=len(group_n))[group_n]
    rejected_c = np.zeros(len(image_c), np.bool_)
    paired = np.flatnonzero(size_n[image_c] > 1)
    if not len(paired):
        return rejected_c
    members = np.flatnonzero(size_n > 1)
    members = members[np.argsort(group_n[members], kind="stable")]
    ordered = group_n[members]

    def shown(groups: _Int64) -> Pairs:
        first, last = (np.searchsorted(ordered, groups, side) for side in ("left", "right"))
        rows, position = rows_of_groups(first, last - first)
        pictures = members[rows]
        owner, phrase = inventory.blocked(pictures)
        if relation is None:
            return position[owner], phrase
        rows, of = inventory.labels.rows_of(pictures)
        said = inventory.labels.state_l[rows] != ABSENT
        near = relation.expand(of[said], inventory.labels.phrase_l[rows[said]])
        return position[np.concatenate([owner, near[0]])], np.concatenate([phrase, near[1]])

    rejected_c[paired] = among(len(inventory.phrases), group_n[image_c[paired]], phrase_c[paired], shown)
    return rejected_c


def overlap(covered_c: NDArray[np.float64], *, least_covered: float = LEAST_COVERED) -> _Bool:
    """False alarms that may be true but unlabelled: too little of them lies on known objects of other phrases.

    Args:
        covered_c: Share of each alarm's area under masks of other phrases, in 0 to 1; NaN where it has no mask.
        least_covered: Share from which on an alarm counts as lying on a known object.

    Source: SAM 3 (arXiv 2511.16719), the rule for its own hard negatives.
    """
    rejected_c: _Bool = ~(covered_c >= least_covered)  # True beside NaN
    return rejected_c


def verifier(said: Said, image_c: _Int64, phrase_c: _Int32, *, called_present: float = CALLED_PRESENT) -> Verdicts:
    """A second model's word: a presence of `called_present` or more takes out, less verifies."""
    presence_c = said.presence_of(image_c, phrase_c)
    return Verdicts(presence_c >= called_present, presence_c < called_present)  # both False beside NaN


def reviewer(decided: Said, image_c: _Int64, phrase_c: _Int32) -> Verdicts:
    """A person's word: "present" takes out, "absent" verifies."""
    return verifier(decided, image_c, phrase_c)


def _left_open(inventory: Inventory, image_c: _Int64, phrase_c: _Int32) -> _Bool:
    """Whether the phrase, or one that implies it, lies in a vocabulary that was left open, and in no exhaustive one."""
    if not pc.any(pc.greater(pc.list_value_length(inventory.images["open_over"]), 0)).as_py():
        return np.zeros(len(image_c), np.bool_)
    pictures, row_c = distinct(image_c)
    names = pc.fill_null(pc.binary_join(inventory.images["open_over"].take(pictures), "\n"), "")
    encoded = pc.dictionary_encode(names).combine_chunks()
    number = {phrase_id(phrase): v for v, phrase in enumerate(inventory.phrases)}
    open_gv = np.zeros((len(encoded.dictionary), len(inventory.phrases)), np.bool_)
    for row, joined in zip(open_gv, encoded.dictionary.to_pylist(), strict=True):
        for name in filter(None, joined.split("\n")):
            row[[number[phrase_id(phrase)] for phrase in inventory.vocabularies[name]]] = True
        for v in np.flatnonzero(row):
            row[inventory.implied[inventory.implied_starts[v] : inventory.implied_starts[v + 1]]] = True
    open_c = open_gv[encoded.indices.to_numpy()[row_c], phrase_c]
    left_open_c: _Bool = open_c & ~inventory.vocabulary_g[inventory.group_n[image_c], phrase_c]
    return left_open_c
