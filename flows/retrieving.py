"""The stage of a build that finds words for masks without text, before anything is scanned."""

from collections.abc import Sequence

from rich.progress import Progress

from manifests.recipe import RETRIEVE, Recipe, Sa1bSource, resolved_retrieval
from shards.labels import load_lexicon
from shards.sources.sa1b import Sa1b
from shards.sources.source import Source


def retrieve_phrases(sources: Sequence[Source], recipe: Recipe, *, work: str, progress: Progress) -> list[Source]:
    """`sources`, those that ask for it with phrases for their masks; what was looked up before is not looked up again.

    Raises:
        AbsentiaError: an encoder or a vocabulary cannot be had, or a source cannot be read.
    """
    return [
        _retrieved(source, table, recipe, work=work, progress=progress)
        if isinstance(source, Sa1b)
        and isinstance(table := recipe.sources[source.name], Sa1bSource)
        and table.phrases == RETRIEVE
        else source
        for source in sources
    ]


def _retrieved(source: Sa1b, table: Sa1bSource, recipe: Recipe, *, work: str, progress: Progress) -> Source:
    from miners.encoders import choose_encoder  # these import torch, which no other build needs
    from miners.retrieval import open_retriever, retrieve, thresholds_of

    settings = resolved_retrieval(recipe, table.retrieve)
    chosen = choose_encoder(settings.encoder, templates=settings.templates)
    thresholds = thresholds_of(settings, chosen.encoder)
    lexicon = load_lexicon([recipe.resolve(path) for path in recipe.prompts.lexicon])
    retriever = open_retriever(settings, chosen.encoder, lexicon, work=work)
    return retrieve(source, retriever, thresholds, work=work, progress=progress).source
