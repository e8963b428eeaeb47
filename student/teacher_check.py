"""Whether a teacher's rows tell what pictures show, asked before phase 1 teaches presence by them."""

# N presences, D width of the teacher's rows

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from torch import Tensor

from manifests import files, tables
from manifests.statistics import auc
from student.teacher import Teacher

LEAST_AUC = 0.55  # below it, what is taught is hardly more than noise

_ASKED = 10_000  # presences that are looked at


def match_auc(teacher: Teacher, folders: Sequence[str]) -> float | None:
    """How often a phrase lies nearer to a picture that shows it than to that of a presence half the table away.

    No absence is needed. The other picture may show the phrase, too, so that a good teacher stays well below 1.

    Args:
        teacher: Its rows.
        folders: Builds, whose train is looked at.

    Returns:
        The AUC; None where fewer than two presences have rows.
    """
    asked = _presences(folders)
    keys, pictures_rd = _pictures(teacher, pc.unique(asked["image_key"]))
    row_n = pc.fill_null(pc.index_in(asked["image_key"], value_set=keys), -1).to_numpy()
    phrases_nd, known_n = teacher.phrase_rows(asked["phrase"].to_pylist())
    kept = np.flatnonzero(known_n.numpy() & (row_n >= 0))
    if len(kept) < 2:
        return None
    pictures_nd, phrases_nd = pictures_rd[row_n[kept]], phrases_nd[kept].float()
    others_nd = pictures_nd.roll(len(kept) // 2, 0)
    cosines = [torch.cosine_similarity(rows_nd, phrases_nd) for rows_nd in (pictures_nd, others_nd)]
    return auc(torch.cat(cosines).double().numpy(), np.arange(2 * len(kept)) < len(kept))


def _presences(folders: Sequence[str]) -> pa.Table:
    """The first presences of train."""
    groups, num = [], 0
    for folder in folders:
        uri = files.join(folder, "samples.parquet")
        for group in tables.iterate_table(uri, tables.SAMPLES, ["image_key", "split", "phrase", "present"]):
            groups.append(group.filter(pc.and_(pc.equal(group["split"], "train"), group["present"])))
            num += groups[-1].num_rows
            if num >= _ASKED:
                return pa.concat_tables(groups)[:_ASKED]
    return pa.concat_tables(groups)


def _pictures(teacher: Teacher, asked: pa.Array) -> tuple[pa.Array, Tensor]:
    """Keys and rows [R, D] of those pictures that the teacher has."""
    groups = []
    for part in teacher.parts:
        table = tables.read_table(part, tables.EMBEDDINGS, ["key", "phrase", "row"])
        groups.append(table.filter(pc.and_(pc.equal(table["phrase"], ""), pc.is_in(table["key"], value_set=asked))))
    found = pa.concat_tables(groups).combine_chunks()
    rows = pc.list_flatten(found["row"]).to_numpy().astype(np.float32)
    return found["key"].combine_chunks(), torch.from_numpy(rows.reshape(-1, teacher.width))
