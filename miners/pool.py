"""What is mined together: the pictures of one split, the phrases that may be asked of them, and their embeddings."""

# N pictures of the pool, V phrases of the pool (columns), C crops, D width

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from miners.embed_rows import Embedded
from shards.inventory import Inventory
from shards.splits import seeded_hash

NO_COLUMN = -1
MAX_CROPS = 256  # positives of a phrase that describe it; more say little and cost a pass over all


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Crops:
    """Positives of the pool's phrases, sorted by column."""

    row_c: NDArray[np.int64]  # picture, as a row of the pool
    column_c: NDArray[np.int64]
    box_c4: NDArray[np.float32]  # x, y, width, height in pixels
    crops_cd: NDArray[np.float16]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Pool:
    """Pictures and phrases that are mined together."""

    inventory: Inventory  # labels as the miner may know them
    picture_n: NDArray[np.int64]  # rows of the inventory, in order of their keys
    keys: pa.Array  # N
    phrase_v: NDArray[np.int32]  # phrases of the inventory
    column_of_phrase: NDArray[np.int64]  # NO_COLUMN where the phrase is not asked
    images_nd: NDArray[np.float16]
    texts_vd: NDArray[np.float16]
    crops: Crops

    @property
    def num_pictures(self) -> int:
        """N."""
        return len(self.picture_n)

    @property
    def num_phrases(self) -> int:
        """V."""
        return len(self.phrase_v)

    def present(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Row and column of every pair that the labels say is present, sorted by row."""
        label, row = self.inventory.present(self.picture_n)
        column = self.column_of_phrase[self.inventory.labels.phrase_l[label]]
        known = column != NO_COLUMN
        return row[known], column[known]

    def blocked(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Row and column of every pair that may never be mined: present or open, synonyms and hypernyms counted."""
        row, phrase = self.inventory.blocked(self.picture_n)
        column = self.column_of_phrase[phrase]
        codes = np.unique(self._code(row, column)[column != NO_COLUMN])
        found = np.divmod(codes, max(1, self.num_phrases))
        return found[0], found[1]

    def with_labels(self, inventory: Inventory) -> "Pool":
        """The same pool with other labels; crops of what they do not say are left out."""
        relabelled = replace(self, inventory=inventory)
        row, column = relabelled.present()
        said = np.isin(self._code(self.crops.row_c, self.crops.column_c), self._code(row, column))
        return replace(relabelled, crops=_taken(self.crops, np.flatnonzero(said)))

    def restricted(self, rows: NDArray[np.int64]) -> "Pool":
        """The pool of some of its pictures (rows, ascending)."""
        place = np.full(self.num_pictures, -1, np.int64)
        place[rows] = np.arange(len(rows))
        crops = _taken(self.crops, np.flatnonzero(place[self.crops.row_c] >= 0))
        return replace(
            self,
            picture_n=self.picture_n[rows],
            keys=self.keys.take(pa.array(rows)),
            images_nd=self.images_nd[rows],
            crops=replace(crops, row_c=place[crops.row_c]),
        )

    def _code(self, row: NDArray[np.int64], column: NDArray[np.int64]) -> NDArray[np.int64]:
        return row * self.num_phrases + column


def gather_pool(
    inventory: Inventory,
    pictures: NDArray[np.int64],
    phrases: Sequence[int] | NDArray[np.int32],
    embedded: Embedded,
    texts_vd: NDArray[np.float16],
) -> Pool:
    """The pool of some pictures (rows of the inventory) and phrases; at most MAX_CROPS positives a phrase, by hash."""
    keys = inventory.images["key"].take(pa.array(pictures)).combine_chunks()
    order = np.argsort(keys.to_numpy(zero_copy_only=False).astype(np.str_), kind="stable")
    picture_n, phrase_v = pictures[order], np.asarray(phrases, np.int32)
    column_of_phrase = np.full(len(inventory.phrases), NO_COLUMN, np.int64)
    column_of_phrase[phrase_v] = np.arange(len(phrase_v))
    row_of_picture = np.full(inventory.num_images, -1, np.int64)
    row_of_picture[picture_n] = np.arange(len(picture_n))
    row_c, column_c = row_of_picture[embedded.crop_image_c], column_of_phrase[embedded.crop_phrase_c]
    chosen = _first_of_each(column_c, row_c, inventory.content_n[embedded.crop_image_c])
    return Pool(
        inventory=inventory,
        picture_n=picture_n,
        keys=keys.take(pa.array(order)),
        phrase_v=phrase_v,
        column_of_phrase=column_of_phrase,
        images_nd=_rows(embedded.images_nd, picture_n),
        texts_vd=texts_vd,
        crops=Crops(
            row_c=row_c[chosen],
            column_c=column_c[chosen],
            box_c4=embedded.crop_box_c4[chosen],
            crops_cd=embedded.crops_cd[chosen],
        ),
    )


def _rows(images_nd: NDArray[np.float16], picture_n: NDArray[np.int64]) -> NDArray[np.float16]:
    """Some rows, without a copy where they are all rows as they stand."""
    is_all = len(picture_n) == len(images_nd) and bool((picture_n == np.arange(len(images_nd))).all())
    return images_nd if is_all else images_nd[picture_n]


def _first_of_each(
    column_c: NDArray[np.int64], row_c: NDArray[np.int64], content_c: NDArray[np.uint64]
) -> NDArray[np.int64]:
    """The first MAX_CROPS crops of every column in the pool, in an order that an added picture does not shuffle."""
    here = np.flatnonzero((column_c != NO_COLUMN) & (row_c >= 0))
    order = here[np.lexsort((here, seeded_hash(content_c[here], "crops"), column_c[here]))]
    place = np.arange(len(order)) - np.searchsorted(column_c[order], column_c[order], side="left")
    return order[place < MAX_CROPS]


def _taken(crops: Crops, rows: NDArray[np.int64]) -> Crops:
    return Crops(
        row_c=crops.row_c[rows],
        column_c=crops.column_c[rows],
        box_c4=crops.box_c4[rows],
        crops_cd=crops.crops_cd[rows],
    )
