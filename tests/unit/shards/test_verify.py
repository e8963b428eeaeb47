"""`shards.verify` finds nothing in a sound build, and in a spoilt one the one thing that is wrong."""

import hashlib
import json
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import msgspec
import pyarrow.parquet as pq
import pytest

from manifests.manifest import MANIFEST_NAME, Manifest, encode_manifest, read_manifest
from manifests.sample import Evidence, Mask, MaskState, NegativeKind, Prompt
from shards.faults import Check, Fault, shortened
from shards.sources.source import SYNONYMS
from shards.verify import main, verify
from tests import damage
from tests.damage import Held, forge, load, rows_of, seal, write_rows
from tests.factories import absent, make_mask
from tests.worlds import REPOSITORY, build_world, write_world

TRAIN = "shards/train-000001.tar"  # the second: the first sample of a split has a rule of its own
change = msgspec.structs.replace


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    world = tmp_path_factory.mktemp("world")
    build_world(write_world(world, prompts={"absent_per_image": 2, "generated_per_image": 3}), world / "build")
    shutil.rmtree(world / "build" / "work")
    return world / "build"


@pytest.fixture
def build(sound: Path, tmp_path: Path) -> Path:
    """A sound build that the test may spoil."""
    return Path(shutil.copytree(sound, tmp_path / "build"))


def checks(faults: list[Fault]) -> set[Check]:
    return {fault.check for fault in faults}


# what is done to a build


def of_manifest(spoil: Callable[[Manifest], Manifest]) -> Callable[[Path], None]:
    return lambda folder: seal(folder, spoil)


def of_file(name: str, spoil: Callable[[bytes], bytes | None], *, sealed: bool = False) -> Callable[[Path], None]:
    def run(folder: Path) -> None:
        data = spoil((folder / name).read_bytes())
        if data is None:
            (folder / name).unlink()
        else:
            (folder / name).write_bytes(data)
        if sealed:
            seal(folder)

    return run


def of_members(spoil: Callable[[list[tuple[str, bytes]]], list[tuple[str, bytes]]]) -> Callable[[Path], None]:
    def run(folder: Path) -> None:
        damage.write_members(folder / TRAIN, spoil(damage.members(folder / TRAIN)))
        seal(folder)

    return run


def of_json(pattern: bytes, text: bytes) -> Callable[[Path], None]:
    """Change the last JSON of a shard, after which no offset moves."""

    def spoil(held: list[tuple[str, bytes]]) -> list[tuple[str, bytes]]:
        name, data = held[-1]
        spoilt = re.sub(pattern, text, data, count=1)
        assert spoilt != data
        return [*held[:-1], (name, spoilt)]

    return of_members(spoil)


def of_samples(spoil: Callable[[list[Held]], object]) -> Callable[[Path], None]:
    def run(folder: Path) -> None:
        held = load(folder)
        found = spoil(held)
        forge(folder, found if isinstance(found, list) else held)

    return run


def of_rows(name: str, spoil: Callable[[list[damage.Row]], object]) -> Callable[[Path], None]:
    def run(folder: Path) -> None:
        rows = rows_of(folder, name)
        found = spoil(rows)
        write_rows(folder, name, found if isinstance(found, list) else rows)
        seal(folder)

    return run


def pick(held: list[Held], *, split: str = "train", fits: Callable[[Held], bool] = lambda one: True) -> Held:
    """A real sample of `split`, not its first, with something present under a mask and something absent."""
    real = [one for one in held if one.split == split and one.sample.source in ("coco", "sa1b")][1:]
    usual = [one for one in real if masked(one) and any(not p.present for p in one.sample.prompts)]
    return next(one for one in usual if fits(one))


def masked(one: Held) -> bool:
    return any(prompt.masks for prompt in one.sample.prompts)


def with_prompts(one: Held, *prompts: Prompt) -> None:
    one.sample = change(one.sample, prompts=prompts)


def reprompt(
    which: Callable[[Prompt], bool], spoil: Callable[[Prompt], list[Prompt]], split: str = "train"
) -> Callable[[Path], None]:
    """Put other prompts for the first that fits of one sample."""

    def run(held: list[Held]) -> None:
        one = pick(held, split=split, fits=lambda found: any(map(which, found.sample.prompts)))
        place = next(index for index, prompt in enumerate(one.sample.prompts) if which(prompt))
        before, prompt, after = one.sample.prompts[:place], one.sample.prompts[place], one.sample.prompts[place + 1 :]
        with_prompts(one, *before, *spoil(prompt), *after)

    return of_samples(run)


def is_absent(prompt: Prompt) -> bool:
    return not prompt.present


def has_mask(prompt: Prompt) -> bool:
    return bool(prompt.masks)


def copy_of_other_kind(prompt: Prompt) -> list[Prompt]:
    other = NegativeKind.RANDOM if prompt.kind is NegativeKind.CO_OCCURRING else NegativeKind.CO_OCCURRING
    return [prompt, change(prompt, kind=other)]


def ask_hypernym(held: list[Held]) -> None:
    """Ask for an absent animal where a cat is."""
    pets = {"bird", "cat", "dog"}
    one = pick(held, fits=lambda found: any(p.present and p.phrase in pets for p in found.sample.prompts))
    prompts = [p for p in one.sample.prompts if p.phrase != "animal"]
    place = next(index for index, p in enumerate(prompts) if not p.present)
    prompts[place] = change(prompts[place], phrase="animal")
    with_prompts(one, *prompts)


def swap_masks_out(held: list[Held]) -> None:
    first = held[0]
    with_prompts(
        first, *(change(p, masks=(), mask_state=MaskState.NONE) if p.present else p for p in first.sample.prompts)
    )


def rename(new: Callable[[str], str]) -> Callable[[list[Held]], None]:
    def run(held: list[Held]) -> None:
        one = pick(held)
        one.sample = change(one.sample, key=new(one.sample.key))

    return run


def double_in_one_shard(held: list[Held]) -> list[Held]:
    one = pick(held)
    place = held.index(one)
    return [*held[:place], one, *held[place:]]


def key_in_two_shards(held: list[Held]) -> None:
    first, *_, last = (one for one in held if one.split == "train" and one.sample.source == "sa1b")
    last.sample, last.image_key, last.jpeg = first.sample, first.image_key, first.jpeg


def breaks_huffman(held: list[Held]) -> None:
    one = pick(held)
    place = one.jpeg.index(b"\xff\xc4") + 4
    one.jpeg = one.jpeg[:place] + b"\x13" + b"\xff" * 16 + one.jpeg[place + 17 :]
    seal_origin(one)


def seal_origin(one: Held) -> None:
    digest = hashlib.sha256(one.jpeg).hexdigest()
    one.sample = change(one.sample, origin=change(one.sample.origin, num_bytes=len(one.jpeg), sha256=digest))


def becomes_png(held: list[Held]) -> None:
    one = pick(held)
    one.jpeg = damage.png_of(one.jpeg)
    seal_origin(one)


def becomes_half(held: list[Held]) -> None:
    one = pick(held)
    one.jpeg = damage.half(one.jpeg)
    seal_origin(one)


def with_mask(spoil: Callable[[Mask], Mask]) -> Callable[[Path], None]:
    return reprompt(has_mask, lambda p: [change(p, masks=(spoil(p.masks[0]), *p.masks[1:]))])


def of_mix(split: str, **fields: object) -> Callable[[Path], None]:
    """Put other numbers into the mix of one split: `samples={"coco": {"achieved": 1}}`."""

    def spoil(manifest: Manifest) -> Manifest:
        mix = manifest.mix[split]
        for field, by_name in fields.items():
            told = dict(getattr(mix, field))
            for name, numbers in by_name.items():  # type: ignore[attr-defined]
                told[name] = change(told[name], **numbers)
            mix = change(mix, **{field: told})
        return change(manifest, mix={**manifest.mix, split: mix})

    return of_manifest(spoil)


def of_shard(**fields: object) -> Callable[[Path], None]:
    def spoil(manifest: Manifest) -> Manifest:
        train = manifest.splits["train"]
        return change(manifest, splits={**manifest.splits, "train": [train[0], change(train[1], **fields), *train[2:]]})

    return of_manifest(spoil)


def tear_group(rows: list[damage.Row]) -> None:
    train = next(row for row in rows if row["split"] == "train")
    next(row for row in rows if row["split"] == "val")["group"] = train["group"]


def open_an_absence(folder: Path) -> None:
    asked = next(row for row in rows_of(folder, "samples") if not row["present"] and row["source"] == "coco")
    label = {"key": asked["image_key"], "phrase": str(asked["phrase"]).upper(), "state": "open", "mask_state": "none"}
    write_rows(folder, "labels", [*rows_of(folder, "labels"), {**label, "masks": [], "known_by": "source"}])
    seal(folder)


def forget_a_presence(folder: Path) -> None:
    asked = next(row for row in rows_of(folder, "samples") if row["present"])
    kept = [
        row for row in rows_of(folder, "labels") if (row["key"], row["phrase"]) != (asked["image_key"], asked["phrase"])
    ]
    write_rows(folder, "labels", kept)
    seal(folder)


def first(rows: list[damage.Row], **fields: object) -> None:
    rows[0].update(fields)


def move(rows: list[damage.Row]) -> None:
    """Put the rows of a sample before those of the one before it."""
    keys = list(dict.fromkeys(row["key"] for row in rows))
    order = {key: place for place, key in enumerate([keys[1], keys[0], *keys[2:]])}
    rows.sort(key=lambda row: order[row["key"]])


def shards_swapped(rows: list[damage.Row]) -> None:
    order = {"shards/train-000001.tar": 2.5}
    places = {shard: place for place, shard in enumerate(dict.fromkeys(row["shard"] for row in rows))}
    rows.sort(key=lambda row: order.get(str(row["shard"]), places[row["shard"]]))


def newer_table(folder: Path) -> None:
    import pyarrow.parquet as pq

    table = pq.read_table(folder / "labels.parquet")
    pq.write_table(table.replace_schema_metadata({b"absentia.schema": b"99"}), folder / "labels.parquet")
    seal(folder)


def end_of(data: bytes) -> bytes:
    return data.rstrip(b"\0")


ONE_MORE: damage.Row = {"vocabulary": "coco", "phrase": "unicorn"}

CASES: dict[str, tuple[Callable[[Path], None], set[Check], str]] = {
    # files, their sizes and digests
    "a byte of a shard": (
        of_file(TRAIN, lambda data: data[:-3000] + bytes([data[-3000] ^ 1]) + data[-2999:]),
        {Check.FILE},
        r"shards/train-000001\.tar: has sha256 \w+…; the manifest says",
    ),
    "a lost shard": (
        of_file(TRAIN, lambda _: None),
        {Check.FILE},
        r"train-000001\.tar: not found; expected a shard of",
    ),
    "a shard too many": (
        lambda folder: (folder / "shards" / "train-999999.tar").touch(),
        {Check.FILE},
        r"train-999999\.tar: the manifest does not name this file",
    ),
    "a lost table": (of_file("rejects.parquet", lambda _: None), {Check.FILE}, "rejects.parquet: not found"),
    "another table": (
        lambda folder: write_rows(
            folder, "vocabularies", [*rows_of(folder, "vocabularies"), {"vocabulary": "coco", "phrase": "x"}]
        ),
        {Check.FILE},
        r"vocabularies\.parquet: has sha256",
    ),
    "another summary": (of_file("summary.md", lambda data: data + b"."), {Check.FILE}, "summary.md: is not what"),
    "no Croissant": (of_file("croissant.json", lambda _: None), {Check.FILE}, "croissant.json: not found"),
    # wids indexes
    "no index": (of_file("val.json", lambda _: None), {Check.INDEX}, "val.json: not found"),
    "a broken index": (of_file("val.json", lambda data: data[:-9]), {Check.INDEX}, "val.json: no wids index"),
    "an index of another version": (
        of_file("val.json", lambda data: data.replace(b'"wids_version": 1', b'"wids_version": 2')),
        {Check.INDEX},
        "wids_version 2",
    ),
    "an index with another number": (
        of_file("val.json", lambda data: data.replace(b'"nsamples": 7', b'"nsamples": 8')),
        {Check.INDEX},
        r'val\.json: shard 0 is .*"nsamples":8.* the manifest says .*"nsamples":7',
    ),
    # tars
    "an unclosed tar": (
        of_file(TRAIN, lambda data: data[:-1024], sealed=True),
        {Check.TAR},
        "not closed by two empty blocks",
    ),
    "half an end": (
        of_file(TRAIN, lambda data: data[:-512], sealed=True),
        {Check.TAR},
        "not closed by two empty blocks",
    ),
    "a tar that goes on": (of_file(TRAIN, lambda data: data + b"x", sealed=True), {Check.TAR}, "goes on after its end"),
    "a tar cut short": (
        of_file(TRAIN, lambda data: data[:-1600], sealed=True),
        {Check.TAR, Check.COUNT, Check.ROW},
        r"claims \d+ bytes, \d+ are left; the tar is cut short",
    ),
    "a damaged header": (
        of_file(TRAIN, lambda data: b"\x01" + data[1:], sealed=True),
        {Check.TAR, Check.COUNT, Check.ROW},
        "no tar header at byte 0",
    ),
    # members
    "a foreign member": (
        of_members(lambda held: [*held, ("notes.txt", b"x")]),
        {Check.MEMBER},
        r"train-000001\.tar: notes: member 'notes\.txt' is foreign",
    ),
    "members apart": (
        of_members(lambda held: [*held[:-4], held[-4], held[-2], held[-3], held[-1]]),
        {Check.MEMBER, Check.COUNT, Check.ROW},
        "its .json stands apart from its .jpg",
    ),
    "a picture without a json": (
        of_members(lambda held: held[:-1]),
        {Check.MEMBER, Check.COUNT, Check.ROW},
        "no .json follows its .jpg",
    ),
    # keys
    "a dot in a key": (
        of_samples(rename(lambda key: key.replace("-", ".", 1))),
        {Check.KEY, Check.COUNT, Check.ROW},
        "has more than one dot",
    ),
    "a long key": (
        of_samples(rename(lambda key: key + "0" * (95 - len(key)))),
        {Check.KEY, Check.COUNT, Check.ROW},
        "expected at most 95",
    ),
    "a key with a space": (
        of_samples(rename(lambda key: key.replace("-", " ", 1))),
        {Check.KEY, Check.COUNT, Check.ROW},
        "expected a key of A-Z",
    ),
    "a key twice in a shard": (
        of_samples(double_in_one_shard),
        {Check.KEY, Check.ROW},
        "stands twice in the shard",
    ),
    "a key in two shards": (
        of_samples(key_in_two_shards),
        {Check.KEY, Check.ROW},
        r"shards/train-000000\.tar: sa1b-\d+: stands in shards/train-000000\.tar and in shards/train-00000\d\.tar",
    ),
    # numbers
    "another number of samples": (of_shard(nsamples=6), {Check.COUNT}, "holds 7 samples; the manifest says 6"),
    "other numbers by source": (
        of_shard(counts={"coco": 7}),
        {Check.COUNT},
        r"holds samples by source {.*}; the manifest says",
    ),
    "other rejects": (
        of_manifest(lambda found: change(found, rejects=change(found.rejects, by_reason={"truncated": 3}))),
        {Check.COUNT},
        "rejects.by_reason is {'truncated': 3}; rejects.parquet has {}",
    ),
    # the JSON of a sample
    "a null": (
        of_json(rb'"score":0.0', b'"score":null'),
        {Check.SAMPLE},
        r"Expected `float`, got `null` - at `\$\.prompts",
    ),
    "a lost field": (of_json(rb',"miner":""', b""), {Check.SAMPLE}, "missing required field `miner`"),
    "a newer sample": (of_json(rb'"schema":1', b'"schema":9'), {Check.SAMPLE}, "sample schema 9 is newer"),
    "a json of another key": (
        of_json(rb'"key":"(\w)', rb'"key":"x\1'),
        {Check.SAMPLE, Check.ROW},
        r"its JSON says key 'x",
    ),
    # prompts
    "a presence with a kind": (
        reprompt(has_mask, lambda p: [change(p, kind=NegativeKind.RANDOM)]),
        {Check.PROMPT},
        "is present with kind 'random'",
    ),
    "an absence without a kind": (
        reprompt(is_absent, lambda p: [change(p, kind=None)]),
        {Check.PROMPT},
        "is absent with kind ''",
    ),
    "an absence with a mask state": (
        reprompt(is_absent, lambda p: [change(p, mask_state=MaskState.NONE)]),
        {Check.PROMPT},
        "is absent with 0 masks, mask_state none",
    ),
    "a presence without its masks": (
        reprompt(has_mask, lambda p: [change(p, masks=())]),
        {Check.PROMPT},
        "is present with 0 masks, but mask_state",
    ),
    "a real absence that was generated": (
        reprompt(is_absent, lambda p: [change(p, evidence=Evidence.GENERATED)]),
        {Check.PROMPT},
        "with evidence generated",
    ),
    "a phrase twice under a kind": (
        reprompt(is_absent, lambda p: [p, change(p, phrase=p.phrase.upper())]),
        {Check.PROMPT},
        r"is asked 2 times under kind",
    ),
    "a phrase under two kinds in train": (
        reprompt(is_absent, copy_of_other_kind),
        {Check.PROMPT},
        "stands under 2 kinds; in train it may stand under one",
    ),
    "a phrase asked both ways": (
        reprompt(has_mask, lambda p: [p, absent(p.phrase)]),
        {Check.PROMPT, Check.LABEL},
        "is asked both as present and as absent",
    ),
    # samples.parquet against the shards, and the tables against each other
    "another value in the table": (
        of_rows("samples", lambda rows: first(rows, score=0.5)),
        {Check.ROW},
        r"train-000000\.tar: \S+: samples\.parquet says score 0\.5, the shard 0\.0",
    ),
    "another offset in the table": (
        of_rows("samples", lambda rows: first(rows, offset=1)),
        {Check.ROW},
        "samples.parquet says offset 1, the shard 512",
    ),
    "another digest in the table": (
        of_rows("samples", lambda rows: first(rows, sha256="00")),
        {Check.ROW},
        "samples.parquet says sha256 '00', the shard",
    ),
    "an image key of another image": (
        of_rows("samples", lambda rows: first(rows, image_key=rows[-1]["image_key"])),
        {Check.ROW, Check.LABEL, Check.SPLIT},
        "which is not its key without -r1",
    ),
    "other order in the table": (of_rows("samples", move), {Check.ROW}, "in another order than the shard"),
    "other order of the shards in the table": (
        of_rows("samples", shards_swapped),
        {Check.ROW},
        "has no rows of shards/train-000001.tar where they should stand",
    ),
    "a lost row": (
        of_rows("samples", lambda rows: [*rows[:1], *rows[2:]]),
        {Check.ROW},
        r"samples\.parquet has \d+ rows of it, the shard \d+ prompts",
    ),
    "rows of a shard that is not there": (
        of_rows("samples", lambda rows: [*rows, {**rows[-1], "shard": "shards/test-000009.tar"}]),
        {Check.ROW, Check.MIX},
        "has rows of 'shards/test-000009.tar', out of order or of no shard",
    ),
    "an image without a row": (
        of_rows("images", lambda rows: rows[1:]),
        {Check.ROW, Check.LABEL},
        "images.parquet has no row of its image",
    ),
    "an image that no sample shows": (
        of_rows("images", lambda rows: [*rows, {**rows[0], "key": "coco-999", "group": "coco-999"}]),
        {Check.ROW},
        r"images\.parquet: coco-999: no sample shows the image",
    ),
    "an image of another size": (
        of_rows("images", lambda rows: first(rows, width=1)),
        {Check.ROW},
        "samples.parquet and images.parquet disagree on its width",
    ),
    "a label of no image": (
        of_rows("labels", lambda rows: [*rows, {**rows[0], "key": "coco-999"}]),
        {Check.ROW},
        r"labels\.parquet: coco-999: a label of an image that images\.parquet lacks",
    ),
    # tables
    "no table at all": (
        of_file("labels.parquet", lambda _: b"text", sealed=True),
        {Check.TABLE},
        "cannot be read as Parquet",
    ),
    "a null in a table": (
        of_rows("samples", lambda rows: first(rows, score=None)),
        {Check.TABLE},
        "column score holds nulls",
    ),
    "a newer table": (newer_table, {Check.TABLE}, "table schema 99 is newer"),
    "an unknown vocabulary": (
        of_rows("images", lambda rows: first(rows, exhaustive_over=["coco", "lvis"])),
        {Check.TABLE},
        "exhaustive_over names 'lvis'",
    ),
    # pictures and masks
    "a png": (of_samples(becomes_png), {Check.IMAGE}, r"its \.jpg is a png; expected a JPEG"),
    "a picture of another size": (
        of_samples(becomes_half),
        {Check.IMAGE},
        r"its JPEG has \d+ × \d+ pixels; its JSON says",
    ),
    "a mask of another size": (
        with_mask(lambda mask: make_mask(7, 5, left=1, top=1, right=4, bottom=3)),
        {Check.MASK},
        r"a mask of '.*' has size \[5, 7\]; expected \[",
    ),
    "no mask in front": (
        of_samples(swap_masks_out),
        {Check.FIRST},
        r"train-000000\.tar: the first sample of train has no mask",
    ),
    # splits
    "an image in another split": (
        of_rows("images", lambda rows: first(rows, split="test")),
        {Check.SPLIT},
        r"stands in train, and its image in test",
    ),
    "an image in two rows": (
        of_rows("images", lambda rows: [*rows, rows[0]]),
        {Check.SPLIT},
        "the image stands in two rows",
    ),
    "a near-duplicate in another split": (
        of_rows("images", tear_group),
        {Check.SPLIT},
        "near-duplicates stand in two splits",
    ),
    # labels
    "an absent animal beside a cat": (
        of_samples(ask_hypernym),
        {Check.LABEL},
        r"'animal' is asked as absent, though the labels say that '(bird|cat|dog)' is present",
    ),
    "an absence left open": (
        open_an_absence,
        {Check.LABEL},
        r"is asked as absent, though the labels say that '.*' is open",
    ),
    "an absence made up": (
        reprompt(is_absent, lambda p: [change(p, phrase="unicorn")]),
        {Check.LABEL},
        "'unicorn' is asked as absent, though no vocabulary or label says so",
    ),
    "a presence made up": (forget_a_presence, {Check.LABEL}, "is asked as present, and no label says present"),
    # the mix
    "another order": (
        of_samples(lambda held: sorted(held, key=lambda one: (one.split != "train", one.sample.source != "blank"))),
        {Check.MIX, Check.FIRST},
        r"train\.json: its first \d+ samples hold \d+ of blank; expected",
    ),
    "a sample too few": (
        of_samples(lambda held: held[:-1]),
        {Check.MIX, Check.ROW},
        "test.json: holds 9 samples; the recipe asks for 10",
    ),
    "another number of samples in the mix": (
        of_mix("train", samples={"coco": {"achieved": 1}}),
        {Check.MIX},
        r"says 1 samples of coco in train; the shards hold \d+",
    ),
    "another request in the mix": (
        of_mix("train", samples={"coco": {"requested": 1.0}}),
        {Check.MIX},
        "says that 1 samples of coco were requested in train",
    ),
    "other pairs in the mix": (
        of_mix("train", pairs={"coco": {"present": 1}}),
        {Check.MIX},
        r"says \(1, \d+\) present and absent prompts of coco in train",
    ),
    # kinds
    "a setting too few in val": (
        reprompt(lambda p: p.kind is NegativeKind.POPULAR, lambda _: [], split="val"),
        {Check.KINDS},
        r"val-00000\d\.tar: \S+: is asked \d random, \d popular, \d co_occurring absences; expected equal numbers",
    ),
    "another number of a kind": (
        of_mix("train", prompts={"random": {"achieved": 1}}),
        {Check.KINDS},
        r"says 1 random prompts in train; the shards hold \d+",
    ),
    "a shortfall that no note explains": (
        of_mix("train", prompts={"random": {"requested": 999.0}}),
        {Check.KINDS},
        r"train has \d+ random prompts for 999 requested, and no note says why",
    ),
    # the audit and the manifest
    "another audit": (
        of_manifest(lambda found: change(found, shortcuts=change(found.shortcuts, phrase=0.5001))),
        {Check.AUDIT},
        r"shortcuts\.phrase is 0\.5001; the samples give",
    ),
    "another recipe": (
        of_manifest(lambda found: change(found, recipe_sha256="0" * 64)),
        {Check.MANIFEST},
        "recipe_sha256 is not the digest of its recipe",
    ),
    "another seed": (
        of_manifest(lambda found: change(found, seed=4)),
        {Check.MANIFEST},
        "name 'tiny' or seed 4 is not its recipe's",
    ),
    "a table that is not named": (
        of_manifest(
            lambda found: change(found, tables={k: v for k, v in found.tables.items() if k != "rejects.parquet"})
        ),
        {Check.MANIFEST},
        "tables lacks rejects.parquet",
    ),
    "a full shard too small": (
        of_manifest(lambda found: change(found, recipe=change(found.recipe, shard_samples=8))),
        {Check.COUNT, Check.MANIFEST},
        r"train-000000\.tar: 7 samples; expected 8",
    ),
}


def test_a_sound_build_has_no_fault(sound: Path) -> None:
    assert verify(str(sound)) == []
    assert verify(str(sound), deep=True) == []


def test_a_forged_copy_of_a_sound_build_is_sound(build: Path) -> None:
    forge(build, load(build))

    assert verify(str(build), deep=True) == []


@pytest.mark.parametrize("name", CASES)
def test_what_is_wrong_is_found_and_named(build: Path, name: str) -> None:
    spoil, expected, sentence = CASES[name]
    spoil(build)

    faults = verify(str(build))

    assert checks(faults) == expected, "\n".join(map(str, faults))
    assert any(re.search(sentence, str(fault)) for fault in faults), "\n".join(map(str, faults))


def test_every_check_is_reached(sound: Path) -> None:
    assert {check for _, checks_of_case, _ in CASES.values() for check in checks_of_case} == set(Check)


DEEP: dict[str, tuple[Callable[[Path], None], set[Check], str]] = {
    "a picture that does not decode": (of_samples(breaks_huffman), {Check.IMAGE}, "its JPEG does not decode"),
    "a mask that is no RLE": (
        with_mask(lambda mask: change(mask, counts="~" + mask.counts)),
        {Check.MASK},
        "is no sound RLE: mask_corrupt",
    ),
    "an empty mask": (
        with_mask(lambda mask: make_mask(mask.size[1], mask.size[0], left=0, top=0, right=0, bottom=0)),
        {Check.MASK},
        "is no sound RLE: mask_empty",
    ),
}


@pytest.mark.parametrize("name", DEEP)
def test_what_only_decoding_shows_is_found_by_deep(build: Path, name: str) -> None:
    spoil, expected, sentence = DEEP[name]
    spoil(build)

    assert verify(str(build)) == []
    faults = verify(str(build), deep=True)
    assert checks(faults) == expected
    assert any(re.search(sentence, str(fault)) for fault in faults), "\n".join(map(str, faults))


def test_deep_holds_a_picture_to_the_digest_of_its_origin(build: Path) -> None:
    held = load(build)
    one = pick(held)
    one.sample = change(one.sample, origin=change(one.sample.origin, sha256="0" * 64))
    forge(build, held)

    assert "another sha256 than its origin" in " ".join(map(str, verify(str(build), deep=True)))


def test_a_listed_leak_is_no_fault(build: Path) -> None:
    rows = rows_of(build, "images")
    tear_group(rows)
    write_rows(build, "images", rows)
    seal(build, lambda found: change(found, leaks=[str(rows[0]["group"])]))

    assert verify(str(build)) == []


def test_many_faults_of_a_kind_are_counted_beyond_a_hundred() -> None:
    faults = [Fault(check=Check.ROW, where="a.tar", key=str(number), message="x") for number in range(130)]

    told = list(shortened(faults))

    assert told[:100] == faults[:100]
    assert [str(fault) for fault in told[100:]] == ["a.tar: 30 more faults of this kind"]


def asked_both_ways(folder: Path) -> list[str]:
    """A phrase that some sample shows, and one that it is asked as absent."""
    one = pick(load(folder), fits=lambda found: {p.present for p in found.sample.prompts} == {True, False})
    return [next(p.phrase for p in one.sample.prompts if p.present is wanted) for wanted in (True, False)]


def test_an_absence_of_what_a_source_calls_the_same_is_found(build: Path) -> None:
    here, absent = asked_both_ways(build)
    table = pq.read_table(build / "vocabularies.parquet")
    metadata = {**table.schema.metadata, SYNONYMS.encode(): json.dumps([[here, absent]]).encode()}
    pq.write_table(table.replace_schema_metadata(metadata), build / "vocabularies.parquet")
    seal(build)
    faults = verify(str(build))
    assert checks(faults) == {Check.LABEL}
    assert any(f"'{absent}' is asked as absent, though the labels say that '{here}'" in str(one) for one in faults)


def test_an_absence_of_what_a_lexicon_calls_the_same_is_found(
    build: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lexicon = tmp_path / "own.toml"
    lexicon.write_text(f"synonyms = [{json.dumps(asked_both_ways(build))}]\n", encoding="utf-8")
    assert verify(str(build)) == []
    assert main([str(build), "--quiet", "--lexicon", str(lexicon)]) == 1
    assert "is asked as absent, though the labels say that " in capsys.readouterr().out
    assert main([str(build), "--quiet", "--lexicon", str(tmp_path / "none.toml")]) == 1
    assert f"error: {tmp_path / 'none.toml'}: cannot be read" in capsys.readouterr().err


def test_lexicons_that_a_build_was_made_with_are_asked_for(build: Path, caplog: pytest.LogCaptureFixture) -> None:
    def lends(found: Manifest) -> Manifest:
        return change(found, recipe=change(found.recipe, prompts=change(found.recipe.prompts, lexicon=["own.toml"])))

    seal(build, lends)
    main([str(build), "--quiet"])
    assert "the build was made with the lexicons own.toml, which it does not carry" in caplog.text


def test_the_command_prints_a_sentence_per_fault_and_a_summary(build: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(build), "--workers", "2"]) == 0
    assert capsys.readouterr().out.startswith("sound: 11 shards, 70 samples, ")

    (build / TRAIN).unlink()
    assert main([str(build)]) == 1
    sentence, summary = capsys.readouterr().out.splitlines()
    assert sentence.startswith(f"{TRAIN}: not found; expected a shard of ")
    assert summary.startswith("1 faults in 11 shards, 63 samples, ")


def test_the_command_prints_json(build: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (build / "val.json").unlink()

    assert main([str(build), "--json", "--deep"]) == 1
    report = json.loads(capsys.readouterr().out)
    assert report["faults"] == [
        {
            "check": "index",
            "where": "val.json",
            "key": "",
            "message": "not found; expected the wids index of the split",
        }
    ]
    assert (report["deep"], report["shards"], report["samples"]) == (True, 11, 70)


def newer(manifest: Manifest) -> bytes:
    return encode_manifest(manifest).replace(b'"schema": 1', b'"schema": 99', 1)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (newer, "manifest schema 99 is newer than 1, which this version reads; upgrade absentia"),
        (lambda manifest: encode_manifest(manifest)[:-20], "not a manifest of schema 1"),
        (lambda manifest: None, "not found; expected a finished build"),
    ],
)
def test_a_manifest_that_cannot_be_read_is_one_line(
    build: Path, capsys: pytest.CaptureFixture[str], spoil: Callable[[Manifest], bytes | None], message: str
) -> None:
    data = spoil(read_manifest(str(build)))
    path = build / MANIFEST_NAME
    if data is None:
        path.unlink()
    else:
        path.write_bytes(data)

    assert main([str(build)]) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    assert captured.err.startswith(f"error: {path}: {message}")


def test_a_wrong_option_exits_with_2(build: Path) -> None:
    with pytest.raises(SystemExit) as stopped:
        main([str(build), "--workers", "0"])
    assert stopped.value.code == 2


def test_a_build_in_a_bucket_is_verified(build: Path) -> None:
    import fsspec

    fsspec.filesystem("memory").put(f"{build}/", "/verified/", recursive=True)

    assert verify("memory://verified", deep=True) == []


def test_help_answers_in_under_three_tenths_of_a_second() -> None:
    def spent() -> float:
        start = time.perf_counter()
        subprocess.run(
            [sys.executable, "-m", "shards.verify", "--help"], cwd=REPOSITORY, check=True, capture_output=True
        )
        return time.perf_counter() - start

    assert min(spent() for _ in range(5)) < 0.3
