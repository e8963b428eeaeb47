"""Small true things for tests: pictures, masks, prompts, samples, and a whole finished build of them."""

import hashlib
import io
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np
import pyarrow as pa
from PIL import Image

from manifests import files, tables
from manifests.errors import Reason
from manifests.manifest import (
    MANIFEST_NAME,
    Achieved,
    Manifest,
    Pairs,
    Rejects,
    Shard,
    Shortcuts,
    SplitMix,
    encode_index,
    encode_manifest,
    index_name,
)
from manifests.recipe import SPLITS, BlankSource, CocoSource, Recipe, Sa1bSource, SourceTable, recipe_sha256
from manifests.sample import (
    Evidence,
    Mask,
    MaskState,
    NegativeKind,
    Origin,
    Prompt,
    Sample,
    encode_sample,
)
from shards.masks import mask_from_array
from shards.tar import ShardWriter, Written

PHRASES = ("cat", "dog", "kite", "red car")  # the vocabulary "photos", over which the source `photos` is exhaustive
OPEN_PHRASE = "shadow"  # asked of the first picture of each split and left open
LICENCE = "CC BY 4.0"


def make_jpeg(width: int = 64, height: int = 48, *, seed: int = 0, quality: int = 90) -> bytes:
    """A colourful JPEG of soft blobs; other seeds give pictures that no hash takes for the same."""
    coarse = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    encoded = io.BytesIO()
    Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC).save(encoded, "JPEG", quality=quality)
    return encoded.getvalue()


def make_mask(
    width: int = 64, height: int = 48, *, left: int = 8, top: int = 6, right: int = 40, bottom: int = 30
) -> Mask:
    """A rectangle, its right and bottom edges excluded."""
    array_hw = np.zeros((height, width), np.bool_)
    array_hw[top:bottom, left:right] = True
    return mask_from_array(array_hw)


def present(phrase: str, *masks: Mask, mask_state: MaskState | None = None) -> Prompt:
    """A prompt whose phrase is there; without masks as boxes give it."""
    state = mask_state or (MaskState.COMPLETE if masks else MaskState.NONE)
    return Prompt(phrase=phrase, present=True, mask_state=state, masks=masks, evidence=Evidence.ANNOTATED)


def absent(phrase: str, kind: NegativeKind = NegativeKind.RANDOM, *, evidence: Evidence = Evidence.ANNOTATED) -> Prompt:
    """A prompt whose phrase is not there."""
    return Prompt(phrase=phrase, present=False, mask_state=MaskState.COMPLETE, kind=kind, evidence=evidence)


@dataclass(frozen=True, slots=True, kw_only=True)
class Made:
    """A sample with all that a build says of it."""

    sample: Sample
    jpeg: bytes
    split: str
    image_key: str  # the sample's key without its `-rN`
    exhaustive_over: tuple[str, ...] = ()
    open_over: tuple[str, ...] = ()
    open_phrases: tuple[str, ...] = ()


def make_sample(
    key: str,
    *prompts: Prompt,
    split: str = "train",
    jpeg: bytes | None = None,
    width: int = 64,
    height: int = 48,
    image_key: str = "",
    exhaustive_over: tuple[str, ...] = (),
    open_phrases: tuple[str, ...] = (),
) -> Made:
    """A sample of the source that its key starts with; its picture follows from its image key."""
    image_key = image_key or key
    seed = int.from_bytes(hashlib.sha256(image_key.encode()).digest()[:4], "little")
    data = make_jpeg(width, height, seed=seed) if jpeg is None else jpeg
    origin = Origin(
        uri=f"pictures/{image_key}.jpg",
        offset=0,
        num_bytes=len(data),
        sha256=hashlib.sha256(data).hexdigest(),
        licence=LICENCE,
        encoded=False,
    )
    sample = Sample(
        key=key, source=key.partition("-")[0], width=width, height=height, origin=origin, prompts=tuple(prompts)
    )
    return Made(
        sample=sample,
        jpeg=data,
        split=split,
        image_key=image_key,
        exhaustive_over=exhaustive_over,
        open_phrases=open_phrases,
    )


def make_samples(num_photos: Mapping[str, int] | None = None) -> list[Made]:
    """A small mix in written order.

    Per split: `photos`, each with two present phrases of `PHRASES` (one with a mask, one with two) and the other two
    absent; one picture of `tars` with a partial mask and nothing absent; one `blank` picture. In train the first photo
    stands a second time as `-r1`.
    """
    made: list[Made] = []
    for split, num in (num_photos or {"train": 6, "val": 3, "test": 3}).items():
        made += [_photo(split, number) for number in range(num)]
        if split == "train":
            first = made[0]
            again = msgspec.structs.replace(first.sample, key=f"{first.sample.key}-r1")
            made.append(Made(sample=again, jpeg=first.jpeg, split=split, image_key=first.image_key))
        mask = make_mask(80, 60, left=20, top=0, right=80, bottom=33)
        one = present("tree", mask, mask_state=MaskState.PARTIAL)
        made.append(make_sample(f"tars-sa_{len(made)}", one, split=split, width=80, height=60))
        made.append(_blank(split, len(made)))
    return made


def _photo(split: str, number: int) -> Made:
    width, height = (64, 48) if number % 2 == 0 else (40, 56)
    here, there, *gone = (PHRASES[(number + step) % len(PHRASES)] for step in range(len(PHRASES)))
    one = make_mask(width, height, left=4 + number % 9, top=5, right=30, bottom=20 + number % 9)
    two = make_mask(width, height, left=0, top=30, right=12, bottom=44)
    return make_sample(
        f"photos-{split}_{number:02d}",
        present(here, one),
        present(there, one, two),
        absent(gone[0]),
        absent(gone[1], NegativeKind.CO_OCCURRING),
        split=split,
        width=width,
        height=height,
        exhaustive_over=("photos",),
        open_phrases=(OPEN_PHRASE,) if number == 0 else (),
    )


def _blank(split: str, index: int) -> Made:
    encoded = io.BytesIO()
    Image.new("RGB", (64, 48), (index, 2 * index, 9)).save(encoded, "JPEG")
    digest = hashlib.sha256(encoded.getvalue()).hexdigest()
    prompts = [absent(phrase, NegativeKind.BLANK, evidence=Evidence.GENERATED) for phrase in PHRASES[:2]]
    return make_sample(f"blank-{index}-{digest[:8]}", *prompts, split=split, jpeg=encoded.getvalue())


def make_recipe(**changes: object) -> Recipe:
    """The recipe of `make_samples`, with some fields changed."""
    sources: dict[str, SourceTable] = {
        "photos": CocoSource(images="pictures", annotations="instances.json"),
        "tars": Sa1bSource(data="sa_*.tar", phrases="phrases.parquet"),
        "blank": BlankSource(),
    }
    recipe = Recipe(name="tiny", shard_samples=3, mix={"photos": "rest", "tars": 0.2, "blank": 0.2}, sources=sources)
    return msgspec.structs.replace(recipe, **changes)


def make_build(
    folder: Path,
    samples: Sequence[Made] | None = None,
    *,
    shard_samples: int = 3,
    vocabularies: Mapping[str, Sequence[str]] | None = None,
    recipe: Recipe | None = None,
) -> Path:
    """`folder`, now a finished build of `samples` (in written order within each split): shards, tables, manifest."""
    samples = make_samples() if samples is None else samples
    recipe = recipe or make_recipe(shard_samples=shard_samples)
    root = str(folder)
    places: dict[str, tuple[str, Written]] = {}
    splits = {split: _write_shards(root, split, samples, shard_samples, places) for split in SPLITS}
    digests = _write_tables(root, samples, places, vocabularies or {"photos": PHRASES})
    for split, shards in splits.items():
        files.write_bytes(files.join(root, index_name(split)), encode_index(shards))
    files.write_bytes(files.join(root, "summary.md"), f"# {recipe.name}\n".encode())
    manifest = _manifest(recipe, samples, splits, digests)
    files.write_bytes(files.join(root, MANIFEST_NAME), encode_manifest(manifest))
    return folder


def _write_shards(
    root: str, split: str, samples: Sequence[Made], shard_samples: int, places: dict[str, tuple[str, Written]]
) -> list[Shard]:
    of_split = [made for made in samples if made.split == split]
    shards = []
    for number, first in enumerate(range(0, len(of_split), shard_samples)):
        url = f"shards/{split}-{number:06d}.tar"
        held = of_split[first : first + shard_samples]
        with files.commit(files.join(root, url)) as file:
            writer = ShardWriter(file)
            for made in held:
                written = writer.add(made.sample.key, made.jpeg, encode_sample(made.sample))
                places[made.sample.key] = (url, written)
            sha256 = writer.close()
        counts = dict(sorted(Counter(made.sample.source for made in held).items()))
        size = files.num_bytes(files.join(root, url))
        shards.append(Shard(url=url, nsamples=len(held), filesize=size, sha256=sha256, counts=counts))
    return shards


def _write_tables(
    root: str,
    samples: Sequence[Made],
    places: Mapping[str, tuple[str, Written]],
    vocabularies: Mapping[str, Sequence[str]],
) -> dict[str, str]:
    """The sha256 of each table, by file name."""
    in_order = [made for split in SPLITS for made in samples if made.split == split]
    images = {made.image_key: made for made in reversed(in_order)}
    rows: dict[str, tuple[pa.Schema, list[tuple[object, ...]]]] = {
        "samples": (tables.SAMPLES, [row for made in in_order for row in _sample_rows(made, *places[made.sample.key])]),
        "images": (tables.IMAGES, [_image_row(images[key]) for key in sorted(images)]),
        "labels": (tables.LABELS, [row for key in sorted(images) for row in _label_rows(images[key])]),
        "vocabularies": (tables.VOCABULARIES, [(name, p) for name in sorted(vocabularies) for p in vocabularies[name]]),
        "negatives": (tables.NEGATIVES, []),
        "rejects": (
            tables.REJECTS,
            [("scan", "photos", "pictures/broken.jpg", "", Reason.TRUNCATED, "no end marker (FF D9)")],
        ),
    }
    for name, (schema, values) in rows.items():
        with tables.table_writer(files.join(root, f"{name}.parquet"), schema) as writer:
            for row in values:
                writer.add(*row)
    return {f"{name}.parquet": files.sha256_file(files.join(root, f"{name}.parquet")) for name in sorted(rows)}


def _sample_rows(made: Made, url: str, written: Written) -> list[tuple[object, ...]]:
    sample = made.sample
    sha256 = hashlib.sha256(made.jpeg).hexdigest()
    of_sample = (sample.key, made.image_key, made.split, sample.source, url, written.offset, written.num_bytes, sha256)
    return [
        (
            *of_sample,
            sample.width,
            sample.height,
            prompt.phrase,
            prompt.present,
            prompt.mask_state,
            prompt.kind or "",
            prompt.evidence,
            prompt.score,
            prompt.standard_score,
            prompt.rank,
            prompt.positive_key,
            prompt.positive_score,
        )
        for prompt in sample.prompts
    ]


def _image_row(made: Made) -> tuple[object, ...]:
    sample = made.sample
    over = (list(made.exhaustive_over), list(made.open_over))
    group = made.image_key
    return (group, made.split, sample.source, sample.width, sample.height, *over, sample.origin.licence, group)


def _label_rows(made: Made) -> list[tuple[object, ...]]:
    known = [
        (made.image_key, p.phrase, "present", p.mask_state, [msgspec.to_builtins(mask) for mask in p.masks], "source")
        for p in made.sample.prompts
        if p.present
    ]
    left_open: list[tuple[object, ...]] = [
        (made.image_key, phrase, "open", MaskState.NONE, [], "source") for phrase in made.open_phrases
    ]
    return sorted([*known, *left_open], key=lambda row: str(row[1]))


def _manifest(
    recipe: Recipe, samples: Sequence[Made], splits: dict[str, list[Shard]], digests: dict[str, str]
) -> Manifest:
    return Manifest(
        name=recipe.name,
        recipe=msgspec.structs.replace(recipe, folder=""),
        recipe_sha256=recipe_sha256(recipe),
        inputs_sha256=hashlib.sha256(b"".join(made.jpeg for made in samples)).hexdigest(),
        seed=recipe.seed,
        splits=splits,
        mix={split: _split_mix([made.sample for made in samples if made.split == split]) for split in SPLITS},
        encoder="",
        shortcuts=Shortcuts(
            bound=0.6, phrase=0.5, source=0.5, pixels=0.5, num_bytes=0.5, worst_phrases=[], warnings=[]
        ),
        mining={},
        leaks=[],
        rejects=Rejects(
            images=len({made.image_key for made in samples}) + 1,
            rejected_images=1,
            by_reason={Reason.TRUNCATED: 1},
            repaired={},
            awaiting_phrases=0,
        ),
        notes=[],
        tables=digests,
        versions={"absentia": "0"},
    )


def _split_mix(samples: Sequence[Sample]) -> SplitMix:
    by_source = Counter(sample.source for sample in samples)
    by_kind = Counter(str(p.kind) for sample in samples for p in sample.prompts if p.kind is not None)
    here = Counter(sample.source for sample in samples for p in sample.prompts if p.present)
    gone = Counter(sample.source for sample in samples for p in sample.prompts if not p.present)
    return SplitMix(
        samples={source: Achieved(requested=n, achieved=n) for source, n in sorted(by_source.items())},
        prompts={kind: Achieved(requested=n, achieved=n) for kind, n in sorted(by_kind.items())},
        pairs={
            source: Pairs(present=here[source], absent=Achieved(requested=gone[source], achieved=gone[source]))
            for source in sorted(by_source)
        },
    )
