"""Embeds the pictures, mask crops and phrases of a finished build, as Parquet tables of unit rows.

    python -m miners.embed BUILD --out DIR [--encoder auto]

Part by part and resumable: `DIR/images` and `DIR/crops` hold one table per part of the build, `DIR/phrases` those of
its phrases, and `DIR/work` what was scanned. Nothing is computed twice, and nothing stale is left lying.
"""

import argparse
import logging
import sys
from collections.abc import Iterable, Sequence

import msgspec

from manifests import files
from manifests.stage import Inline, log_to_stderr, progress_bar, run_command
from miners.embed_generated import embed_generated, generated_part
from miners.embed_parts import embed_parts
from miners.embed_rows import CROPS, IMAGES, embed_inventory, embed_phrases, phrase_blocks
from miners.encoders import AUTO, choose_encoder
from miners.streaming import BATCH

PHRASES, WORK = "phrases", "work"  # folders below --out, beside those of pictures and crops
_log = logging.getLogger(__name__)


class Summary(msgspec.Struct, frozen=True, kw_only=True):
    """What the command wrote."""

    out: str
    encoder: str
    encoder_digest: str
    why: str
    width: int
    images: int  # of the catalog
    generated: int  # pictures besides
    crops: int
    phrases: int
    digest: str  # of all rows of pictures and crops


def _remove_stale(folder: str, parts: Iterable[str], blocks: Iterable[str]) -> int:
    """How many files of earlier rows were deleted: of another encoder, or of what has changed since."""
    names = set(parts)
    current = {IMAGES: names, CROPS: names, PHRASES: {block.removesuffix(".parquet") for block in blocks}}
    return sum(_remove_others(files.join(folder, kind), kept) for kind, kept in current.items())


def _remove_others(folder: str, names: Iterable[str]) -> int:
    kept = {f"{name}.{suffix}" for name in names for suffix in ("parquet", "json")}
    others = [name for name in files.names_in(folder) if name.endswith((".parquet", ".json")) and name not in kept]
    for name in others:
        files.remove(files.join(folder, name))
    return len(others)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m miners.embed", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("build", metavar="BUILD", help="a finished build: a folder or a URL")
    parser.add_argument("--out", required=True, metavar="DIR", help="where the tables go")
    parser.add_argument(
        "--encoder", default=AUTO, metavar="NAME", help="auto, conse, or a model of open_clip (default: auto)"
    )
    parser.add_argument("--templates", default="", metavar="FILE", help="prompt templates (default: the encoder's own)")
    parser.add_argument("--allow-pickle", default="", metavar="FILE", help="the one weights file that may be a pickle")
    parser.add_argument(
        "--lexicon", action="append", default=[], metavar="FILE", help="synonyms, as the recipe had them"
    )
    parser.add_argument("--no-crops", action="store_true", help="no mask crops: a teacher of phase 1 needs none")
    parser.add_argument(
        "--batch-size", type=int, default=BATCH, metavar="N", help=f"pictures at once (default: {BATCH})"
    )
    parser.add_argument("--json", action="store_true", help="print what was written as JSON on stdout")
    parser.add_argument("--quiet", action="store_true", help="no progress bar")
    return parser


def _run(options: argparse.Namespace) -> int:
    from shards.reopened import reopen

    log_to_stderr()
    out: str = options.out
    with progress_bar(quiet=options.quiet) as progress:
        work = files.join(out, WORK)
        found = reopen(options.build, work, executor=Inline(), progress=progress, lexicons=options.lexicon)
        chosen = choose_encoder(options.encoder, templates=options.templates, allow_pickle=options.allow_pickle)
        encoder, inventory = chosen.encoder, found.inventory
        _log.info(chosen.why)
        crops: bool = not options.no_crops
        rows = embed_inventory(
            inventory, found.roots, encoder, folder=out, progress=progress, batch=options.batch_size, crops=crops
        )
        made = generated_part(options.build, inventory.images["key"], encoder)
        images = files.join(out, IMAGES)
        num_made = embed_generated(made, encoder, folder=images, progress=progress, batch=options.batch_size)
        embed_phrases(encoder, inventory.phrases, folder=files.join(out, PHRASES))
    parts = [part.name for part in embed_parts(inventory, encoder, crops=crops)]
    if num := _remove_stale(out, [*parts, made.name], [name for name, _ in phrase_blocks(encoder, inventory.phrases)]):
        _log.info("%s files of other rows were deleted from %s", num, out)
    summary = Summary(
        out=out,
        encoder=encoder.name,
        encoder_digest=encoder.digest,
        why=chosen.why,
        width=encoder.dim,
        images=len(rows.images_nd),
        generated=num_made,
        crops=len(rows.crops_cd),
        phrases=len(inventory.phrases),
        digest=rows.digest,
    )
    sys.stdout.write(_told(summary, as_json=options.json) + "\n")
    return 0


def _told(summary: Summary, *, as_json: bool) -> str:
    if as_json:
        return msgspec.json.encode(summary).decode()
    pictures = f"{summary.images} pictures and {summary.generated} generated ones"
    what = f"{pictures}, {summary.crops} crops and {summary.phrases} phrases"
    return f"{summary.out}: {what} as rows of {summary.width} numbers by {summary.encoder} ({summary.encoder_digest})"


def main(argv: Sequence[str] | None = None) -> int:
    """The command's exit code: 0, 1 for a user's mistake; a wrong option exits with 2."""
    parser = _parser()
    options = parser.parse_args(argv)
    if options.batch_size < 1:
        parser.error(f"--batch-size {options.batch_size}: expected 1 or more")
    return run_command(lambda: _run(options))


if __name__ == "__main__":
    sys.exit(main())
