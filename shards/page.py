"""One self-contained HTML file out of samples: pictures, phrases and masks, with nothing fetched when it is opened.

What it shows stands in JSON data blocks: one index of all rows, which the script reads at once and filters, and chunks
of pictures and masks, which it parses when somebody scrolls to them.
"""

import base64
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import msgspec

from manifests.errors import ManifestError
from manifests.manifest import Rejects, Shortcuts, SplitMix
from manifests.sample import Mask
from shards.html_file import data_block, write_html
from shards.mining_facts import MiningFacts

PAGE_SCHEMA = 1
CHUNK_SAMPLES = 50
_DATA_BLOCK = re.compile(r'<script type="application/json" id="(index|chunk-\d+)">(.*?)</script>', re.DOTALL)


@dataclass(frozen=True, slots=True, kw_only=True)
class PagePrompt:
    """A phrase put to a picture, as the page shows it."""

    phrase: str
    present: bool
    kind: str = ""  # why it was asked; "" where it is present
    evidence: str = ""
    mask_state: str = ""
    score: float = 0.0
    standard_score: float = 0.0
    rank: int = -1
    area: float = 0.0  # share of the picture that its masks cover
    masks: tuple[Mask, ...] = ()  # at the thumbnail's size


@dataclass(frozen=True, slots=True, kw_only=True)
class PageSample:
    """A picture with its prompts."""

    key: str
    source: str
    split: str
    width: int  # of the picture in the shard
    height: int
    thumbnail: bytes  # WebP
    thumbnail_width: int
    thumbnail_height: int
    prompts: tuple[PagePrompt, ...]


class About(msgspec.Struct, frozen=True, kw_only=True):
    """What the page's head says of the build."""

    title: str
    what: str  # one sentence: what is shown here
    seed: int
    encoder: str
    totals: dict[str, int]  # samples of the whole build by split
    mix: dict[str, SplitMix]
    shortcuts: Shortcuts
    rejects: Rejects
    leaks: list[str]
    notes: list[str]
    mining: MiningFacts = MiningFacts()


@dataclass(frozen=True, slots=True, kw_only=True)
class DrawnMask:
    """A mask that a page draws."""

    key: str
    phrase: str
    mask: Mask  # at the thumbnail's size


class _Texts:
    """Numbers for texts, counted up from 0 in the order of first use."""

    def __init__(self) -> None:
        self.number_of: dict[str, int] = {}

    def number(self, text: str) -> int:
        return self.number_of.setdefault(text, len(self.number_of))


class _SampleColumns(msgspec.Struct):
    key: list[str] = []
    source: list[int] = []
    split: list[int] = []
    width: list[int] = []
    height: list[int] = []
    thumbnail_width: list[int] = []
    thumbnail_height: list[int] = []
    num_prompts: list[int] = []


class _PromptColumns(msgspec.Struct):
    phrase: list[int] = []
    present: list[int] = []
    kind: list[int] = []
    evidence: list[int] = []
    mask_state: list[int] = []
    num_masks: list[int] = []
    area: list[float] = []
    score: list[float] = []
    standard_score: list[float] = []
    rank: list[int] = []


class _Index(msgspec.Struct):
    """Everything but pictures and masks, by column; texts are numbers into `texts`."""

    about: About
    samples: _SampleColumns
    prompts: _PromptColumns
    texts: dict[str, list[str]] = {}
    chunk_samples: int = CHUNK_SAMPLES
    schema: int = PAGE_SCHEMA


class _Heavy(msgspec.Struct, array_like=True):
    """What a chunk holds of a sample."""

    thumbnail: str  # base64
    counts: list[list[str]]  # of each prompt, the RLE of each mask


class _Columns:
    """The index while samples come in."""

    def __init__(self, about: About) -> None:
        self._texts = {name: _Texts() for name in ("source", "split", "phrase", "kind", "evidence", "mask_state")}
        self.index = _Index(about=about, samples=_SampleColumns(), prompts=_PromptColumns())

    def add(self, sample: PageSample) -> None:
        """Add one sample's row and the rows of its prompts."""
        columns = self.index.samples
        columns.key.append(sample.key)
        columns.source.append(self._texts["source"].number(sample.source))
        columns.split.append(self._texts["split"].number(sample.split))
        columns.width.append(sample.width)
        columns.height.append(sample.height)
        columns.thumbnail_width.append(sample.thumbnail_width)
        columns.thumbnail_height.append(sample.thumbnail_height)
        columns.num_prompts.append(len(sample.prompts))
        for prompt in sample.prompts:
            self._add_prompt(prompt)

    def _add_prompt(self, prompt: PagePrompt) -> None:
        columns = self.index.prompts
        columns.phrase.append(self._texts["phrase"].number(prompt.phrase))
        columns.present.append(int(prompt.present))
        columns.kind.append(self._texts["kind"].number(prompt.kind))
        columns.evidence.append(self._texts["evidence"].number(prompt.evidence))
        columns.mask_state.append(self._texts["mask_state"].number(prompt.mask_state))
        columns.num_masks.append(len(prompt.masks))
        columns.area.append(round(prompt.area, 5))
        columns.score.append(round(prompt.score, 4))
        columns.standard_score.append(round(prompt.standard_score, 3))
        columns.rank.append(prompt.rank)

    def finished(self) -> _Index:
        """The index with its texts."""
        self.index.texts = {name: list(texts.number_of) for name, texts in self._texts.items()}
        return self.index


@dataclass(frozen=True, slots=True, kw_only=True)
class PageFacts:
    """What a written page holds."""

    samples: int
    prompts: int
    num_bytes: int


def write_page(uri: str, samples: Iterable[PageSample], about: About) -> PageFacts:
    """Write the page of `samples` to `uri`, whole or not at all; the same samples give the same bytes.

    Raises:
        StorageError: it cannot be written.
    """
    columns = _Columns(about)
    blocks = _blocks(samples, columns)
    num_bytes = write_html(uri, "page", title=about.title, blocks=blocks, index=columns.finished)
    index = columns.index
    return PageFacts(samples=len(index.samples.key), prompts=len(index.prompts.phrase), num_bytes=num_bytes)


def _blocks(samples: Iterable[PageSample], columns: _Columns) -> Iterator[bytes]:
    for number, chunk in enumerate(_chunks(samples)):
        for sample in chunk:
            columns.add(sample)
        yield data_block(f"chunk-{number}", [_heavy(sample) for sample in chunk])


def _chunks(samples: Iterable[PageSample]) -> Iterator[list[PageSample]]:
    chunk: list[PageSample] = []
    for sample in samples:
        chunk.append(sample)
        if len(chunk) == CHUNK_SAMPLES:
            yield chunk
            chunk = []
    if chunk:
        yield chunk


def _heavy(sample: PageSample) -> _Heavy:
    return _Heavy(
        thumbnail=base64.b64encode(sample.thumbnail).decode("ascii"),
        counts=[[mask.counts for mask in prompt.masks] for prompt in sample.prompts],
    )


def drawn_masks(page: str, *, where: str = "page") -> list[DrawnMask]:
    """Every mask that `page`, the text of a written page, draws; in the page's order.

    Raises:
        ManifestError: it is no page of this version.
    """
    blocks: dict[str, str] = dict(_DATA_BLOCK.findall(page))
    try:
        index = msgspec.json.decode(blocks.pop("index"), type=_Index)
        heavy = [sample for text in blocks.values() for sample in msgspec.json.decode(text, type=list[_Heavy])]
    except (KeyError, msgspec.MsgspecError) as error:
        raise ManifestError(f"{where}: no contact sheet of schema {PAGE_SCHEMA}: {error!r}; write it again") from error
    return list(_drawn(index, heavy))


def _drawn(index: _Index, heavy: Sequence[_Heavy]) -> Iterator[DrawnMask]:
    samples, phrases, prompt = index.samples, index.texts["phrase"], 0
    sizes = zip(samples.thumbnail_height, samples.thumbnail_width, strict=True)
    for key, size, one in zip(samples.key, sizes, heavy, strict=True):
        for counts in one.counts:
            phrase = phrases[index.prompts.phrase[prompt]]
            prompt += 1
            for text in counts:
                yield DrawnMask(key=key, phrase=phrase, mask=Mask(size=size, counts=text))
