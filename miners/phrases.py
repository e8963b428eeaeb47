"""Finds phrases for SA-1B's masks, which have none: a table that a recipe takes as `phrases`.

    python -m miners.phrases CATALOG --vocabulary FILE --out labels.parquet

CATALOG is the folder that `python -m shards.catalog` wrote, a recipe, or SA-1B's tars themselves (a path or a pattern).
Each mask's crop is looked up among the phrases of the vocabulary, and believed above a score and a margin.
"""

import argparse
import logging
import math
import sys
from collections.abc import Sequence

import msgspec
import pyarrow as pa

from manifests import files
from manifests.errors import RecipeError
from manifests.recipe import RETRIEVE, Recipe, Retrieve, Sa1bSource
from manifests.recipe_file import load_recipe
from manifests.stage import log_to_stderr, progress_bar, run_command
from manifests.tables import PHRASES, read_table
from miners.encoders import Encoder, choose_encoder
from miners.phrase_truth import Judged, Reading, judge, read_at, read_grid, read_truth
from miners.retrieval import (
    MEASURED,
    Thresholds,
    open_retriever,
    retrieve,
    thresholds_of,
    write_sidecar,
)
from miners.vocabulary import load_vocabulary
from shards.catalog import CATALOG_RECIPE
from shards.labels import load_lexicon
from shards.sources.sa1b import open_sa1b

_SHOWN = 12  # phrases that the summary names
_DEFAULT = Retrieve()
_log = logging.getLogger(__name__)


class Measured(msgspec.Struct, frozen=True, kw_only=True):
    """How right the phrases are, where the truth was given."""

    known_masks: int
    chosen: Reading  # at the thresholds of the run
    grid: list[Reading]


class Summary(msgspec.Struct, frozen=True, kw_only=True):
    """What the command did."""

    out: str
    encoder: str
    encoder_digest: str
    why: str
    vocabulary: int  # phrases
    repeated_lines: int
    blank_lines: int
    min_score: float
    min_margin: float
    pictures: int
    masks: int
    looked_up: int
    accepted: int
    phrases: dict[str, int]  # accepted masks by phrase, most frequent first
    measured: Measured | None = None


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m miners.phrases", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("catalog", metavar="CATALOG", help="folder of shards.catalog, recipe, or tars of SA-1B")
    parser.add_argument("--out", required=True, metavar="FILE", help="the table; name it as phrases in a recipe")
    parser.add_argument(
        "--vocabulary", metavar="FILE", default="", help="one phrase a line (default: the 1,275 that come along)"
    )
    parser.add_argument("--source", metavar="NAME", default="", help="which source, where CATALOG has several of SA-1B")
    parser.add_argument("--encoder", metavar="NAME", default=_DEFAULT.encoder, help="auto, conse, or one of open_clip")
    parser.add_argument("--templates", metavar="FILE", default="", help="prompt templates (default: the encoder's own)")
    parser.add_argument("--lexicon", action="append", default=[], metavar="FILE", help="synonyms besides the bundled")
    parser.add_argument("--min-score", type=float, metavar="S", help="least standard score (default: measured)")
    parser.add_argument("--min-margin", type=float, metavar="S", help="least lead over the next phrase (default: same)")
    parser.add_argument(
        "--min-area", type=float, default=_DEFAULT.min_area, metavar="PX", help=f"of a mask [{_DEFAULT.min_area:g}]"
    )
    parser.add_argument(
        "--max-masks", type=int, default=_DEFAULT.max_masks, metavar="N", help=f"a picture [{_DEFAULT.max_masks}]"
    )
    parser.add_argument("--allow-pickle", default="", metavar="FILE", help="the one weights file that may be a pickle")
    parser.add_argument("--truth", metavar="FILE", default="", help="true phrases of some masks: measure against them")
    parser.add_argument("--work", metavar="DIR", default="", help="where unfinished work is kept")
    parser.add_argument("--json", action="store_true", help="print the summary as JSON on stdout")
    parser.add_argument("--quiet", action="store_true", help="no progress bar")
    return parser


def find_source(catalog: str, name: str) -> tuple[Recipe, str, Sa1bSource]:
    """The recipe that CATALOG stands for, and which of its sources is asked: its name and its table.

    Raises:
        RecipeError: it has no source of SA-1B, or several and none was named.
    """
    recipe = _recipe_of(catalog)
    tables = {one: table for one, table in recipe.sources.items() if isinstance(table, Sa1bSource)}
    if name and name not in tables:
        raise RecipeError(f"--source {name}: expected one of {', '.join(tables) or 'no source'} of format sa1b")
    if not name and len(tables) != 1:
        found = f"several ({', '.join(tables)}); name one with --source" if tables else "none"
        raise RecipeError(f"{catalog}: expected one source of format sa1b, found {found}")
    chosen = name or next(iter(tables))
    return recipe, chosen, tables[chosen]


def _recipe_of(catalog: str) -> Recipe:
    if catalog.endswith(".toml"):
        return load_recipe(catalog)
    recorded = files.join(catalog, "work", CATALOG_RECIPE)
    if files.exists(recorded):
        return msgspec.json.decode(files.read_bytes(recorded), type=Recipe)
    return Recipe(name="sa1b", mix={"sa1b": "rest"}, sources={"sa1b": Sa1bSource(data=files.absolute(catalog))})


def _work_of(options: argparse.Namespace) -> str:
    """The build's own work folder where CATALOG is one, so that a build finds what was looked up."""
    if options.work:
        return str(options.work)
    own = files.join(options.catalog, "work")
    return own if files.exists(files.join(own, CATALOG_RECIPE)) else f"{options.out}.work"


def _settings(options: argparse.Namespace) -> Retrieve:
    if options.max_masks < 1:
        raise RecipeError(f"--max-masks {options.max_masks}: expected 1 or more")
    return Retrieve(
        vocabulary=options.vocabulary,
        encoder=options.encoder,
        templates=options.templates,
        min_score=options.min_score,
        min_margin=options.min_margin,
        min_area=options.min_area,
        max_masks=options.max_masks,
    )


def run(options: argparse.Namespace) -> Summary:
    """Look up, accept, write, and measure where the truth is given."""
    recipe, name, table = find_source(options.catalog, options.source)
    settings = _settings(options)
    truth = read_truth(options.truth) if options.truth else None
    lexicon = load_lexicon([*options.lexicon, *(recipe.resolve(path) for path in recipe.prompts.lexicon)])
    work = _work_of(options)
    load_vocabulary(settings.vocabulary)  # before an encoder is loaded
    chosen = choose_encoder(settings.encoder, templates=settings.templates, allow_pickle=options.allow_pickle)
    _log.info(chosen.why)
    thresholds = _thresholds(settings, chosen.encoder, is_measured=truth is not None)
    retriever = open_retriever(settings, chosen.encoder, lexicon, work=work)
    source = open_sa1b(name, msgspec.structs.replace(table, phrases=RETRIEVE, exhaustive_over=[]), recipe)
    with progress_bar(quiet=options.quiet) as progress:
        found = retrieve(source, retriever, thresholds, work=work, progress=progress)
    num = write_sidecar(found, retriever, thresholds, options.out)
    judged = None if truth is None else judge(_all_rows(found.looked_up), truth, lexicon)
    return Summary(
        out=options.out,
        encoder=chosen.encoder.name,
        encoder_digest=chosen.encoder.digest,
        why=chosen.why,
        vocabulary=len(retriever.vocabulary.phrases),
        repeated_lines=retriever.vocabulary.num_repeated,
        blank_lines=retriever.vocabulary.num_blank,
        min_score=thresholds.min_score,
        min_margin=thresholds.min_margin,
        pictures=sum(record.pictures for record in found.records),
        masks=sum(record.masks for record in found.records),
        looked_up=sum(record.looked_up for record in found.records),
        accepted=num,
        phrases=dict(found.phrase_counts.most_common()),
        measured=None if judged is None else _measured(judged, thresholds),
    )


def _all_rows(tables: Sequence[str]) -> pa.Table:
    return pa.concat_tables([read_table(uri, PHRASES) for uri in tables])


def _thresholds(settings: Retrieve, encoder: Encoder, *, is_measured: bool) -> Thresholds:
    """Those of the run; where the truth is given and none were measured before, everything is accepted."""
    if is_measured and encoder.name not in MEASURED:
        return Thresholds(
            min_score=-math.inf if settings.min_score is None else settings.min_score,
            min_margin=settings.min_margin or 0.0,
        )
    return thresholds_of(settings, encoder)


def _measured(judged: Judged, thresholds: Thresholds) -> Measured:
    return Measured(
        known_masks=judged.num_known,
        chosen=read_at(judged, thresholds.min_score, thresholds.min_margin),
        grid=read_grid(judged),
    )


def main(argv: Sequence[str] | None = None) -> int:
    """The command's exit code: 0, 1 for a user's mistake; a wrong option exits with 2."""
    options = _parser().parse_args(argv)
    return run_command(lambda: _run(options))


def _run(options: argparse.Namespace) -> int:
    log_to_stderr()
    summary = run(options)
    if options.json:
        sys.stdout.buffer.write(msgspec.json.encode(summary) + b"\n")
    else:
        _show(summary)
    return 0


def _show(summary: Summary) -> None:
    first = (
        f"{summary.accepted} of {summary.masks} masks of {summary.pictures} pictures have a phrase in {summary.out} "
        f"({summary.looked_up} were large enough to be looked up; score >= {summary.min_score:g}, margin >= "
        f"{summary.min_margin:g}; encoder {summary.encoder}, {summary.vocabulary} phrases)"
    )
    lines = [first]
    if summary.repeated_lines or summary.blank_lines:
        lines.append(f"vocabulary: {summary.repeated_lines} repeated and {summary.blank_lines} blank lines passed over")
    named = ", ".join(f"{phrase} {num}" for phrase, num in list(summary.phrases.items())[:_SHOWN])
    lines.append(f"most frequent: {named or 'none'}")
    if summary.measured is not None:
        lines += measured_lines(summary.measured)
    lines.append(f'Use it: phrases = "{summary.out}" in the recipe\'s source')
    sys.stdout.write("\n".join(lines) + "\n")


def measured_lines(measured: Measured) -> list[str]:
    """Precision and coverage as a table of plain text, the thresholds of the run last."""
    head = " score  margin   masks  precision  narrower  coverage  precision of presences"
    rows = [
        f"{one.min_score:6.1f}  {one.min_margin:6.1f}  {one.masks:6d}  {one.precision:9.3f}  {one.narrower:8.3f}  "
        f"{one.coverage:8.3f}  {one.presence_precision:9.3f} of {one.presences}"
        for one in [*measured.grid, measured.chosen]
    ]
    return [f"against the truth of {measured.known_masks} masks:", head, *rows[:-1], "chosen:", rows[-1]]


if __name__ == "__main__":
    sys.exit(main())
