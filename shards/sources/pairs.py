"""Pictures with their json, paired by name in a tar or an unpacked folder, one pair in memory at a time.

A tar may hold its members in any order. What waits for its other half is held up to a bound of bytes, so that a tar in
the usual order is read once from front to back; beyond the bound only the place is remembered and read again later.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from manifests import files
from manifests.errors import Reason, Rejected
from shards.images import DEFAULT_LIMITS
from shards.sources.source import Reject
from shards.sources.tars import Lost, Member, walk

IMAGE_SUFFIXES = frozenset({"jpg", "jpeg"})
JSON_SUFFIX = "json"
MAX_JSON_BYTES = 64 << 20
MAX_HELD_BYTES = 64 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """One picture and its json, unchecked."""

    uri: str  # of the file that holds the picture's bytes
    offset: int  # of the picture's first byte in it
    image: bytes
    json: bytes
    where: str  # names the json in rejects


def kind_of(name: str) -> str | None:
    """`image`, `json`, or None for what is neither."""
    suffix = name.rpartition(".")[2].lower()
    if suffix in IMAGE_SUFFIXES:
        return "image"
    return "json" if suffix == JSON_SUFFIX else None


def stem_of(name: str) -> str:
    """What a picture and its json share: the name up to its last dot."""
    return name.rpartition(".")[0]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Half:
    """A member that waits for its other half."""

    member: Member
    kind: str
    data: bytes | None  # None where it has to be read again


def tar_pairs(uri: str, where: str) -> Iterator[Pair | Reject]:
    """Every pair of the tar at `uri` in the order in which they become whole, then what stayed alone.

    A picture that is lost counts once: the first unusable member of its name is a reject with `image`.

    Raises:
        SourceError: the tar is compressed.
    """
    waiting: dict[str, _Half] = {}
    spoilt: set[str] = set()  # stems whose picture is already counted as lost
    held_bytes = 0
    with files.open_input(uri) as file:
        for found in walk(file, where):
            kind, stem = kind_of(found.name), stem_of(found.name)
            unusable = found.reject if isinstance(found, Lost) else _too_large(found, kind, where)
            if unusable is not None:
                yield _once(unusable, stem, spoilt, is_ours=kind is not None or not found.name)
                spoilt.add(stem)
            if not isinstance(found, Member) or kind is None or stem in spoilt:
                continue
            other = waiting.get(stem)
            if other is not None and other.kind == kind:
                yield _duplicate(found, where)
                continue
            file.seek(found.offset)
            if other is None:
                hold = held_bytes + found.num_bytes <= MAX_HELD_BYTES
                waiting[stem] = _Half(member=found, kind=kind, data=file.read(found.num_bytes) if hold else None)
                held_bytes += found.num_bytes if hold else 0
                continue
            half = _Half(member=found, kind=kind, data=file.read(found.num_bytes))
            held_bytes -= len(other.data or b"")
            del waiting[stem]
            image, json = (half, other) if kind == "image" else (other, half)
            yield Pair(
                uri=uri,
                offset=image.member.offset,
                image=_data(uri, image),
                json=_data(uri, json),
                where=f"{where}: {json.member.name}",
            )
    for stem, half in waiting.items():
        if stem not in spoilt:
            yield _alone(half.kind, f"{where}: {half.member.name}")


def folder_pairs(folder: str, names: Sequence[str], where: str) -> Iterator[Pair | Reject]:
    """Every pair among the files `names` of `folder`, by sorted stem, and what stands alone."""
    by_stem: dict[str, dict[str, str]] = {}
    for name in sorted(names):
        kind = kind_of(name)
        if kind is None:
            continue
        halves = by_stem.setdefault(stem_of(name), {})
        if halves.setdefault(kind, name) != name:
            yield Reject(
                where=files.join(where, name),
                reason=Reason.DUPLICATE_ID,
                detail=f"{halves[kind]} has the same stem; expected one {kind} per name",
                image=True,
            )
    for _, halves in sorted(by_stem.items()):
        if len(halves) < 2:
            kind, name = next(iter(halves.items()))
            yield _alone(kind, files.join(where, name))
            continue
        place = files.join(where, halves["json"])
        try:
            image_uri = files.join(folder, halves["image"])
            json = _read(files.join(folder, halves["json"]), MAX_JSON_BYTES)
            image = _read(image_uri, DEFAULT_LIMITS.max_bytes)
        except Rejected as rejected:
            yield Reject(where=place, reason=rejected.reason, detail=rejected.detail, image=True)
            continue
        yield Pair(uri=image_uri, offset=0, image=image, json=json, where=place)


def _read(uri: str, max_bytes: int) -> bytes:
    """All of `uri`.

    Raises:
        Rejected: MISSING_FILE, UNREADABLE, TOO_MANY_BYTES.
    """
    name = uri.rpartition("/")[2]
    try:
        if (found := files.num_bytes(uri)) <= max_bytes:
            return files.read_bytes(uri)
    except FileNotFoundError as error:
        raise Rejected(Reason.MISSING_FILE, f"{name} was listed and is no longer there") from error
    except OSError as error:
        raise Rejected(Reason.UNREADABLE, f"{name} cannot be read: {error}") from error
    raise Rejected(Reason.TOO_MANY_BYTES, f"{name} has {found} bytes; expected at most {max_bytes}")


def _data(uri: str, half: _Half) -> bytes:
    if half.data is not None:
        return half.data
    return files.read_range(uri, half.member.offset, half.member.num_bytes)


def _too_large(member: Member, kind: str | None, where: str) -> Reject | None:
    max_bytes = MAX_JSON_BYTES if kind == "json" else DEFAULT_LIMITS.max_bytes
    if kind is None or member.num_bytes <= max_bytes:
        return None
    return Reject(
        where=f"{where}: {member.name}",
        reason=Reason.TOO_MANY_BYTES,
        detail=f"{member.num_bytes} bytes; expected at most {max_bytes}",
        image=True,
    )


def _once(reject: Reject, stem: str, spoilt: set[str], *, is_ours: bool) -> Reject:
    """`reject`, an image's only where no other member of `stem` was, and where it was a picture's at all."""
    if reject.image and (stem in spoilt or not is_ours):
        return Reject(where=reject.where, reason=reject.reason, detail=reject.detail)
    return reject


def _duplicate(member: Member, where: str) -> Reject:
    return Reject(
        where=f"{where}: {member.name}",
        reason=Reason.DUPLICATE_ID,
        detail=f"a second member of this name, at byte {member.offset}; expected one",
        image=True,
    )


def _alone(kind: str, where: str) -> Reject:
    if kind == "image":
        detail = "no json of the same name; expected one beside each picture"
        return Reject(where=where, reason=Reason.NO_ANNOTATION_FILE, detail=detail, image=True)
    detail = "no jpg of the same name; expected one beside each json"
    return Reject(where=where, reason=Reason.NO_IMAGE_FILE, detail=detail, image=True)
