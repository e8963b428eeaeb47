"""What a finished build says of itself: `manifest.json`, and the wids index of each split.

The manifest is written after everything that it names and renamed into place, so its existence means that the build
completed. It holds no clock, no host and no path outside the build's own folder.
"""

import msgspec

from manifests import files
from manifests.errors import ManifestError, Rejected
from manifests.recipe import Recipe

MANIFEST_SCHEMA = 1
MANIFEST_NAME = "manifest.json"


class Shard(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One tar of a build, as its split's wids index lists it."""

    url: str  # relative to the index
    nsamples: int
    filesize: int
    sha256: str
    counts: dict[str, int]  # samples by source


class SplitIndex(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The wids index of one split: `train.json` and its siblings."""

    wids_version: int = 1
    shardlist: list[Shard]


class Achieved(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What was asked for beside what came out."""

    requested: float
    achieved: int


class Pairs(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Image–phrase pairs of one source: absences are asked in proportion to presences."""

    present: int
    absent: Achieved


class SplitMix(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The mix of one split, by source and by kind of prompt."""

    samples: dict[str, Achieved]  # by source
    prompts: dict[str, Achieved]  # absent prompts by kind
    pairs: dict[str, Pairs]  # by source


class WorstPhrase(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A phrase whose answer can be guessed without looking."""

    phrase: str
    present: int
    absent: int


class Shortcuts(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How well presence can be guessed without looking at the picture: AUCs, 0.5 is perfect and 1.0 a leak."""

    bound: float
    phrase: float
    source: float
    pixels: float
    num_bytes: float
    worst_phrases: list[WorstPhrase]
    warnings: list[str]


class Rejects(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What was dropped and what was put right."""

    images: int  # input images, rejected ones among them
    rejected_images: int
    by_reason: dict[str, int]
    repaired: dict[str, int]
    awaiting_phrases: int  # catalogued, not planned: nothing is known of them yet


class Manifest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A finished build."""

    schema: int = MANIFEST_SCHEMA
    name: str
    recipe: Recipe  # without the folder that its paths start from
    recipe_sha256: str
    inputs_sha256: str
    seed: int
    splits: dict[str, list[Shard]]
    mix: dict[str, SplitMix]
    encoder: str
    shortcuts: Shortcuts
    mining: dict[str, object]
    leaks: list[str]
    rejects: Rejects
    notes: list[str]  # shortfalls and warnings, one sentence each
    tables: dict[str, str]  # sha256 of each table, by file name
    versions: dict[str, str]


class _SchemaOnly(msgspec.Struct):
    schema: int


def encode_manifest(manifest: Manifest) -> bytes:
    """JSON of `manifest`, indented for people."""
    return msgspec.json.format(msgspec.json.encode(manifest), indent=2) + b"\n"


def decode_manifest(data: bytes, *, where: str) -> Manifest:
    """The manifest in `data`; `where` names it in messages.

    Raises:
        ManifestError: it is damaged, of a newer version, or names a shard outside its folder.
    """
    try:
        found = msgspec.json.decode(data, type=_SchemaOnly).schema
        if found > MANIFEST_SCHEMA:
            raise ManifestError(
                f"{where}: manifest schema {found} is newer than {MANIFEST_SCHEMA}, which this version reads; "
                "upgrade absentia"
            )
        manifest = msgspec.json.decode(data, type=Manifest)
        _require_inside(manifest)
    except (msgspec.MsgspecError, Rejected) as error:
        raise ManifestError(
            f"{where}: not a manifest of schema {MANIFEST_SCHEMA}: {error}; delete it and build it again"
        ) from error
    return manifest


def _require_inside(manifest: Manifest) -> None:
    """Reject shards that lie outside the build's folder."""
    for listed in manifest.splits.values():
        for shard in listed:
            files.safe_member(shard.url)


def read_manifest(folder: str) -> Manifest:
    """The manifest of the build in `folder`.

    Raises:
        ManifestError: there is none, because the build did not finish or the folder holds none; or it is damaged.
    """
    where = files.join(folder, MANIFEST_NAME)
    try:
        data = files.read_bytes(where)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise ManifestError(
            f"{where}: not found; expected a finished build. Build it, or run its command again to finish it"
        ) from error
    return decode_manifest(data, where=where)


def index_name(split: str) -> str:
    """File name of a split's wids index."""
    return f"{split}.json"


def encode_index(shards: list[Shard]) -> bytes:
    """JSON of a split's wids index."""
    return msgspec.json.format(msgspec.json.encode(SplitIndex(shardlist=shards)), indent=2) + b"\n"
