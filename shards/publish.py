"""Turn finished shards into a build: tables and indexes, and the manifest after everything that it names."""

import hashlib
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from manifests import files
from manifests.croissant import CROISSANT_NAME, croissant
from manifests.errors import TableError
from manifests.manifest import (
    MANIFEST_NAME,
    Achieved,
    Manifest,
    Pairs,
    Rejects,
    Shard,
    SplitMix,
    encode_index,
    encode_manifest,
    index_name,
)
from manifests.recipe import SPLITS, Recipe, portable, recipe_sha256, side_files
from manifests.sample import KINDS, decode_masks
from manifests.tables import (
    CATALOG,
    IMAGES,
    LABELS,
    NEGATIVES,
    PLAN,
    REJECTS,
    ROW_GROUP,
    SAMPLES,
    VOCABULARIES,
    TableWriter,
    iterate_table,
    read_metadata,
    read_table,
    table_writer,
)
from shards.build import SHARD_URL, ShardRecord
from shards.draw import GENERATED, SplitDraw, generated_sources, leak_keys
from shards.inventory import KNOWN_BY, MASK_STATES, STATES, Inventory
from shards.library_versions import library_versions
from shards.mined import Mined
from shards.plan import ShardPart
from shards.prompts import NO_KIND, Asked
from shards.scan import duplicate_of
from shards.shortcuts import AUDITED, audit
from shards.sources.source import SYNONYMS, Prepared, Reject
from shards.splits import Assignment
from shards.summary import summarise

SUMMARY_NAME = "summary.md"
TABLES = ("samples", "images", "labels", "vocabularies", "negatives", "rejects")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Finished:
    """Everything that a build's tables are made of."""

    recipe: Recipe
    inventory: Inventory
    prepared: Mapping[str, Prepared]
    assignment: Assignment
    draws: Sequence[SplitDraw]
    asked: Sequence[Asked]
    pictures: Mapping[str, pa.Table]  # CATALOG rows of generated pictures by split
    parts: Sequence[ShardPart]
    records: Sequence[ShardRecord]
    late_rejects: Sequence[tuple[str, Reject]] = ()  # source and reject, of what only the whole source could show
    mined: Mined | None = None  # what train was asked from
    negatives: Sequence[str] = ()  # the tables that it was read from; the first one's record goes into the manifest


def inputs_sha256(inventory: Inventory, recipe: Recipe) -> str:
    """Digest of all catalog and label contents, of the vocabularies, the recipe's files, and what implies what."""
    content = [[part.source, part.record.sha256] for part in inventory.parts]
    beside = [files.sha256_file(uri) for uri in side_files(recipe).values()]
    implied = hashlib.sha256(inventory.implied_starts.tobytes() + inventory.implied.tobytes()).hexdigest()
    whole = [content, sorted(inventory.vocabularies.items()), beside, implied]
    return hashlib.sha256(msgspec.json.encode(whole)).hexdigest()


def publish(finished: Finished, out: str) -> Manifest:
    """Write the tables, the indexes and the manifest of a build whose shards are all written."""
    _write_samples(finished, out)
    _write_images(finished, out)
    _write_labels(finished, out)
    _write_vocabularies(finished, out)
    _write_negatives(finished, out)
    _write_rejects(finished, out)
    shards = {split: _shards_of(finished, split) for split in SPLITS}
    for split, listed in shards.items():
        if listed:
            files.write_bytes(files.join(out, index_name(split)), encode_index(listed))
        else:
            files.remove(files.join(out, index_name(split)))
    _remove_stale_shards(shards, out)
    manifest = _manifest(finished, shards, out)
    files.write_bytes(files.join(out, SUMMARY_NAME), summarise(manifest).encode())
    files.write_bytes(files.join(out, CROISSANT_NAME), describe_build(manifest, out))
    files.write_bytes(files.join(out, MANIFEST_NAME), encode_manifest(manifest))
    return manifest


def describe_build(manifest: Manifest, out: str) -> bytes:
    """`croissant.json` of the build whose tables lie in `out`."""
    sizes = {name: files.num_bytes(files.join(out, name)) for name in manifest.tables}
    licences = pc.unique(read_table(table_uri(out, "images"), IMAGES, ["licence"])["licence"])
    return croissant(manifest, sizes, licences.to_pylist())


def table_uri(out: str, name: str) -> str:
    """Where a build's table lies."""
    return files.join(out, f"{name}.parquet")


def is_own_table(build: str, uri: str) -> bool:
    """Whether `uri` is one of the tables that the manifest of `build` names."""
    folder, _, name = uri.rpartition("/")
    if name not in {f"{table}.parquet" for table in TABLES}:
        return False
    if files.is_local(build) and files.is_local(uri):
        return os.path.realpath(folder or ".") == os.path.realpath(build)
    return folder.rstrip("/") == build.rstrip("/")


def _shards_of(finished: Finished, split: str) -> list[Shard]:
    return [record.shard for part, record in zip(finished.parts, finished.records, strict=True) if part.split == split]


def _write_samples(finished: Finished, out: str) -> None:
    with table_writer(table_uri(out, "samples"), SAMPLES) as writer:
        for part, record in zip(finished.parts, finished.records, strict=True):
            writer.add_table(_sample_rows(part, record))


def _sample_rows(part: ShardPart, record: ShardRecord) -> pa.Table:
    """Rows of samples.parquet for one shard."""
    prompts, images = read_table(part.plan, PLAN), read_table(part.images, CATALOG)
    position = prompts["position"].to_numpy()
    sample_q = np.unique(position, return_inverse=True)[1]
    taken = images.select(["source", "width", "height"]).take(pa.array(sample_q))
    columns = {name: prompts[name] for name in PLAN.names if name in SAMPLES.names}
    columns |= {name: taken[name] for name in taken.column_names}
    columns["shard"] = pa.array([record.shard.url] * len(sample_q))
    columns["offset"] = pa.array(np.array(record.offsets)[sample_q])
    columns["num_bytes"] = pa.array(np.array(record.num_bytes)[sample_q])
    columns["sha256"] = pa.array(record.sha256).take(pa.array(sample_q))
    return pa.table({name: columns[name] for name in SAMPLES.names})


def _planned(finished: Finished) -> NDArray[np.int64]:
    """Rows of the inventory that stand in any split, each once, in written order: a shard's rows lie together."""
    rows = np.concatenate([draw.picture_s[draw.picture_s != GENERATED] for draw in finished.draws])
    return rows[np.sort(np.unique(rows, return_index=True)[1])]


def _write_images(finished: Finished, out: str) -> None:
    inventory, rows = finished.inventory, _planned(finished)
    images = inventory.images
    splits = pa.DictionaryArray.from_arrays(pa.array(finished.assignment.split_n[rows]), pa.array(list(SPLITS)))
    groups = images["key"].take(pa.array(finished.assignment.group_n[rows]))
    table = images.take(pa.array(rows)).append_column("split", splits.cast(pa.string())).append_column("group", groups)
    with table_writer(table_uri(out, "images"), IMAGES) as writer:
        writer.add_table(table)
        for split, made in finished.pictures.items():
            named = made.append_column("split", pa.array([split] * made.num_rows, pa.string()))
            writer.add_table(named.append_column("group", made["key"]))


def _write_labels(finished: Finished, out: str) -> None:
    inventory, planned = finished.inventory, _planned(finished)
    rows, owner = inventory.labels.rows_of(planned)
    keys = inventory.images["key"].take(pa.array(planned))
    with table_writer(table_uri(out, "labels"), LABELS) as writer:
        for start in range(0, len(rows), ROW_GROUP):
            here = slice(start, start + ROW_GROUP)
            _add_labels(writer, inventory, keys.take(pa.array(owner[here])).to_pylist(), rows[here])


def _add_labels(writer: TableWriter, inventory: Inventory, keys: Sequence[str], rows: NDArray[np.int64]) -> None:
    labels = inventory.labels
    for key, row in zip(keys, rows.tolist(), strict=True):
        uri = inventory.parts[labels.part_l[row]].masks
        num_bytes = int(labels.num_bytes_l[row])  # 0 for a presence that a person found
        masks = decode_masks(files.read_range(uri, int(labels.offset_l[row]), num_bytes)) if num_bytes else ()
        writer.add(
            key,
            inventory.phrases[labels.phrase_l[row]],
            str(STATES[labels.state_l[row]]),
            str(MASK_STATES[labels.mask_state_l[row]]),
            [{"size": mask.size, "counts": mask.counts} for mask in masks],
            KNOWN_BY[labels.known_by_l[row]],
        )


def _write_vocabularies(finished: Finished, out: str) -> None:
    """Write the vocabularies; what the sources call the same goes into the metadata, for builds made of this one."""
    same = sorted({group for holds in finished.prepared.values() for group in holds.synonyms})
    metadata = {SYNONYMS: msgspec.json.encode(same).decode()} if same else {}
    with table_writer(table_uri(out, "vocabularies"), VOCABULARIES, metadata) as writer:
        for name, phrases in sorted(finished.inventory.vocabularies.items()):
            for phrase in phrases:
                writer.add(name, phrase)


def _write_negatives(finished: Finished, out: str) -> None:
    """Copy every row of the negatives tables, asked or not, under the metadata of the first."""
    metadata = read_metadata(finished.negatives[0], NEGATIVES) if finished.negatives else {}
    with table_writer(table_uri(out, "negatives"), NEGATIVES, metadata) as writer:
        for uri in finished.negatives:
            for rows in iterate_table(uri, NEGATIVES):
                writer.add_table(rows)


def mining_record(negatives: Sequence[str]) -> tuple[str, dict[str, object]]:
    """The encoder and the record that the miner left in the metadata of the first table that has one.

    Raises:
        TableError: the record is no JSON object.
    """
    for uri in negatives:
        metadata = read_metadata(uri, NEGATIVES)
        if "mining" not in metadata:
            continue
        try:
            return metadata.get("encoder", ""), msgspec.json.decode(metadata["mining"], type=dict[str, object])
        except msgspec.MsgspecError as error:
            raise TableError(
                f"{uri}: its mining record is no JSON object: {error}; expected what the miner wrote. Mine it anew"
            ) from error
    return "", {}


def _write_rejects(finished: Finished, out: str) -> None:
    with table_writer(table_uri(out, "rejects"), REJECTS) as writer:
        for source, reject in _whole_source_rejects(finished):
            writer.add("prepare", source, reject.where, reject.phrase, str(reject.reason), reject.detail)
        for part in finished.inventory.parts:
            for rows in iterate_table(part.rejects, REJECTS):
                writer.add_table(rows)


def _whole_source_rejects(finished: Finished) -> list[tuple[str, Reject]]:
    """Rejects that no single part shows, by source."""
    found = [(source, reject) for source, holds in finished.prepared.items() for reject in holds.rejects]
    found.extend(finished.late_rejects)
    for source, key in finished.inventory.duplicates:
        reason, detail = duplicate_of(key)
        found.append((source, Reject(where=key, reason=reason, detail=detail, image=True)))
    return found


def _remove_stale_shards(shards: Mapping[str, Sequence[Shard]], out: str) -> None:
    """Delete shards of an earlier plan that this build no longer names, and nothing else that lies beside them."""
    named = {shard.url for listed in shards.values() for shard in listed}
    for uri in files.list_files(files.join(out, "shards")):
        url = files.relative(uri, out)
        if SHARD_URL.fullmatch(url) and url not in named:
            files.remove(uri)


def _manifest(finished: Finished, shards: Mapping[str, list[Shard]], out: str) -> Manifest:
    recipe, inventory = finished.recipe, finished.inventory
    audited = read_table(table_uri(out, "samples"), SAMPLES, AUDITED)
    encoder, mining = mining_record(finished.negatives)
    mined_notes = finished.mined.notes() if finished.mined is not None else ()
    return Manifest(
        name=recipe.name,
        recipe=portable(recipe),
        recipe_sha256=recipe_sha256(recipe),
        inputs_sha256=inputs_sha256(inventory, recipe),
        seed=recipe.seed,
        splits={split: listed for split, listed in shards.items() if listed},
        mix={
            draw.split: _split_mix(draw, asked, finished, audited)
            for draw, asked in zip(finished.draws, finished.asked, strict=True)
        },
        encoder=encoder,
        shortcuts=audit(audited, list(generated_sources(recipe))),
        mining=mining,
        leaks=leak_keys(inventory, finished.assignment.leaks),
        rejects=_rejects(finished),
        notes=[*(note for asked in finished.asked for note in asked.notes), *mined_notes],
        tables={f"{name}.parquet": files.sha256_file(table_uri(out, name)) for name in TABLES},
        versions=library_versions(finished.recipe),
    )


def _split_mix(draw: SplitDraw, asked: Asked, finished: Finished, audited: pa.Table) -> SplitMix:
    """Requested and achieved mix of one split."""
    rows = audited.filter(pc.equal(audited["split"], draw.split))
    counted = rows.group_by(["source", "present"]).aggregate([([], "count_all")]).to_pylist()
    pairs = Counter({(row["source"], row["present"]): row["count_all"] for row in counted})
    absent = np.bincount(asked.kind_q[asked.kind_q != NO_KIND], minlength=len(KINDS)).tolist()
    kinds = dict(zip(map(str, KINDS), absent, strict=True))
    wanted = {finished.inventory.sources[s]: num for s, num in asked.absent_requested.items()}
    made = finished.recipe.prompts.generated_per_image
    wanted |= {name: float(made * draw.mix.achieved[name]) for name in generated_sources(finished.recipe)}
    return SplitMix(
        samples={
            name: Achieved(requested=float(draw.mix.requested[name]), achieved=draw.mix.achieved[name])
            for name in draw.mix.names
        },
        prompts={kind: Achieved(requested=num, achieved=kinds[kind]) for kind, num in asked.requested.items()},
        pairs={
            name: Pairs(
                present=pairs[name, True],
                absent=Achieved(requested=wanted.get(name, 0.0), achieved=pairs[name, False]),
            )
            for name in draw.mix.names
        },
    )


def _rejects(finished: Finished) -> Rejects:
    records = [part.record for part in finished.inventory.parts]
    whole = [reject for _, reject in _whole_source_rejects(finished)]
    by_reason = sum((Counter(record.rejects) for record in records), Counter(str(r.reason) for r in whole))
    repaired = sum((Counter(record.repaired) for record in records), Counter[str]())
    return Rejects(
        images=sum(record.images for record in records),
        rejected_images=sum(record.rejected_images for record in records) + sum(r.image for r in whole),
        by_reason=dict(sorted(by_reason.items())),
        repaired={name: count for name, count in sorted(repaired.items()) if count},
        awaiting_phrases=int((~finished.inventory.known_n()).sum()),
    )
