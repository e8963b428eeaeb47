"""What mining looks at, made ready: labels, embeddings, and what the guards know."""

# V phrases, D width

import logging
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray
from rich.progress import Progress

from manifests import files
from manifests.recipe import SPLITS, Mine
from manifests.sample import CALLED_PRESENT
from miners.confusable import confusable_relation, find_confusable
from miners.embed_rows import Embedded, embed_inventory, embed_phrases
from miners.encoders import Chosen, choose_encoder
from miners.judging import Knowledge
from miners.meaning import related
from miners.outside import Said, read_decisions, read_predictions
from shards.inventory import Inventory
from shards.labels import Lexicon
from shards.splits import Assignment

log = logging.getLogger(__name__)
_Read = Callable[[Sequence[str], Inventory], Said]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Ground:
    """All that mining looks at."""

    inventory: Inventory
    assignment: Assignment
    embedded: Embedded
    phrase_v: NDArray[np.int32]  # phrases that may be asked, as numbers of the inventory
    texts_vd: NDArray[np.float16]
    knowledge: Knowledge
    alarms: Said | None  # a student's predictions, for false alarms
    encoder: str
    encoder_why: str
    encoder_digest: str


def choose(settings: Mine, *, allow_pickle: str = "") -> Chosen:
    """The encoder that the settings ask for; the log says which, and why.

    Args:
        settings: Name and templates.
        allow_pickle: The one weights file that may be a pickle; "" refuses all.

    Raises:
        RecipeError: see `miners.encoders.choose_encoder`.
    """
    chosen = choose_encoder(settings.encoder, templates=settings.templates, allow_pickle=allow_pickle)
    log.info("encoder %s: %s", chosen.encoder.name, chosen.why)
    return chosen


def prepare_ground(
    inventory: Inventory,
    assignment: Assignment,
    roots: Mapping[str, str],
    lexicon: Lexicon,
    phrase_v: NDArray[np.int32],
    chosen: Chosen,
    settings: Mine,
    *,
    split: str,
    folder: str,
    progress: Progress,
) -> Ground:
    """The ground of a split: pictures, crops and phrases embedded (what lies in `folder` is used again), files read.

    Args:
        inventory: What was scanned.
        assignment: Split and group of near-duplicates of each picture.
        roots: Where each source's uris start.
        lexicon: Synonyms, hypernyms and parts.
        phrase_v: Phrases that may be asked.
        chosen: The encoder, see `choose`.
        settings: Whose predictions and decisions; paths as they are opened.
        split: Which split will be mined; pictures that lie in parts without any of it are not embedded.
        folder: Home of the embeddings.
        progress: Where bars are drawn.
    """
    encoder = chosen.encoder
    knowledge = _knowledge(inventory, assignment, lexicon, settings)  # read first: a wrong file costs no embedding
    alarms = _said(settings.predictions, inventory, partial(read_predictions, masks_from=CALLED_PRESENT))
    embeddings = files.join(folder, "embeddings")
    needed_n = assignment.split_n == SPLITS.index(split)
    embedded = embed_inventory(inventory, roots, encoder, folder=embeddings, progress=progress, needed_n=needed_n)
    phrases = [inventory.phrases[v] for v in phrase_v.tolist()]
    texts_vd = embed_phrases(encoder, phrases, folder=files.join(embeddings, "phrases"))
    return Ground(
        inventory=inventory,
        assignment=assignment,
        embedded=embedded,
        phrase_v=phrase_v,
        texts_vd=texts_vd,
        knowledge=knowledge,
        alarms=alarms,
        encoder=encoder.name,
        encoder_why=chosen.why,
        encoder_digest=encoder.digest,
    )


def _knowledge(inventory: Inventory, assignment: Assignment, lexicon: Lexicon, settings: Mine) -> Knowledge:
    confused = find_confusable(inventory, np.flatnonzero(inventory.known_n()))
    meaning = related(inventory.phrases, lexicon)
    return Knowledge(
        relation=meaning | confusable_relation(confused, len(inventory.phrases)),
        meaning=meaning,
        group_n=assignment.group_n,
        verifier=_said(settings.verifier, inventory, partial(read_predictions, masks_from=math.inf)),
        decided=_said(settings.decisions, inventory, read_decisions),
    )


def _said(uris: Sequence[str], inventory: Inventory, read: _Read) -> Said | None:
    """What the files say; the log tells how many rows of them belong to nothing."""
    if not uris:
        return None
    said = read(uris, inventory)
    if said.num_rejects:
        counts = ", ".join(f"{num} {reason}" for reason, num in said.num_rejects.items())
        log.warning("rows that are left out: %s; the first: %s", counts, said.rejects[0].detail)
    return said
