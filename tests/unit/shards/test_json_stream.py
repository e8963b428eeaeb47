"""Elements of JSON arrays read through a window, whatever its size."""

import json
import math
from pathlib import Path

import pytest

from manifests.errors import SourceError
from shards.sources import json_stream
from shards.sources.json_stream import Element, stream_elements

DOCUMENT = {
    "info": {"year": 2017, "a": ["deep", {"b": []}]},
    "a": [{"id": n, "text": 'é"\\\n]' * n, "numbers": [1.5, -2e-7, 123456]} for n in range(12)] + [7, "x", None, []],
    "empty": [],
    "b": [[1, 2], [3]],
}


@pytest.fixture(params=[1, 7, 100, 1 << 20])
def window_bytes(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr(json_stream, "_WINDOW_BYTES", request.param)
    return int(request.param)


def read(folder: Path, data: bytes) -> list[Element]:
    path = folder / "x.json"
    path.write_bytes(data)
    return list(stream_elements(str(path), {"a", "b"}))


@pytest.mark.parametrize("indent", [None, 2])
@pytest.mark.usefixtures("window_bytes")
def test_elements_come_as_json_reads_them(tmp_path: Path, indent: int | None) -> None:
    found = read(tmp_path, b"\xef\xbb\xbf" + json.dumps(DOCUMENT, indent=indent, ensure_ascii=False).encode() + b"\n")
    for section in ("a", "b"):
        elements = [element for element in found if element.section == section]
        assert [element.value for element in elements] == DOCUMENT[section]
        assert [json.loads(element.data) for element in elements] == DOCUMENT[section]
        assert [element.index for element in elements] == list(range(len(elements)))
    assert not any(b"\n" in element.data for element in found)
    assert len(found) == 18


@pytest.mark.usefixtures("window_bytes")
def test_what_strict_parsers_refuse_costs_one_element(tmp_path: Path) -> None:
    found = read(tmp_path, b'{"a": [NaN, 123456789012345678901234567890, "\xff", "\\ud800"], "b": 3}')
    assert math.isnan(float(str(found[0].value)))
    assert [element.value for element in found[1:]] == [123456789012345678901234567890, "\udcff", "\ud800", 3]
    assert (found[2].data, found[4].index) == (b'"\xff"', -1)


@pytest.mark.parametrize(
    ("data", "found"),
    [
        (b"", "byte 0: expected a JSON object at the top; found the end of the file"),
        (b"[1]", "byte 0: expected a JSON object at the top; found '["),
        (b'{"a": [1, 2', "byte 11: expected ',' or ']' after a[1]; found the end of the file"),
        (b'{"a": [1 2]}', "byte 9: expected ',' or ']' after a[0]"),
        (b'{"\xc3\xa9": 1, "a": [1.5,]}', "byte 20: Expecting value; found ']}'"),
        (b'{"a": [{"x" 1}]}', "byte 12: Expecting ':' delimiter"),
        (b'{"a": ["x', "byte 7: Unterminated string"),
        (b'{"a" 1}', "byte 5: expected ':' after 'a'"),
        (b'{"a": 1 "b": 2}', "byte 8: expected ',' or '}'"),
        (b"{1: 2}", "expected a name in quotes"),
        (b'{"a": 1} x', "byte 9: expected the end of the file; found 'x'"),
        (b'{"a": ' + b"[" * 100_000, "maximum recursion depth"),
        (b'{"a": [' + b"9" * 5000 + b"]}", "byte 7: Exceeds the limit"),
    ],
)
@pytest.mark.usefixtures("window_bytes")
def test_broken_json_stops_at_its_byte(tmp_path: Path, data: bytes, found: str) -> None:
    with pytest.raises(SourceError) as caught:
        read(tmp_path, data)
    assert str(caught.value).startswith(f"{tmp_path / 'x.json'}: broken JSON at byte")
    assert found in str(caught.value)


def test_an_element_without_end_is_refused_before_memory_is_full(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(json_stream, "MAX_ELEMENT_CHARACTERS", 1000)
    monkeypatch.setattr(json_stream, "_WINDOW_BYTES", 100)
    with pytest.raises(SourceError, match="expected a value of at most 1000 characters"):
        read(tmp_path, b'{"a": ["' + b"x" * 5000 + b'"]}')


def test_a_missing_file_and_a_folder_stop(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="no such file; expected a JSON file"):
        list(stream_elements(str(tmp_path / "none.json"), {"a"}))
    with pytest.raises(SourceError, match="cannot be read"):
        list(stream_elements(str(tmp_path), {"a"}))
