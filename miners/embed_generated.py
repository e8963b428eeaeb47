"""Rows of the generated pictures of a build, which stand in its shards and in no catalog.

Mining does not look at them; training does, so the tables of a build are whole only with them.
"""

import hashlib
from collections.abc import Iterator
from functools import partial

import msgspec
import pyarrow as pa
import pyarrow.compute as pc
from rich.progress import Progress

from manifests import files
from manifests.stage import Inline, run_stage
from manifests.tables import SAMPLES, iterate_table
from miners.embed_parts import input_digest_of
from miners.embedding_files import embedding_writer
from miners.encoders import Encoder
from miners.streaming import Wanted, encode_pictures
from shards.originals import Original

_PLACE = ["image_key", "shard", "offset", "num_bytes", "sha256"]


class GeneratedRecord(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The finished rows of a build's generated pictures."""

    images: int


class GeneratedPart(msgspec.Struct, frozen=True, kw_only=True):
    """All generated pictures of a build; the name holds the digest of the encoder and of their bytes."""

    name: str
    originals: tuple[Original, ...]

    @property
    def weight(self) -> int:
        """How many pictures it holds."""
        return len(self.originals)


def generated_part(build: str, known: pa.ChunkedArray, encoder: Encoder) -> GeneratedPart:
    """The pictures of the build's samples whose key is not among the `known` ones of its catalog."""
    originals = {original.key: original for original in _strangers(build, known)}
    digest = hashlib.sha256(encoder.digest.encode())
    for original in originals.values():
        digest.update(f"\n{original.key} {original.sha256}".encode())
    return GeneratedPart(name=f"generated-{digest.hexdigest()[:16]}", originals=tuple(originals.values()))


def _strangers(build: str, known: pa.ChunkedArray) -> Iterator[Original]:
    keys = known.combine_chunks()
    for rows in iterate_table(files.join(build, "samples.parquet"), SAMPLES, _PLACE):
        for row in rows.filter(pc.invert(pc.is_in(rows["image_key"], value_set=keys))).to_pylist():
            yield Original(
                key=row["image_key"],
                uri=files.join(build, row["shard"]),
                offset=row["offset"],
                num_bytes=row["num_bytes"],
                sha256=row["sha256"],
            )


def embed_generated(part: GeneratedPart, encoder: Encoder, *, folder: str, progress: Progress, batch: int) -> int:
    """How many generated pictures now have their rows in a table of `folder`.

    Raises:
        BuildError: a picture is gone, changed or does not decode, or the encoder gives a row that is no direction.
    """
    if not part.originals:
        return 0
    run = partial(_run, encoder=encoder, folder=folder, batch=batch)
    (record,) = run_stage(
        "generated", [part], run, GeneratedRecord, folder=folder, executor=Inline(), progress=progress
    )
    return record.images


def _run(part: GeneratedPart, *, encoder: Encoder, folder: str, batch: int) -> GeneratedRecord:
    asked = [(original.key, original.sha256) for original in part.originals]
    uri = files.join(folder, f"{part.name}.parquet")
    with embedding_writer(uri, encoder, input_digest=input_digest_of(asked)) as writer:
        for rows in encode_pictures((Wanted(original=one) for one in part.originals), encoder, batch=batch):
            writer.add(rows.wanted.original.key, "", [], rows.whole_d)
    return GeneratedRecord(images=len(part.originals))
