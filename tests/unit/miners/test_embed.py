"""Embeddings of a build: every row where it belongs, nothing computed twice, nothing stale, and clear refusals."""

import hashlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
import numpy as np
import pyarrow as pa
import pytest
from numpy.typing import NDArray

from manifests import files
from manifests.errors import BuildError, TableError
from manifests.stage import Inline, progress_bar
from manifests.tables import EMBEDDINGS, read_metadata, read_table
from miners import embed, embed_parts, embed_rows
from miners.embed_rows import Embedded, embed_inventory, embed_phrases
from miners.embedding_files import embedding_writer, read_embeddings
from miners.streaming import Wanted, encode_pictures
from miners.views import Geometry, crop_box, largest, make_views
from shards.blocks import read_index
from shards.features import read_features
from shards.originals import Original
from shards.reopened import Reopened, reopen
from tests.factories import Made, make_build, make_jpeg, make_samples

REPOSITORY = Path(__file__).parents[3]
SIDE = 8
GEOMETRY = Geometry(height=SIDE, width=SIDE, resize="squash")


@dataclass(slots=True, kw_only=True)
class FakeEncoder:
    """The mean colour of each corner, and letters counted: rows that a test can work out."""

    name: str = "fake"
    digest: str = "0123456789abcdef"
    weights_digest: str = "0123456789abcdee"
    preprocessing_digest: str = "0123456789abcded"
    dim: int = 12
    geometry: Geometry = GEOMETRY
    broken_from: int = 10**9  # the first picture whose row is `broken`
    broken: float = 0.0
    seen: list[int] = field(default_factory=list)  # size of every batch of pictures
    read: list[str] = field(default_factory=list)  # phrases

    def encode_images(self, pixels_bshw3: NDArray[np.uint8]) -> NDArray[np.float32]:
        first = sum(self.seen)
        self.seen.append(len(pixels_bshw3))
        corners = pixels_bshw3.mean(1).reshape(-1, 2, SIDE // 2, 2, SIDE // 2, 3).mean((2, 4))
        rows_bd = (corners.reshape(len(pixels_bshw3), 12) + 1).astype(np.float32)
        rows_bd[np.arange(first, first + len(rows_bd)) >= self.broken_from] = self.broken
        unit_bd: NDArray[np.float32] = rows_bd / np.maximum(np.linalg.norm(rows_bd, axis=1, keepdims=True), 1e-9)
        return unit_bd

    def encode_texts(self, phrases: Sequence[str]) -> NDArray[np.float32]:
        self.read += phrases
        rows_vd = np.array([[phrase.count(letter) + 0.1 for letter in "abcdefghijkl"] for phrase in phrases])
        unit_vd: NDArray[np.float32] = (rows_vd / np.linalg.norm(rows_vd, axis=1, keepdims=True)).astype(np.float32)
        return unit_vd


@pytest.fixture(scope="module")
def build(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_build(tmp_path_factory.mktemp("embed") / "build")


@pytest.fixture(scope="module")
def opened(build: Path) -> Reopened:
    return open_build(build)


def open_build(build: Path) -> Reopened:
    with progress_bar(quiet=True) as progress:
        return reopen(str(build), str(build.parent / "work"), executor=Inline(), progress=progress)


def embedded(opened: Reopened, encoder: FakeEncoder, folder: Path, *, batch: int = 4) -> Embedded:
    with progress_bar(quiet=True) as progress:
        return embed_inventory(
            opened.inventory, opened.roots, encoder, folder=str(folder), progress=progress, batch=batch
        )


def unit(rows: NDArray[np.float32]) -> NDArray[np.float16]:
    found: NDArray[np.float16] = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float16)
    return found


def test_parts_of_which_no_picture_is_needed_are_not_encoded(opened: Reopened, tmp_path: Path) -> None:
    inventory = opened.inventory
    all_seen = FakeEncoder()
    whole = embedded(opened, all_seen, tmp_path / "whole")
    first = embed_parts.embed_parts(inventory, FakeEncoder())[0]
    needed_n = np.zeros(inventory.num_images, np.bool_)
    needed_n[first.first] = True
    encoder = FakeEncoder()
    with progress_bar(quiet=True) as progress:
        found = embed_inventory(
            inventory, opened.roots, encoder, folder=str(tmp_path / "some"), progress=progress, needed_n=needed_n
        )
    assert first.num < inventory.num_images
    assert sum(encoder.seen) < sum(all_seen.seen)
    np.testing.assert_array_equal(found.images_nd[: first.num], whole.images_nd[: first.num])
    assert not found.images_nd[first.num :].any()
    of_first = whole.crop_image_c < first.num
    np.testing.assert_array_equal(found.crops_cd, whole.crops_cd[of_first])
    np.testing.assert_array_equal(found.crop_image_c, whole.crop_image_c[of_first])


def test_every_picture_and_every_masked_phrase_has_its_row(opened: Reopened, tmp_path: Path) -> None:
    encoder, inventory = FakeEncoder(), opened.inventory
    found = embedded(opened, encoder, tmp_path)
    made = {one.image_key: one for one in make_samples()}
    keys = inventory.images["key"].to_pylist()
    crop_of = {
        (keys[image], inventory.phrases[phrase]): crop
        for crop, (image, phrase) in enumerate(zip(found.crop_image_c, found.crop_phrase_c, strict=True))
    }
    assert len(crop_of) == len(found.crops_cd)
    for key, row_d in zip(keys, found.images_nd, strict=True):
        masked = [prompt for prompt in made[key].sample.prompts if prompt.masks]
        boxes = [crop_box(largest(prompt.masks)) for prompt in masked]
        views = make_views(made[key].jpeg, encoder.geometry, boxes=boxes)
        np.testing.assert_array_equal(row_d, unit(FakeEncoder().encode_images(views.whole_shw3[None]))[0])
        expected_kd = unit(FakeEncoder().encode_images(views.crops_khw3[:, None]))
        for prompt, box, expected_d in zip(masked, boxes, expected_kd, strict=True):
            crop = crop_of.pop((key, prompt.phrase))
            assert found.crop_box_c4[crop].tolist() == list(box)
            np.testing.assert_array_equal(found.crops_cd[crop], expected_d)
    assert not crop_of
    assert found.images_nd.dtype == found.crops_cd.dtype == np.float16


def test_without_crops_no_crop_is_encoded_and_pictures_rows_stay(opened: Reopened, tmp_path: Path) -> None:
    whole, encoder = embedded(opened, FakeEncoder(), tmp_path / "whole"), FakeEncoder()
    with progress_bar(quiet=True) as progress:
        found = embed_inventory(
            opened.inventory, opened.roots, encoder, folder=str(tmp_path / "bare"), progress=progress, crops=False
        )
    # a JPEG of which no crop is wanted is decoded no larger than the encoder sees it, hence the tolerance
    np.testing.assert_allclose(found.images_nd.astype(np.float32), whole.images_nd.astype(np.float32), atol=2e-3)
    assert len(whole.crops_cd)
    assert not len(found.crops_cd)
    assert sum(encoder.seen) == opened.inventory.num_images


def test_rows_do_not_depend_on_the_batch_and_are_read_again_as_they_were(opened: Reopened, tmp_path: Path) -> None:
    one, other = (embedded(opened, FakeEncoder(), tmp_path / str(batch), batch=batch) for batch in (1, 32))
    again = embedded(opened, FakeEncoder(), tmp_path / "1")
    assert one.digest == other.digest == again.digest
    np.testing.assert_array_equal(again.crop_box_c4, one.crop_box_c4)


def test_the_model_never_sees_more_pictures_than_a_batch(opened: Reopened, tmp_path: Path) -> None:
    encoder = FakeEncoder()
    embedded(opened, encoder, tmp_path, batch=2)
    assert max(encoder.seen) == 2


def test_what_is_finished_is_not_computed_again(opened: Reopened, tmp_path: Path) -> None:
    embedded(opened, FakeEncoder(), tmp_path)
    second = FakeEncoder()
    embedded(opened, second, tmp_path)
    assert second.seen == []


def test_another_encoder_shares_nothing(opened: Reopened, tmp_path: Path) -> None:
    embedded(opened, FakeEncoder(), tmp_path)
    other = FakeEncoder(digest="f" * 16)
    embedded(opened, other, tmp_path)
    assert sum(other.seen) > 0


def test_a_table_that_was_deleted_is_made_again(opened: Reopened, tmp_path: Path) -> None:
    first = embedded(opened, FakeEncoder(), tmp_path)
    next(iter((tmp_path / "crops").glob("*.parquet"))).unlink()
    assert embedded(opened, FakeEncoder(), tmp_path).digest == first.digest


def test_a_changed_part_recomputes_only_that_part(tmp_path: Path) -> None:
    samples = make_samples()
    before = open_build(make_build(tmp_path / "one" / "build", samples))
    first = FakeEncoder()
    embedded(before, first, tmp_path / "rows", batch=1)
    changed = [recoloured(made) if made.image_key == "photos-val_01" else made for made in samples]
    after = open_build(make_build(tmp_path / "two" / "build", changed))
    second = FakeEncoder()
    found = embedded(after, second, tmp_path / "rows", batch=1)
    parts = [part for part in after.inventory.parts if part.record not in [p.record for p in before.inventory.parts]]
    assert len(parts) == 1
    fresh = embedded(after, FakeEncoder(), tmp_path / "fresh", batch=1)
    assert found.digest == fresh.digest
    assert 0 < sum(second.seen) < sum(first.seen) / 2


def recoloured(made: Made) -> Made:
    """The same labels on another picture."""
    jpeg = make_jpeg(made.sample.width, made.sample.height, seed=99)
    origin = msgspec.structs.replace(made.sample.origin, sha256=hashlib.sha256(jpeg).hexdigest(), num_bytes=len(jpeg))
    return Made(
        sample=msgspec.structs.replace(made.sample, origin=origin),
        jpeg=jpeg,
        split=made.split,
        image_key=made.image_key,
        exhaustive_over=made.exhaustive_over,
        open_phrases=made.open_phrases,
    )


def test_pictures_that_an_earlier_part_holds_are_not_taken_for_the_next_parts() -> None:
    kept = pa.chunked_array([["a", "b"], ["d", "e"]])  # of the parts a b, b d, a b, e
    parts = [pa.chunked_array([names]) for names in (["a", "b"], ["b", "d"], ["a", "b"], ["e"])]
    first, counts = 0, []
    for names in parts:
        counts.append(embed_parts._num_kept(kept.slice(first), names))
        first += counts[-1]
    assert counts == [2, 1, 0, 1]


KILLED = """
import os, signal, sys
sys.path.insert(0, {repository!r})
from pathlib import Path
from tests.unit.miners import test_embed as t
opened = t.open_build(Path({build!r}))
encoder = t.FakeEncoder()
encode = encoder.encode_images
class Killed(t.FakeEncoder):
    __slots__ = ()
    def encode_images(self, pixels):
        if sum(self.seen) > 20:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().encode_images(pixels)
t.embedded(opened, Killed(), Path({folder!r}), batch=1)
"""


def test_a_killed_run_goes_on_where_it_was(build: Path, opened: Reopened, tmp_path: Path) -> None:
    script = KILLED.format(repository=str(REPOSITORY), build=str(build), folder=str(tmp_path / "rows"))
    killed = subprocess.run([sys.executable, "-c", script], cwd=REPOSITORY, capture_output=True, check=False)
    assert killed.returncode == -signal.SIGKILL, killed.stderr.decode()
    done = list((tmp_path / "rows" / "images").glob("*.json"))
    assert done
    whole, rest = FakeEncoder(), FakeEncoder()
    expected = embedded(opened, whole, tmp_path / "whole", batch=1)
    found = embedded(opened, rest, tmp_path / "rows", batch=1)
    assert found.digest == expected.digest
    assert 0 < sum(rest.seen) <= sum(whole.seen) - 15


@pytest.mark.parametrize(("broken", "said"), [(0.0, "holds only zeros"), (np.nan, "holds numbers that are not finite")])
def test_a_row_that_is_no_direction_stops_and_names_the_picture(
    opened: Reopened, tmp_path: Path, broken: float, said: str
) -> None:
    encoder = FakeEncoder(broken_from=0, broken=broken)
    with pytest.raises(BuildError, match=f"encoder fake: the row of the picture [a-z0-9_-]+ {said}; expected a dir"):
        embedded(opened, encoder, tmp_path)
    assert not list(tmp_path.rglob("*.parquet"))


def test_a_picture_that_changed_since_the_scan_stops(tmp_path: Path) -> None:
    folder = make_build(tmp_path / "build")
    opened = open_build(folder)
    for shard in (folder / "shards").iterdir():
        data = bytearray(shard.read_bytes())
        data[600:610] = bytes(10)
        shard.write_bytes(data)
    with pytest.raises(BuildError, match="changed since they were scanned"):
        embedded(opened, FakeEncoder(), tmp_path / "rows")


def test_a_picture_that_does_not_decode_is_named_with_a_cure(tmp_path: Path) -> None:
    data = b"no picture"
    (tmp_path / "a.jpg").write_bytes(data)
    original = Original(
        key="photos-a",
        uri=str(tmp_path / "a.jpg"),
        offset=0,
        num_bytes=len(data),
        sha256=hashlib.sha256(data).hexdigest(),
    )
    with pytest.raises(BuildError, match=r'photos-a does not decode: .*scan with verify = "decode"'):
        list(encode_pictures([Wanted(original=original)], FakeEncoder()))


def test_no_more_pictures_are_decoded_ahead_than_a_few_batches(tmp_path: Path) -> None:
    data = make_jpeg()
    (tmp_path / "a.jpg").write_bytes(data)
    asked: list[int] = []

    def many() -> Iterator[Wanted]:
        for number in range(1000):
            asked.append(number)
            yield Wanted(
                original=Original(
                    key=f"photos-{number}",
                    uri=str(tmp_path / "a.jpg"),
                    offset=0,
                    num_bytes=len(data),
                    sha256=hashlib.sha256(data).hexdigest(),
                )
            )

    rows = encode_pictures(many(), FakeEncoder(), batch=4)
    assert next(rows).wanted.original.key == "photos-0"
    del rows
    assert len(asked) <= 4 + 2 * 4 + 1


def test_phrases_are_embedded_once_and_in_order(tmp_path: Path) -> None:
    encoder = FakeEncoder()
    phrases = ["cat", "red car", "", "Café", "cat"]
    rows = embed_phrases(encoder, phrases, folder=str(tmp_path))
    np.testing.assert_array_equal(rows, unit(FakeEncoder().encode_texts(phrases)))
    again = embed_phrases(encoder, phrases, folder=str(tmp_path))
    np.testing.assert_array_equal(again, rows)
    assert len(encoder.read) == len(phrases)
    assert embed_phrases(encoder, [], folder=str(tmp_path)).shape == (0, 12)


def test_phrases_added_at_the_end_leave_earlier_blocks_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embed_rows, "_BLOCK", 2)
    embed_phrases(FakeEncoder(), ["a", "b", "c"], folder=str(tmp_path))
    encoder = FakeEncoder()
    assert len(embed_phrases(encoder, ["a", "b", "c", "d", "e"], folder=str(tmp_path))) == 5
    assert encoder.read == ["c", "d", "e"]


def write_rows(uri: Path, rows: Sequence[Sequence[float]], keys: Sequence[str] | None = None) -> str:
    with embedding_writer(str(uri), FakeEncoder(), input_digest="") as writer:
        for number, row in enumerate(rows):
            writer.add(keys[number] if keys else f"k{number}", "", [], np.array(row, np.float16))
    return str(uri)


ONE = [1.0] + [0.0] * 11


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([ONE, [np.nan] * 12], r"row 1 \(k1\) holds numbers that are not finite; expected a unit vector"),
        ([ONE, [0.0] * 12], r"row 1 \(k1\) holds only zeros; expected a unit vector"),
        ([ONE, [2.0] + [0.0] * 11], r"row 1 \(k1\) holds a row of length 2; expected a unit vector"),
        ([ONE, [1.0] + [0.0] * 7], "row 1 holds 8 numbers, expected the encoder's width of 12"),
        ([[1.0] + [0.0] * 7], "row 0 holds 8 numbers, expected the encoder's width of 12"),
    ],
)
def test_rows_that_are_no_embeddings_are_refused(tmp_path: Path, rows: list[list[float]], said: str) -> None:
    uri = write_rows(tmp_path / "rows.parquet", rows)
    with pytest.raises(TableError, match=said):
        read_embeddings(uri, FakeEncoder())
    with pytest.raises(TableError, match=said):
        read_embeddings(uri)


def test_rows_of_another_encoder_are_refused(tmp_path: Path) -> None:
    uri = write_rows(tmp_path / "rows.parquet", [ONE])
    other = FakeEncoder(name="other", digest="f" * 16)
    with pytest.raises(TableError, match=r"rows of the encoder fake \(0123456789abcdef\), expected other \(ffff"):
        read_embeddings(uri, other)
    assert read_embeddings(uri).encoder == "fake"


def test_a_file_that_is_cut_short_is_refused(tmp_path: Path) -> None:
    uri = write_rows(tmp_path / "rows.parquet", [ONE] * 500)
    whole = Path(uri).read_bytes()
    for size in (0, 3, len(whole) // 2, len(whole) - 1):
        Path(uri).write_bytes(whole[:size])
        with pytest.raises(TableError, match="cannot be read as Parquet"):
            read_embeddings(uri)


def test_keys_that_the_catalog_does_not_hold_are_refused(tmp_path: Path) -> None:
    uri = write_rows(tmp_path / "rows.parquet", [ONE, ONE, ONE], ["a", "b", "c"])
    with pytest.raises(TableError, match="2 of 3 rows are of keys that the catalog does not hold, 'b' first"):
        read_embeddings(uri, keys=pa.array(["a", "d"]))
    assert len(read_embeddings(uri, keys=pa.array(["c", "b", "a"])).rows_rd) == 3


def test_a_table_of_another_kind_is_refused(build: Path) -> None:
    with pytest.raises(TableError, match="is no embeddings table: columns box, row are missing"):
        read_embeddings(files.join(str(build), "labels.parquet"))


@pytest.fixture
def fake_chosen(monkeypatch: pytest.MonkeyPatch) -> FakeEncoder:
    """The encoder that the command gets."""
    from miners.encoders import Chosen

    encoder = FakeEncoder()

    def choose(name: str, *, templates: str, allow_pickle: str) -> Chosen:
        return Chosen(encoder=encoder, why=f"{name}: a test asked for it {templates}{allow_pickle}")

    monkeypatch.setattr(embed, "choose_encoder", choose)
    return encoder


def test_the_command_writes_tables_that_the_reader_joins(
    build: Path, tmp_path: Path, fake_chosen: FakeEncoder, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "rows"
    assert embed.main([str(build), "--out", str(out), "--json", "--quiet"]) == 0
    summary = json.loads(capsys.readouterr().out)
    assert [summary[name] for name in ("images", "generated", "crops", "phrases")] == [15, 3, 27, 6]
    assert summary["why"].startswith("auto: ")
    (features,) = read_features([str(out / "images")], [read_index(str(build), "train")])
    made = make_samples()[0]
    views = make_views(made.jpeg, fake_chosen.geometry)
    np.testing.assert_array_equal(features.of(0), unit(FakeEncoder().encode_images(views.whole_shw3[None]))[0])
    (table,) = (out / "phrases").glob("*.parquet")
    found = read_embeddings(str(table), fake_chosen)
    assert "red car" in found.phrases.to_pylist()
    assert embed.main([str(build), "--out", str(tmp_path / "bare"), "--no-crops", "--json", "--quiet"]) == 0
    summary = json.loads(capsys.readouterr().out)
    assert [summary[name] for name in ("images", "generated", "crops", "phrases")] == [15, 3, 0, 6]


def test_every_table_names_weights_preprocessing_and_input(
    build: Path, tmp_path: Path, fake_chosen: FakeEncoder
) -> None:
    def stamps(out: Path) -> dict[str, dict[str, str]]:
        """The metadata of each table, by folder and keys."""
        embed.main([str(build), "--out", str(out), "--quiet"])
        found = {}
        for path in sorted(path for path in out.rglob("*.parquet") if "work" not in path.parts):
            rows = read_table(str(path), EMBEDDINGS).select(["key", "phrase"]).to_pylist()
            found[f"{path.parent.name} {json.dumps(rows)}"] = read_metadata(str(path), EMBEDDINGS)
        return found

    first = stamps(tmp_path / "first")
    assert {name.partition(" ")[0] for name in first} == {"images", "crops", "phrases"}
    for stamp in first.values():
        assert stamp["weights_digest"] == fake_chosen.weights_digest
        assert stamp["preprocessing_digest"] == fake_chosen.preprocessing_digest
        assert len(stamp["input_digest"]) == 16
    inputs = [stamp["input_digest"] for name, stamp in first.items() if not name.startswith("crops")]
    assert len(set(inputs)) == len(inputs)  # crops are of the same input as the pictures of their part
    fake_chosen.digest = "f" * 16
    again = stamps(tmp_path / "again")
    assert {name: stamp["input_digest"] for name, stamp in again.items()} == {
        name: stamp["input_digest"] for name, stamp in first.items()
    }


def test_the_command_leaves_no_stale_rows(
    build: Path, tmp_path: Path, fake_chosen: FakeEncoder, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "rows"
    embed.main([str(build), "--out", str(out), "--quiet"])
    before = {path.name for path in out.rglob("*.parquet") if "work" not in path.parts}
    fake_chosen.digest = "f" * 16
    embed.main([str(build), "--out", str(out), "--quiet"])
    after = {path.name for path in out.rglob("*.parquet") if "work" not in path.parts}
    assert len(before) == len(after)
    assert not before & after
    assert "as rows of 12 numbers by fake (ffffffffffffffff)" in capsys.readouterr().out


def test_the_command_refuses_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert embed.main([str(tmp_path / "nowhere"), "--out", str(tmp_path / "rows"), "--quiet"]) == 1
    assert capsys.readouterr().err.startswith("error: ")
    with pytest.raises(SystemExit, match="2"):
        embed.main(["build", "--out", "rows", "--batch-size", "0"])
    assert "--batch-size 0: expected 1 or more" in capsys.readouterr().err


def test_help_imports_no_torch() -> None:
    script = (
        "import sys, contextlib\n"
        "from miners.embed import main\n"
        "with contextlib.suppress(SystemExit): main(['--help'])\n"
        "print('torch' in sys.modules or 'open_clip' in sys.modules)"
    )
    env = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    found = subprocess.run([sys.executable, "-c", script], env=env, capture_output=True, text=True, check=True)
    assert found.stdout.splitlines()[-1] == "False"
