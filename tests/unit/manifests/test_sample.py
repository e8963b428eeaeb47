"""Samples and manifests as JSON: round trips, no nulls, and clear words for damaged and newer ones."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from manifests.errors import ManifestError
from manifests.manifest import decode_manifest
from manifests.sample import (
    Evidence,
    Mask,
    MaskState,
    NegativeKind,
    Origin,
    Prompt,
    Sample,
    decode_sample,
    encode_sample,
)

masks = st.builds(Mask, size=st.tuples(st.integers(1, 9), st.integers(1, 9)), counts=st.text("0123\\oO", max_size=9))
prompts = st.builds(
    Prompt,
    phrase=st.text(min_size=1, max_size=9),
    present=st.booleans(),
    mask_state=st.sampled_from(MaskState),
    masks=st.lists(masks, max_size=2).map(tuple),
    kind=st.none() | st.sampled_from(NegativeKind),
    evidence=st.sampled_from(Evidence),
    score=st.floats(-1, 1),
    rank=st.integers(-1, 9),
    positive_key=st.text(max_size=5),
)
samples = st.builds(
    Sample,
    key=st.text(max_size=9),
    source=st.just("coco"),
    width=st.integers(1, 99),
    height=st.integers(1, 99),
    origin=st.builds(
        Origin,
        uri=st.text(max_size=9),
        offset=st.integers(0, 9),
        num_bytes=st.integers(0, 9),
        sha256=st.just("ab"),
        licence=st.text(max_size=4),
        encoded=st.booleans(),
    ),
    prompts=st.lists(prompts, min_size=1, max_size=3).map(tuple),
)


@given(samples)
def test_a_sample_comes_back_from_its_json_which_has_no_null_and_every_field(sample: Sample) -> None:
    data = encode_sample(sample)
    assert decode_sample(data) == sample
    plain = msgspec.json.decode(data)
    assert b":null" not in data.replace(b'"', b"") or "null" in str(sample)
    assert set(plain) == {"schema", "key", "source", "width", "height", "origin", "prompts"}
    assert all(set(prompt) == set(Prompt.__struct_fields__) for prompt in plain["prompts"])
    assert all(None not in prompt.values() for prompt in plain["prompts"])


def test_a_newer_sample_is_called_newer_even_with_unknown_fields() -> None:
    with pytest.raises(ManifestError, match=r"s\.tar: sample schema 7 is newer than 1.*upgrade"):
        decode_sample(b'{"schema": 7, "novel": true}', where="s.tar")


@pytest.mark.parametrize("data", [b"", b"[]", b"{}", b'{"schema": 1}', b'{"schema": "x"}', b"\xff"])
def test_what_is_no_sample_is_said_with_its_place(data: bytes) -> None:
    with pytest.raises(ManifestError, match=r"^s\.tar: not a sample"):
        decode_sample(data, where="s.tar")


def test_damaged_and_newer_manifests_are_one_line() -> None:
    with pytest.raises(ManifestError, match="manifest schema 9 is newer than 1"):
        decode_manifest(b'{"schema": 9}', where="m.json")
    with pytest.raises(ManifestError, match=r"m\.json: not a manifest of schema 1: .*build it again"):
        decode_manifest(b'{"schema": 1}', where="m.json")
