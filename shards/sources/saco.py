"""SA-Co: pictures asked for one phrase at a time, with all instances masked, none, or an open end.

Several pairs share a picture; they become one `Picture` with a label per phrase. Its id is the file's name without
the extension: pair ids differ between annotators' files of the same pictures, names do not.
"""

import hashlib
import posixpath
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import msgspec

from manifests import files
from manifests.errors import Reason, Rejected, SourceError
from manifests.recipe import Recipe, SacoSource
from manifests.sample import Mask
from shards.labels import Finding, Outcome, merge_labels, normalise_phrase
from shards.masks import check_masks_of, mask_from_uncompressed, reason_of
from shards.rle import MaskFault
from shards.sources.folder_digest import folder_digest
from shards.sources.saco_spill import BUCKET_BYTES, AnnotationRow, PairRow, bucket_uri, read_bucket, spill
from shards.sources.source import Found, Picture, Prepared, Reject, ScanPart

SCAN_VERSION = 1  # part of every part's name: raise it when what a scan finds changes


@dataclass(frozen=True, slots=True, kw_only=True)
class Saco:
    """A folder of pictures with SA-Co annotation files."""

    name: str
    root: str  # of the pictures
    annotations: tuple[str, ...]  # files or patterns
    licence: str
    bucket_bytes: int = BUCKET_BYTES

    def prepare(self, work: str) -> Prepared:
        """The parts, with all rows of the annotation files dealt out below `work`.

        Raises:
            SourceError: pictures or annotations are missing, or a file is not SA-Co's.
        """
        files.require_file(self.root, named_by=f"[sources.{self.name}] images")
        uris = self._annotation_files()
        prints = [(found.num_bytes, found.version) for found in map(files.fingerprint, uris)]
        spill_digest = _digest([SCAN_VERSION, self.bucket_bytes, [posixpath.basename(uri) for uri in uris], prints])
        folder = files.join(work, "spill", f"{self.name}-{spill_digest}")
        spilled = spill(uris, folder, bucket_bytes=self.bucket_bytes)
        digest = _digest([SCAN_VERSION, spill_digest, self.licence, folder_digest(self.root)])
        parts = [
            ScanPart(
                name=f"{self.name}-{bucket:05d}-{digest}", weight=pairs, uri=self.root, spill=bucket_uri(folder, bucket)
            )
            for bucket, pairs in enumerate(spilled.pairs_of_bucket)
            if pairs
        ]
        return Prepared(parts=tuple(parts))

    def _annotation_files(self) -> list[str]:
        uris: dict[str, None] = {}
        for pattern in self.annotations:
            found = files.list_files(pattern)
            if not found:
                raise SourceError(
                    f"[sources.{self.name}] annotations: nothing at {pattern}; expected an SA-Co json. "
                    "Check the path in the recipe"
                )
            uris.update(dict.fromkeys(found))
        if not uris:
            raise SourceError(f"[sources.{self.name}] annotations is empty; expected an SA-Co json")
        return list(uris)

    def scan(self, part: ScanPart) -> Iterator[Found]:
        """Every picture of the bucket by name, with a label for each phrase that it was asked."""
        rejects, pictures = read_bucket(part.spill)
        yield from rejects
        for file_name, pairs in pictures.items():
            try:
                name, data = self._read(file_name)
            except Rejected as rejected:
                yield Reject(where=pairs[0].where, reason=rejected.reason, detail=rejected.detail, image=True)
                continue
            size = (pairs[0].width, pairs[0].height)
            findings: list[Finding] = []
            for layer, pair in enumerate(pairs):
                yield from _read_pair(pair, size, layer, findings)
            merged = merge_labels(findings)
            for phrase in merged.contradictions:
                detail = "one pair shows the phrase and another denies it; expected one answer. It is left open"
                yield Reject(where=pairs[0].where, reason=Reason.CONTRADICTION, detail=detail, phrase=phrase)
            yield Picture(
                image_id=re.sub(r"\.[A-Za-z]{3,4}$", "", file_name),
                uri=name,
                offset=0,
                data=data,
                labels=merged.labels,
                claimed_size=size,
                licence=self.licence,
            )

    def _read(self, file_name: str) -> tuple[str, bytes]:
        """The picture's name below the root and its bytes; a file without its folders is found too.

        Raises:
            Rejected: UNSAFE_NAME, MISSING_FILE, UNREADABLE.
        """
        safe = files.safe_member(file_name)
        for name in dict.fromkeys((safe, posixpath.basename(safe))):
            try:
                return name, files.read_bytes(files.join(self.root, name))
            except (FileNotFoundError, NotADirectoryError):
                continue
            except (OSError, ValueError) as error:
                raise Rejected(Reason.UNREADABLE, f"{name!a} cannot be read: {type(error).__name__}") from error
        raise Rejected(Reason.MISSING_FILE, f"{safe!a} is not in the folder of pictures")


def open_saco(name: str, table: SacoSource, recipe: Recipe) -> Saco:
    """The source `name` of the recipe."""
    patterns = [table.annotations] if isinstance(table.annotations, str) else table.annotations
    return Saco(
        name=name,
        root=recipe.resolve(table.images),
        annotations=tuple(recipe.resolve(pattern) for pattern in patterns),
        licence=table.licence,
    )


def _digest(decides: object) -> str:
    return hashlib.sha256(msgspec.json.encode(decides)).hexdigest()[:16]


def _read_pair(pair: PairRow, size: tuple[int, int], layer: int, findings: list[Finding]) -> Iterator[Reject]:
    """Set down what the pair says of its phrase; each pair is a layer, so that two answers are not added up."""
    try:
        phrase = _phrase(pair.phrase)
    except Rejected as rejected:
        yield Reject(where=pair.where, reason=rejected.reason, detail=rejected.detail)
        return

    def say(outcome: Outcome, *masks: Mask) -> None:
        findings.append(Finding(phrase=phrase, outcome=outcome, masks=masks, layer=layer))

    fault = _fault(pair, size)
    if fault is not None:
        yield Reject(where=pair.where, reason=fault.reason, detail=fault.detail, phrase=phrase)
        say(Outcome.REJECTED)
    elif not pair.annotations:
        say(Outcome.ABSENT if pair.is_instance_exhaustive else Outcome.OPEN)
    else:
        for annotation, mask in zip(pair.annotations, _masks(pair.annotations, size), strict=True):
            if isinstance(mask, Rejected):
                yield Reject(where=annotation.where, reason=mask.reason, detail=mask.detail, phrase=phrase)
                say(Outcome.REJECTED)
            else:
                say(Outcome.PRESENT, *mask)
        if not pair.is_pixel_exhaustive:
            say(Outcome.OPEN)


def _phrase(raw: bytes) -> str:
    try:
        return normalise_phrase(raw.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise Rejected(Reason.PHRASE_NOT_UTF8, f"phrase {raw[:40]!a} is not UTF-8; expected UTF-8 text") from error


def _fault(pair: PairRow, size: tuple[int, int]) -> Rejected | None:
    """Why the pair as a whole cannot be used."""
    if pair.fault is not None:
        return Rejected(pair.fault.reason, pair.fault.detail)
    if (pair.width, pair.height) != size:
        found = f"{pair.width} x {pair.height} pixels"
        return Rejected(Reason.SIZE_MISMATCH, f"{found}; expected {size[0]} x {size[1]} as in the picture's first pair")
    return None


def _masks(annotations: Sequence[AnnotationRow], size: tuple[int, int]) -> list[tuple[Mask, ...] | Rejected]:
    """The mask of each annotation (none for a box alone), or why it is none; `size` is width, height."""
    width, height = size
    made = [_mask(annotation, (height, width)) for annotation in annotations]
    texts = [found[0].counts if isinstance(found, tuple) and found else "" for found in made]
    faults = check_masks_of((height, width), texts).faults.tolist()
    checked: list[tuple[Mask, ...] | Rejected] = []
    for found, fault in zip(made, faults, strict=True):
        reason = reason_of(MaskFault(fault)) if isinstance(found, tuple) and found else None
        if reason is None:
            checked.append(found)
        else:
            detail = (
                f"RLE is {MaskFault(fault).name.lower().replace('_', ' ')}; expected runs that fill {width} x {height}"
            )
            checked.append(Rejected(reason, detail))
    return checked


def _mask(annotation: AnnotationRow, size: tuple[int, int]) -> tuple[Mask, ...] | Rejected:
    """The annotation's mask, its runs unchecked; `size` is height, width."""
    rle = annotation.segmentation
    if annotation.fault is not None:
        return Rejected(annotation.fault.reason, annotation.fault.detail)
    if rle is None:
        return ()
    if rle.size != size:
        return Rejected(Reason.MASK_SIZE, f"RLE of height, width {list(rle.size)}; expected the picture's {list(size)}")
    if isinstance(rle.counts, str):
        return (Mask(size=size, counts=rle.counts),)
    try:
        return (mask_from_uncompressed(rle.counts, rle.size),)
    except Rejected as rejected:
        return rejected
