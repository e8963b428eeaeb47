"""The contact sheet as a file: which samples it shows, that it draws their masks, that it is safe and repeatable."""

import base64
import hashlib
import json
import os
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from manifests.errors import ManifestError, StorageError, TableError
from manifests.manifest import read_manifest
from shards.build_pictures import open_splits
from shards.masks import downscale_mask_for_page
from shards.page import About, DrawnMask, PagePrompt, PageSample, drawn_masks
from shards.sheet import draw, read_asked, read_asked_samples, read_samples, share_out
from shards.show import View, about_build, main, num_samples, show_build, show_table
from tests.factories import Made, make_build, make_jpeg, make_mask, make_recipe, make_sample, make_samples, present

HOSTILE = "</script><img src=x onerror=alert(1)>"
ALL = View(limit=0, quiet=True)


@pytest.fixture(scope="module")
def build(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(make_build(tmp_path_factory.mktemp("show") / "build"))


def samples_shown(build: str, *, limit: int = 0, seed: int = 0, split: str | None = None) -> list[PageSample]:
    return list(read_samples(draw(open_splits(build, read_manifest(build), split), limit, seed), 32))


def in_written_order(made: list[Made]) -> list[Made]:
    return [one for split in ("train", "val", "test") for one in made if one.split == split]


def write_asked(path: Path, **columns: Sequence[object]) -> str:
    pq.write_table(pa.table(columns), path)
    return str(path)


def test_splits_share_a_limit_evenly_as_far_as_they_go() -> None:
    assert share_out({"train": 100, "val": 100, "test": 100}, 30) == {"train": 10, "val": 10, "test": 10}
    assert share_out({"train": 100, "val": 3, "test": 7}, 50) == {"train": 40, "val": 3, "test": 7}
    assert sum(share_out({"train": 9, "val": 9, "test": 9}, 11).values()) == 11
    assert share_out({"train": 5, "val": 2}, 100) == {"train": 5, "val": 2}
    assert share_out({"train": 5, "val": 2}, 0) == {"train": 5, "val": 2}


def test_the_sheet_shows_every_sample_and_prompt_in_written_order(build: str) -> None:
    made = in_written_order(make_samples())
    shown = samples_shown(build)
    assert [sample.key for sample in shown] == [one.sample.key for one in made]
    assert [sample.split for sample in shown] == [one.split for one in made]
    for sample, one in zip(shown, made, strict=True):
        told = [(p.phrase, p.present, p.kind, p.evidence, p.mask_state, len(p.masks)) for p in sample.prompts]
        true = one.sample.prompts
        assert told == [(p.phrase, p.present, p.kind or "", p.evidence, p.mask_state, len(p.masks)) for p in true]


def test_a_drawn_sheet_is_even_over_splits_and_follows_the_seed(build: str) -> None:
    first = [(s.split, s.key) for s in samples_shown(build, limit=6)]
    assert [split for split, _ in first] == ["train", "train", "val", "val", "test", "test"]
    assert first == [(s.split, s.key) for s in samples_shown(build, limit=6)]
    others = [[(s.split, s.key) for s in samples_shown(build, limit=6, seed=seed)] for seed in range(1, 6)]
    assert any(other != first for other in others)
    order = [one.sample.key for one in in_written_order(make_samples())]
    assert [key for _, key in first] == sorted((key for _, key in first), key=order.index)


def test_one_split_can_be_shown_alone(build: str) -> None:
    assert {sample.split for sample in samples_shown(build, split="val")} == {"val"}


def test_thumbnails_keep_the_shape_and_are_never_enlarged(build: str) -> None:
    shown = samples_shown(build)
    assert {max(s.thumbnail_width, s.thumbnail_height) for s in shown} == {32}
    assert all(abs(s.thumbnail_width * s.height / (s.thumbnail_height * s.width) - 1) < 0.05 for s in shown)
    large = next(iter(read_samples(open_splits(build, read_manifest(build), "val"), 1000)))
    assert (large.thumbnail_width, large.thumbnail_height) == (large.width, large.height)


def test_the_page_draws_the_masks_of_the_build(build: str, tmp_path: Path) -> None:
    show_build(build, str(tmp_path / "page.html"), View(limit=0, pixels=32, quiet=True))
    drawn = drawn_masks((tmp_path / "page.html").read_text("utf-8"))
    true = [
        DrawnMask(key=one.sample.key, phrase=prompt.phrase, mask=downscale_mask_for_page(mask, 32))
        for one in in_written_order(make_samples())
        for prompt in one.sample.prompts
        for mask in prompt.masks
    ]
    assert drawn == true


def test_the_share_that_masks_cover_is_that_of_their_union(tmp_path: Path) -> None:
    half = present("cat", make_mask(left=0, top=0, right=32, bottom=48), make_mask(left=0, top=0, right=16, bottom=48))
    build = str(make_build(tmp_path / "build", [make_sample("photos-1", half)]))
    assert samples_shown(build)[0].prompts[0].area == pytest.approx(0.5)


def test_a_text_that_is_no_page_is_refused() -> None:
    with pytest.raises(ManifestError, match=r"x\.html: no contact sheet of schema 1"):
        drawn_masks("<html></html>", where="x.html")


def test_equal_builds_give_equal_bytes_in_any_folder(build: str, tmp_path: Path) -> None:
    other = make_build(tmp_path / "elsewhere" / "build")
    show_build(build, str(tmp_path / "one.html"), ALL)
    show_build(str(other), str(tmp_path / "two.html"), ALL)
    assert (tmp_path / "one.html").read_bytes() == (tmp_path / "two.html").read_bytes()


def test_no_text_of_the_data_becomes_markup(tmp_path: Path) -> None:
    samples = [make_sample("photos-1", present(HOSTILE, make_mask()))]
    build = make_build(tmp_path / "build", samples, recipe=make_recipe(name=HOSTILE))
    show_build(str(build), str(tmp_path / "page.html"), ALL)
    page = (tmp_path / "page.html").read_text("utf-8")
    assert "<img src=x" not in page
    assert page.count("</script>") == 3  # index, script, one chunk
    assert [mask.phrase for mask in drawn_masks(page)] == [HOSTILE]


def test_the_page_allows_its_own_script_and_style_and_no_network(build: str, tmp_path: Path) -> None:
    show_build(build, str(tmp_path / "page.html"), ALL)
    page = (tmp_path / "page.html").read_text("utf-8")
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', page)
    assert policy is not None
    assert policy[1].startswith("default-src 'none'; img-src data:; style-src 'sha256-")
    for tag in ("style", "script"):
        text = re.search(rf"<{tag}>(.*?)</{tag}>", page, re.DOTALL)
        assert text is not None
        digest = base64.b64encode(hashlib.sha256(text[1].encode()).digest()).decode()
        assert f"{tag}-src 'sha256-{digest}'" in policy[1]
    assert not re.findall(r"https?://", page)


def test_the_head_tells_what_the_manifest_says(build: str) -> None:
    manifest = read_manifest(build)
    about = about_build(manifest, "title", "what")
    assert about.totals == {"train": 9, "val": 5, "test": 5}
    assert num_samples(manifest) == 19
    assert (about.mix, about.shortcuts, about.rejects) == (manifest.mix, manifest.shortcuts, manifest.rejects)
    assert msgspec.convert(msgspec.to_builtins(about), About) == about


def test_a_table_is_shown_beside_what_is_present(build: str, tmp_path: Path) -> None:
    rows = {
        "key": ["photos-val_00", "photos-train_00", "gone-1", "photos-val_00"],
        "phrase": ["owl", "elk", "fox", "ant"],
    }
    table = write_asked(tmp_path / "negatives.parquet", **rows, kind=["near_text"] * 4, score=[0.25, None, 0.5, 0.75])
    asked = read_asked(table, build, read_manifest(build), None)
    shown = {sample.key: sample.prompts for sample in read_asked_samples(asked, asked.found, 32)}
    assert asked.num_pictures == 3
    assert list(shown) == ["photos-train_00", "photos-val_00"]  # the repeat of train_00 is not shown again
    absences = {key: [p for p in prompts if not p.present] for key, prompts in shown.items()}
    assert [(p.phrase, p.kind, p.score) for p in absences["photos-val_00"]] == [
        ("owl", "near_text", 0.25),
        ("ant", "near_text", 0.75),
    ]
    absence = PagePrompt(phrase="elk", present=False, kind="near_text", mask_state="complete")
    assert absences["photos-train_00"] == [absence]
    assert sum(p.present for p in shown["photos-val_00"]) == 2


def test_a_table_becomes_a_page(build: str, tmp_path: Path) -> None:
    table = write_asked(tmp_path / "rows.parquet", key=["photos-val_00", "photos-val_01"], phrase=["owl", "elk"])
    shown = show_table(table, build, str(tmp_path / "page.html"), View(limit=1, quiet=True))
    assert (shown.samples, shown.prompts) == (1, 3)
    assert "rows.parquet of tiny" in (tmp_path / "page.html").read_text("utf-8")


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"key": ["gone-1"], "phrase": ["owl"]}, "expected pictures of .*, found none of its 1 keys there"),
        (
            {"key": ["gone-1"]},
            "expected at least one row with the columns key and phrase, found 1 rows of the columns key",
        ),
        ({"key": [], "phrase": []}, "expected at least one row .* found 0 rows"),
        ({"key": ["a"], "phrase": ["b"], "score": ["high"]}, "expected a Parquet table of keys and phrases, found: "),
    ],
)
def test_a_table_that_fits_no_build_is_refused_by_name(
    build: str, tmp_path: Path, columns: dict[str, Sequence[object]], message: str
) -> None:
    table = write_asked(tmp_path / "rows.parquet", **columns)
    with pytest.raises(TableError, match=f"rows.parquet: {message}"):
        show_table(table, build, str(tmp_path / "page.html"), ALL)
    assert not (tmp_path / "page.html").exists()


@pytest.mark.parametrize("damage", ["missing", "jpeg", "json"])
def test_a_damaged_shard_is_named_with_its_cure_and_leaves_no_page(tmp_path: Path, damage: str) -> None:
    build = make_build(tmp_path / "build")
    shard = build / "shards" / "train-000000.tar"
    if damage == "missing":
        shard.unlink()
    else:
        data = bytearray(shard.read_bytes())
        at = data.index(b"\xff\xd8\xff") if damage == "jpeg" else data.index(b'{"schema"')
        data[at : at + 8] = b"\0" * 8
        shard.write_bytes(data)
    with pytest.raises(ManifestError, match=r"train-000000\.tar: sample at byte 512: |not a sample"):
        show_build(str(build), str(tmp_path / "page.html"), ALL)
    assert [path.name for path in tmp_path.iterdir()] == ["build"]


def test_a_mask_of_another_shape_than_the_picture_is_damage(tmp_path: Path) -> None:
    build = make_build(tmp_path / "build", [make_sample("photos-1", present("cat", make_mask(48, 64)))])
    with pytest.raises(ManifestError, match=r"a mask of 'cat' has another shape.*shards\.verify"):
        show_build(str(build), str(tmp_path / "page.html"), ALL)


def test_a_picture_of_another_shape_than_its_sample_is_damage(tmp_path: Path) -> None:
    build = make_build(tmp_path / "build", [make_sample("photos-1", present("cat"), jpeg=make_jpeg(48, 64))])
    with pytest.raises(ManifestError, match=r"the picture has another shape than its 64 x 48.*shards\.verify"):
        show_build(str(build), str(tmp_path / "page.html"), ALL)


def test_a_split_without_samples_is_named(tmp_path: Path) -> None:
    build = make_build(tmp_path / "build", [make_sample("photos-1", present("cat", make_mask()))])
    with pytest.raises(ManifestError, match="no samples of split 'val'; it has train"):
        show_build(str(build), str(tmp_path / "page.html"), View(split="val", quiet=True))


def test_a_page_that_cannot_be_written_is_one_clear_error(build: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StorageError, match=r"page\.html: cannot be written"):
        show_build(build, str(tmp_path / "file" / "page.html"), ALL)


def test_the_command_prints_what_the_page_holds(build: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = tmp_path / "page.html"
    assert main([build, "--out", str(page), "--limit", "5", "--quiet"]) == 0
    said = capsys.readouterr().out
    assert said.startswith(f"{page}: 5 samples with ")
    assert said.endswith(" MB\n")
    assert main([build, "--out", str(page), "--limit", "5", "--quiet", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["page"], told["samples"], told["num_bytes"]) == (str(page), 5, page.stat().st_size)


def test_a_folder_without_a_build_is_one_error_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tmp_path), "--out", str(tmp_path / "page.html")]) == 1
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith("error: ")
    assert said.err.count("\n") == 1


@pytest.mark.parametrize(
    "options",
    [
        ["build"],
        ["build", "--out", "x", "--limit", "-1"],
        ["build", "--out", "x", "--pixels", "7"],
        ["build", "--out", "x", "--split", "dev"],
        ["build", "--out", "x", "--build", "build"],
    ],
)
def test_wrong_options_exit_with_2(options: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(options)
    assert stopped.value.code == 2
    assert "usage: python -m shards.show" in capsys.readouterr().err


def test_help_answers_without_the_slow_imports() -> None:
    script = "import sys, shards.show; print(*sorted({'PIL', 'numpy', 'pyarrow', 'torch'} & sys.modules.keys()))"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, env=dict(os.environ)
    )
    assert done.stdout == "\n"
