"""Writes the contact sheet of a build, the gallery of mined pairs, or any table over a build, as one page.

    python -m shards.show DIR|TABLE [--build DIR] --out page.html

TABLE is a Parquet file, and its columns decide what it becomes. Mined pairs (`negatives.parquet`), or candidates that a
guard took (`negatives.rejects.parquet`), become a gallery in which a person decides pair by pair; the rows of any other
table with `key` and `phrase` are shown as what was asked of the build's pictures. What is slow to import is imported
once there is something to do, so that `--help` answers at once.
"""

import argparse
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

import msgspec

from manifests import files
from manifests.manifest import Manifest, read_manifest
from manifests.recipe import SPLITS
from manifests.stage import log_to_stderr, progress_bar, run_command
from shards.mining_facts import facts_of_record
from shards.page import About, PageSample, write_page

if TYPE_CHECKING:
    from shards.gallery import PairKind

_T = TypeVar("_T")
DEFAULT_LIMIT = 2000
DEFAULT_PIXELS = 224
GALLERY_PIXELS = 400  # small things have to be seen before a person says that they are not there
MIN_PIXELS, MAX_PIXELS = 32, 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """Which samples are shown, and how large."""

    limit: int = DEFAULT_LIMIT  # samples, or rows of a gallery; 0 for all
    seed: int = 0
    split: str | None = None  # None for all
    pixels: int | None = None  # of a thumbnail's longer side; None for the page's own
    quiet: bool = False


class Shown(msgspec.Struct, frozen=True, kw_only=True):
    """What a page shows."""

    page: str
    num_bytes: int
    samples: int
    prompts: int


def show_build(folder: str, out: str, view: View) -> Shown:
    """Write the contact sheet of the build in `folder` to `out`.

    Raises:
        ManifestError, TableError: there is no finished build, or it is damaged.
        StorageError: `out` cannot be written.
    """
    from shards import sheet
    from shards.build_pictures import open_splits

    manifest = read_manifest(folder)
    splits = sheet.draw(open_splits(folder, manifest, view.split), view.limit, view.seed)
    count = sum(len(drawn.numbers) for drawn in splits)
    head = about_build(manifest, manifest.name, f"{count:,} of {num_samples(manifest):,} samples")
    return _write(out, sheet.read_samples(splits, view.pixels or DEFAULT_PIXELS), count, head, view)


def show_table(table_uri: str, folder: str, out: str, view: View) -> Shown:
    """Write to `out` what the table at `table_uri` asks of the pictures of the build in `folder`.

    Raises:
        ManifestError, TableError: there is no finished build, the table is none, or they share no picture.
        StorageError: `out` cannot be written.
    """
    from shards import sheet

    manifest = read_manifest(folder)
    asked = sheet.read_asked(table_uri, folder, manifest, view.split)
    splits = sheet.draw(asked.found, view.limit, view.seed)
    count = sum(len(drawn.numbers) for drawn in splits)
    title = f"{files.relative(table_uri, folder)} of {manifest.name}"
    head = about_build(manifest, title, f"{count:,} of the {asked.num_pictures:,} pictures that the table names")
    return _write(out, sheet.read_asked_samples(asked, splits, view.pixels or DEFAULT_PIXELS), count, head, view)


def show_pairs(table_uri: str, kind: "PairKind", folder: str, out: str, view: View) -> Shown:
    """Write the gallery of the pairs in the table at `table_uri` to `out`, with pictures of the build in `folder`.

    Raises:
        ManifestError, TableError: there is no finished build, the table is none, or they share no picture.
        StorageError: `out` cannot be written.
    """
    from shards import gallery, gallery_rows

    manifest = read_manifest(folder)
    pairs = gallery_rows.read_pairs(table_uri, kind)
    chosen = gallery_rows.choose_rows(pairs, folder, manifest, split=view.split, limit=view.limit, seed=view.seed)
    name = "mined rows" if kind == "negatives" else "candidates that a guard took"
    drawn = f", drawn by seed {view.seed}" if len(chosen.rows) < chosen.num_found else ""
    about = gallery.GalleryAbout(
        title=f"{files.relative(table_uri, folder)} of {manifest.name}",
        what=f"{len(chosen.rows):,} of {chosen.num_found:,} {name}{drawn}",
        pairs=kind,
        digest=pairs.digest,
        mining=pairs.mining,
        notes=list(chosen.notes),
    )
    count = sum(len(drawn.numbers) for drawn in chosen.splits)
    pictures = gallery_rows.read_pictures(chosen, view.pixels or GALLERY_PIXELS)
    num_bytes = gallery.write_gallery(out, chosen.rows, _watched(pictures, count, view.quiet), about)
    return Shown(page=out, num_bytes=num_bytes, samples=count, prompts=len(chosen.rows))


def num_samples(manifest: Manifest) -> int:
    """How many samples the build holds."""
    return sum(shard.nsamples for shards in manifest.splits.values() for shard in shards)


def about_build(manifest: Manifest, title: str, what: str) -> About:
    """What a page's head says of a build; `what` names the samples that it shows."""
    return About(
        title=title,
        what=what,
        seed=manifest.seed,
        encoder=manifest.encoder,
        totals={name: sum(shard.nsamples for shard in shards) for name, shards in manifest.splits.items()},
        mix=manifest.mix,
        shortcuts=manifest.shortcuts,
        rejects=manifest.rejects,
        leaks=manifest.leaks,
        notes=manifest.notes,
        mining=facts_of_record(manifest.mining),
    )


def _write(out: str, samples: Iterable[PageSample], count: int, about: About, view: View) -> Shown:
    facts = write_page(out, _watched(samples, count, view.quiet), about)
    return Shown(page=out, num_bytes=facts.num_bytes, samples=facts.samples, prompts=facts.prompts)


def _watched(samples: Iterable[_T], count: int, quiet: bool) -> Iterator[_T]:
    with progress_bar(quiet=quiet) as progress:
        yield from progress.track(samples, total=count, description="show")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m shards.show", description=__doc__.partition("\n")[0])
    parser.add_argument(
        "what",
        metavar="DIR|TABLE",
        help="a finished build, or a .parquet table: mined or rejected pairs, or any with key and phrase",
    )
    parser.add_argument("--build", metavar="DIR", help="the build whose pictures TABLE names [the one it lies in]")
    parser.add_argument("--out", metavar="PAGE", required=True, help="the page to write, such as page.html")
    parser.add_argument(
        "--limit", type=int, default=DEFAULT_LIMIT, help="most samples or pairs; 0 for all [%(default)s]"
    )
    parser.add_argument("--seed", type=int, default=0, help="which samples are drawn [%(default)s]")
    parser.add_argument("--split", choices=SPLITS, help="samples of this split alone")
    pixels = f"longer side of a picture [{DEFAULT_PIXELS}; in a gallery {GALLERY_PIXELS}]"
    parser.add_argument("--pixels", type=int, help=pixels)
    parser.add_argument("--json", action="store_true", help="print what the page shows as JSON on stdout")
    parser.add_argument("--quiet", action="store_true", help="no progress bar")
    return parser


def _run(parser: argparse.ArgumentParser, options: argparse.Namespace) -> int:
    log_to_stderr()
    view = View(limit=options.limit, seed=options.seed, split=options.split, pixels=options.pixels, quiet=options.quiet)
    is_sized = view.pixels is None or MIN_PIXELS <= view.pixels <= MAX_PIXELS
    if view.limit < 0 or view.seed < 0 or not is_sized:
        parser.error(f"expected --limit and --seed of 0 or more, and --pixels of {MIN_PIXELS} to {MAX_PIXELS}")
    if options.what.endswith(".parquet"):
        shown = _show_any_table(parser, options, view)
    elif options.build is None:
        shown = show_build(options.what, options.out, view)
    else:
        parser.error("a build takes no --build; a table (.parquet) does")
    sys.stdout.write((msgspec.json.encode(shown).decode() if options.json else _told(shown)) + "\n")
    return 0


def _told(shown: Shown) -> str:
    return f"{shown.page}: {shown.samples:,} samples with {shown.prompts:,} prompts, {shown.num_bytes / 1e6:.1f} MB"


def _show_any_table(parser: argparse.ArgumentParser, options: argparse.Namespace, view: View) -> Shown:
    from shards.gallery_rows import build_of_table, kind_of_table

    kind = kind_of_table(options.what)
    folder = options.build or build_of_table(options.what)
    if folder is None:
        parser.error(f"{options.what} lies in no finished build and its metadata names none: it needs --build DIR")
    if kind is None:
        return show_table(options.what, folder, options.out, view)
    return show_pairs(options.what, kind, folder, options.out, view)


def main(argv: Sequence[str] | None = None) -> int:
    """The command's exit code: 0, 1 for a user's mistake; a wrong option exits with 2."""
    parser = _parser()
    options = parser.parse_args(argv)
    return run_command(lambda: _run(parser, options))


if __name__ == "__main__":
    sys.exit(main())
