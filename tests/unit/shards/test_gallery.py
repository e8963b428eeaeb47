"""The gallery as a file: which rows and pictures it holds, once each, that it is safe, and what it says is missing."""

import base64
import io
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from manifests.errors import ManifestError, TableError
from manifests.manifest import MANIFEST_NAME, decode_manifest, encode_manifest
from shards.gallery_rows import build_of_table, choose_rows, kind_of_table, read_pairs, read_pictures
from shards.mining_facts import facts_of_record, facts_of_text
from shards.show import View, about_build, main, show_pairs
from shards.summary import summarise
from tests.factories import absent, make_build, make_mask, make_sample, present
from tests.pairs import MINING, Mined, Taken, write_pairs

HOSTILE = '</script><img src=x onerror="alert(1)">'
ODD = (HOSTILE, "a \"quoted\" & 'single' <b>phrase</b>", "كلب صغير", "x" * 200, "<!-- --> ]]>", "\u2028line")
ALL = View(limit=0, quiet=True)


@pytest.fixture(scope="module")
def build(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_build(tmp_path_factory.mktemp("gallery") / "build")


def data_of(page: Path) -> tuple[dict[str, Any], list[bytes]]:
    """The index of a written gallery, and its thumbnails."""
    blocks = dict(re.findall(r'<script type="application/json" id="([\w-]+)">(.*?)</script>', page.read_text("utf-8")))
    index = json.loads(blocks.pop("index"))
    assert list(blocks) == [f"thumbnail-{at}" for at in range(len(blocks))]
    return index, [base64.b64decode(json.loads(text)) for text in blocks.values()]


def gallery(build: Path, folder: Path, *rows: Mined | Taken, view: View = ALL, **metadata: Any) -> dict[str, Any]:  # noqa: ANN401
    """The index of the gallery of these rows."""
    table = write_pairs(folder / "pairs.parquet", rows, **metadata)
    kind = kind_of_table(table)
    assert kind is not None
    show_pairs(table, kind, str(build), str(folder / "page.html"), view)
    return data_of(folder / "page.html")[0]


def rows_of(index: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The rows of an index, texts and keys in place of their numbers."""
    columns, texts = index["rows"], index["texts"]
    names = ("phrase", "kind", "evidence", "guard", "detail")
    keys = [index["pictures"]["key"][picture] for picture in index["thumbnails"]["picture"]]
    return [
        {name: texts[name][columns[name][at]] for name in names}
        | {"key": keys[columns["asked"][at]]}
        | {"positive": keys[columns["positive"][at]] if columns["positive"][at] >= 0 else ""}
        for at in range(len(columns["phrase"]))
    ]


def test_columns_decide_what_a_table_is(tmp_path: Path, build: Path) -> None:
    assert kind_of_table(write_pairs(tmp_path / "a.parquet", [Mined()])) == "negatives"
    assert kind_of_table(write_pairs(tmp_path / "b.parquet", [Taken()])) == "rejects"
    assert kind_of_table(str(build / "samples.parquet")) is None


def test_a_gallery_holds_every_row_in_the_tables_order(build: Path, tmp_path: Path) -> None:
    index = gallery(
        build,
        tmp_path,
        Mined(key="photos-val_01", phrase="owl", positive_key="photos-train_00", positive_box=[4, 5, 20, 15]),
        Mined(key="photos-val_00", phrase="elk", kind="near_text", evidence="annotated"),
    )
    first, second = rows_of(index)
    assert (first["key"], first["phrase"], first["positive"]) == ("photos-val_01", "owl", "photos-train_00")
    assert (second["key"], second["kind"], second["evidence"]) == ("photos-val_00", "near_text", "annotated")
    assert second["positive"] == ""
    phrases = index["texts"]["phrase"]
    place = index["pictures"]["key"].index("photos-val_00")
    assert [phrases[number] for number in index["pictures"]["present"][place]] == ["cat", "dog"]


def test_a_picture_asked_five_times_is_stored_once_and_so_is_a_crop(build: Path, tmp_path: Path) -> None:
    crop: dict[str, Any] = {"positive_key": "photos-train_00", "positive_box": [4, 5, 20, 15]}
    rows = [Mined(phrase=f"thing {number}", **crop) for number in range(5)]
    whole = Mined(key="photos-train_00", phrase="thing")
    index = gallery(build, tmp_path, *rows, whole)
    _, thumbnails = data_of(tmp_path / "page.html")
    assert len(thumbnails) == len(set(thumbnails)) == 3
    assert len(index["pictures"]["key"]) == 2
    assert len(set(index["rows"]["asked"])) == 2
    assert len(set(index["rows"]["positive"])) == 2  # the crop, and none


def test_a_positive_is_cut_out_at_its_box(tmp_path: Path) -> None:
    pixels = np.zeros((300, 400, 3), np.uint8)
    pixels[100:180, 200:300] = (250, 40, 40)
    jpeg = io.BytesIO()
    Image.fromarray(pixels).save(jpeg, "JPEG", quality=95)
    made = [
        make_sample("photos-red", present("red box"), jpeg=jpeg.getvalue(), width=400, height=300),
        make_sample("photos-other", present("cat")),
    ]
    build = make_build(tmp_path / "build", made)
    box = [200.0, 100.0, 100.0, 80.0]
    gallery(build, tmp_path, Mined(key="photos-other", positive_key="photos-red", positive_box=box))
    index, thumbnails = data_of(tmp_path / "page.html")
    place = index["rows"]["positive"][0]
    crop = np.asarray(Image.open(io.BytesIO(thumbnails[place])).convert("RGB"))
    assert crop.shape[:2] == (96, 116)  # the box and 8 of margin on each side
    assert (index["thumbnails"]["height"][place], index["thumbnails"]["width"][place]) == (96, 116)
    reds = crop[..., 0] > 128
    assert reds[12:84, 12:104].all()
    assert not reds[:4].any()
    assert not reds[:, :4].any()


@pytest.mark.parametrize("box", [[-50, -50, 20, 20], [60, 40, 900, 900], [500, 500, 10, 10], [5, 5, 0, 0]])
def test_a_box_that_leaves_its_picture_still_gives_a_crop(build: Path, tmp_path: Path, box: list[float]) -> None:
    gallery(build, tmp_path, Mined(positive_key="photos-train_00", positive_box=box))
    index, thumbnails = data_of(tmp_path / "page.html")
    crop = Image.open(io.BytesIO(thumbnails[index["rows"]["positive"][0]]))
    assert 1 <= crop.width <= 64
    assert 1 <= crop.height <= 48


@pytest.mark.parametrize("box", [None, [], [1, 2, 3], [1, 2, float("nan"), 4]])
def test_a_box_that_is_none_shows_the_whole_positive(build: Path, tmp_path: Path, box: list[float] | None) -> None:
    index = gallery(build, tmp_path, Mined(positive_key="photos-train_00", positive_box=box))
    place = index["rows"]["positive"][0]
    assert (index["thumbnails"]["width"][place], index["thumbnails"]["height"][place]) == (64, 48)


def test_a_picture_is_not_its_own_positive_unless_a_box_is_named(build: Path, tmp_path: Path) -> None:
    itself: dict[str, Any] = {"key": "photos-val_00", "positive_key": "photos-val_00"}
    index = gallery(build, tmp_path, Mined(**itself), Mined(phrase="elk", **itself, positive_box=[1, 1, 20, 20]))
    assert [row["positive"] for row in rows_of(index)] == ["", "photos-val_00"]


def test_a_repeated_picture_keeps_the_key_that_the_table_knows(tmp_path: Path) -> None:
    made = [make_sample("photos-1-r1", present("cat", make_mask()), image_key="photos-1")]
    index = gallery(make_build(tmp_path / "build", made), tmp_path, Mined(key="photos-1"))
    assert rows_of(index)[0]["key"] == "photos-1"


def test_scores_that_are_none_or_no_numbers_are_left_unknown(build: Path, tmp_path: Path) -> None:
    index = gallery(build, tmp_path, Mined(score=float("nan"), standard_score=None, positive_score=float("inf")))
    columns = index["rows"]
    assert (columns["score"], columns["standard_score"], columns["positive_score"]) == ([None], [None], [None])


@pytest.mark.parametrize("row", [Mined(), Taken()])
def test_no_text_of_the_data_becomes_markup(tmp_path: Path, row: Mined | Taken) -> None:
    made = [make_sample("photos-val_00", *(present(phrase, make_mask()) for phrase in ODD[:3]), absent("zebra"))]
    build = make_build(tmp_path / "build", made)
    rows: list[Mined | Taken] = [
        Mined(phrase=phrase) if isinstance(row, Mined) else Taken(phrase=phrase, detail=HOSTILE) for phrase in ODD
    ]
    index = gallery(build, tmp_path, *rows, mining={"encoder": HOSTILE, "encoder_why": HOSTILE})
    page = (tmp_path / "page.html").read_text("utf-8")
    assert [one["phrase"] for one in rows_of(index)] == list(ODD)
    assert "<img src=x" not in page
    assert page.count("</script>") == 3  # index, script, one thumbnail
    assert "<!-- -->" not in page
    assert not re.findall(r"https?://", page)


def test_pictures_that_are_not_in_the_build_are_counted_and_said(build: Path, tmp_path: Path) -> None:
    gone = [Mined(key="photos-gone", phrase=f"thing {number}") for number in range(3)]
    lonely = Mined(positive_key="photos-elsewhere", positive_box=[1, 1, 5, 5])
    index = gallery(build, tmp_path, *gone, Mined(key="photos-gone2"), lonely)
    first, second = index["about"]["notes"]
    assert first.startswith("4 rows are left out: they ask 2 pictures that are not among the build's samples")
    assert second.startswith("1 rows stand without the positive")
    assert [row["key"] for row in rows_of(index)] == ["photos-val_00"]


def test_a_table_of_which_no_picture_is_found_is_an_error(build: Path, tmp_path: Path) -> None:
    with pytest.raises(
        TableError, match=r"pairs\.parquet: expected pictures of .*build, found none of its 2 keys there"
    ):
        gallery(build, tmp_path, Mined(key="gone-1"), Mined(key="gone-2"))
    assert not (tmp_path / "page.html").exists()


def test_a_limit_draws_rows_by_seed_and_keeps_their_order(build: Path, tmp_path: Path) -> None:
    rows = [Mined(key=f"photos-train_{number % 6:02d}", phrase=f"thing {number:02d}") for number in range(40)]

    def drawn(seed: int) -> list[str]:
        view = View(limit=10, seed=seed, quiet=True)
        return [row["phrase"] for row in rows_of(gallery(build, tmp_path, *rows, view=view))]

    assert len(drawn(0)) == 10
    assert drawn(0) == sorted(drawn(0)) == drawn(0)
    assert drawn(0) != drawn(1)
    assert (
        "10 of 40 mined rows, drawn by seed 0"
        in (gallery(build, tmp_path, *rows, view=View(limit=10, quiet=True))["about"]["what"])
    )


def test_one_split_can_be_shown_alone_with_positives_of_any(build: Path, tmp_path: Path) -> None:
    rows = [Mined(key="photos-train_01"), Mined(key="photos-val_00", positive_key="photos-train_00")]
    index = gallery(build, tmp_path, *rows, view=View(split="val", quiet=True))
    assert [(row["key"], row["positive"]) for row in rows_of(index)] == [("photos-val_00", "photos-train_00")]
    assert index["about"]["notes"] == ["1 rows of other splits than val are left out"]


def test_rejected_candidates_become_a_gallery_by_guard(build: Path, tmp_path: Path) -> None:
    whole_picture = Taken(stage="scan", where="pictures/broken.jpg", phrase="", reason="truncated")
    index = gallery(
        build, tmp_path, Taken(), Taken(reason="semantic", phrase="elk", detail="an elk is a deer"), whole_picture
    )
    assert index["about"]["pairs"] == "rejects"
    assert [(row["guard"], row["phrase"], row["detail"]) for row in rows_of(index)] == [
        ("score", "owl", "0.25 is above 0.2"),
        ("semantic", "elk", "an elk is a deer"),
    ]


def test_rejects_without_a_pair_are_named(build: Path, tmp_path: Path) -> None:
    with pytest.raises(TableError, match=r"expected rows that ask a phrase of a picture, found none among its 1 rows"):
        gallery(build, tmp_path, Taken(phrase="", where="pictures/broken.jpg"))


def test_equal_tables_give_equal_bytes_in_any_folder(build: Path, tmp_path: Path) -> None:
    pages = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        other = make_build(tmp_path / name / "build")
        gallery(other, tmp_path / name / "build", Mined(positive_key="photos-train_00"), mining=MINING)
        pages.append((tmp_path / name / "build" / "page.html").read_bytes())
    assert pages[0] == pages[1]


def test_a_damaged_shard_is_named_with_its_cure_and_leaves_no_page(tmp_path: Path) -> None:
    build = make_build(tmp_path / "build")
    (build / "shards" / "val-000000.tar").unlink()
    with pytest.raises(ManifestError, match=r"val-000000\.tar: sample at byte 512: .*shards\.verify"):
        gallery(build, tmp_path, Mined())
    assert not (tmp_path / "page.html").exists()


def test_pictures_come_in_the_order_of_the_numbers_whatever_the_rows(build: Path, tmp_path: Path) -> None:
    rows = [
        Mined(key="photos-test_01"),
        Mined(key="photos-train_03"),
        Mined(key="photos-val_02", positive_key="photos-train_01"),
    ]
    table = write_pairs(tmp_path / "pairs.parquet", rows)
    manifest = decode_manifest((build / MANIFEST_NAME).read_bytes(), where="manifest")
    chosen = choose_rows(read_pairs(table, "negatives"), str(build), manifest, split=None, limit=0, seed=0)
    keys = [picture.key for picture in read_pictures(chosen, 64)]
    assert keys == ["photos-train_01", "photos-train_03", "photos-val_02", "photos-test_01"]
    assert [keys[row.asked] for row in chosen.rows] == [row.key for row in rows]


def test_the_build_is_found_from_where_the_table_lies_or_what_it_names(tmp_path: Path, build: Path) -> None:
    inside = make_build(tmp_path / "inside")
    (inside / "work" / "mine").mkdir(parents=True)
    assert build_of_table(write_pairs(inside / "work" / "mine" / "n.parquet", [Mined()])) == str(inside)
    (tmp_path / "apart").mkdir()
    assert build_of_table(write_pairs(tmp_path / "apart" / "a.parquet", [Mined()], build=str(build))) == str(build)
    relative = build_of_table(write_pairs(tmp_path / "apart" / "b.parquet", [Mined()], build="../inside"))
    assert relative == str(tmp_path / "inside")
    assert build_of_table(write_pairs(tmp_path / "apart" / "c.parquet", [Mined()], build="nowhere")) is None


def test_the_command_finds_the_build_by_itself(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = write_pairs(make_build(tmp_path / "build") / "mine.parquet", [Mined(), Mined(phrase="elk")])
    assert main([table, "--out", str(tmp_path / "page.html"), "--quiet", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["samples"], told["prompts"], told["num_bytes"]) == (1, 2, (tmp_path / "page.html").stat().st_size)
    assert data_of(tmp_path / "page.html")[0]["about"]["title"] == "mine.parquet of tiny"


@pytest.mark.parametrize("name", ["gone.parquet", "broken.parquet"])
def test_a_table_that_cannot_be_read_is_one_error_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    (tmp_path / "broken.parquet").write_bytes(b"PAR1 no table")
    assert main([str(tmp_path / name), "--out", str(tmp_path / "page.html")]) == 1
    said = capsys.readouterr().err
    assert said.startswith(f"error: {tmp_path / name}: ")
    assert said.count("\n") == 1


def test_a_table_without_a_build_says_what_is_missing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = write_pairs(tmp_path / "pairs.parquet", [Mined()])
    with pytest.raises(SystemExit) as stopped:
        main([table, "--out", str(tmp_path / "page.html")])
    assert stopped.value.code == 2
    assert "lies in no finished build and its metadata names none: it needs --build DIR" in capsys.readouterr().err


def test_the_head_says_what_the_mining_record_says(build: Path, tmp_path: Path) -> None:
    mining = gallery(build, tmp_path, Mined(), mining=MINING)["about"]["mining"]
    assert (mining["encoder"], mining["encoder_why"]) == ("conse", "no other weights are here")
    assert mining["audit"] == MINING["audit"]
    assert mining["kinds"] == MINING["kinds"]


def test_a_mining_record_that_cannot_be_read_is_said_instead_of_stopping() -> None:
    assert facts_of_record({}) == facts_of_text("") == facts_of_text("{}")
    assert facts_of_record({"encoder": "conse", "unknown": [1]}).encoder == "conse"
    for facts in (
        facts_of_record({"audit": {"hidden_share": "much"}}),
        facts_of_text('{"audit": {"hidden_share": "much"}}'),
    ):
        assert "Expected `float | null`, got `str` - at `$.audit.hidden_share`" in facts.unreadable
    assert facts_of_text("no json").unreadable.startswith("the mining record cannot be shown")


def test_the_contact_sheet_says_the_same_of_a_build_that_mined(build: Path) -> None:
    manifest = decode_manifest((build / MANIFEST_NAME).read_bytes(), where="manifest")
    assert about_build(manifest, "title", "what").mining == facts_of_record({})
    data = json.loads(encode_manifest(manifest)) | {"mining": MINING}
    mined = decode_manifest(json.dumps(data).encode(), where="manifest")
    assert about_build(mined, "title", "what").mining.encoder_why == "no other weights are here"


@pytest.mark.parametrize(
    ("said", "line"),
    [
        ({"no_audit": "only false alarms were mined"}, "- No audit: only false alarms were mined"),
        ({}, "- No audit: no picture has exhaustive labels"),  # an earlier record: its page must stay what it was
    ],
)
def test_the_page_says_why_there_is_no_audit(build: Path, said: dict[str, str], line: str) -> None:
    data = json.loads((build / MANIFEST_NAME).read_bytes()) | {"mining": {**MINING, "audit": None, **said}}
    mined = decode_manifest(json.dumps(data).encode(), where="manifest")
    assert line in summarise(mined).splitlines()
    assert about_build(mined, "title", "what").mining.no_audit == said.get("no_audit", "")
