"""Every metric of the student as its definition reads, prompt by prompt in plain loops; None where it is undefined."""

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

Figures = dict[str, float | None]

KINDS = ("blank", "noise", "random", "popular", "co_occurring", "near_text", "near_image", "false_alarm")


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One prompt, its label and what was answered."""

    image: int
    present: bool
    presence: float
    kind: str = ""
    phrase: int = 0
    complete: bool = True
    intersection: int = 0
    predicted: int = 0
    truth: int = 0
    pixels: int = 1
    best_iou: float = 0.0
    num_instances: int = 0


def said(row: Row, threshold: float = 0.5) -> bool:
    return row.presence >= threshold


def share(part: int, whole: int) -> float:
    return part / whole if whole else 0.0


def one_sided(rows: Sequence[Row]) -> bool:
    return len({row.present for row in rows}) < 2


def confusion(rows: Iterable[Row], answer: Callable[[Row], bool] = said) -> tuple[int, int, int, int]:
    tp = fp = fn = tn = 0
    for row in rows:
        if row.present and answer(row):
            tp += 1
        elif row.present:
            fn += 1
        elif answer(row):
            fp += 1
        else:
            tn += 1
    return tp, fp, fn, tn


def mcc(tp: int, fp: int, fn: int, tn: int, guard: float = 0.0) -> float:
    product = (tp + fp) * (tp + fn) * (tn + fp) * (tn + fn)
    return (tp * tn - fp * fn) / (math.sqrt(product) + guard) if product else 0.0


def presence(rows: Sequence[Row]) -> Figures:
    names = ("presence_precision", "presence_recall", "presence_f1", "absence_f1", "il_mcc", "il_fpr")
    if one_sided(rows):
        return dict.fromkeys(names)
    tp, fp, fn, tn = confusion(rows)
    precision, recall = share(tp, tp + fp), share(tp, tp + fn)
    quiet_precision, quiet_recall = share(tn, tn + fn), share(tn, tn + fp)
    f1 = 2 * precision * recall / (precision + recall) if precision + recall else 0.0
    quiet = quiet_precision + quiet_recall
    quiet_f1 = 2 * quiet_precision * quiet_recall / quiet if quiet else 0.0
    return dict(zip(names, (precision, recall, f1, quiet_f1, mcc(tp, fp, fn, tn), share(fp, fp + tn)), strict=True))


def presence_auc(rows: Sequence[Row], score: Callable[[Row], float] = lambda row: row.presence) -> float | None:
    if one_sided(rows):
        return None
    wins = [
        (score(here) > score(gone)) + 0.5 * (score(here) == score(gone))
        for here in rows
        for gone in rows
        if here.present and not gone.present
    ]
    return sum(wins) / len(wins)


def hallucination(rows: Sequence[Row]) -> Figures:
    found: Figures = {}
    for kind in KINDS:
        asked = [row for row in rows if not row.present and row.kind == kind]
        found[f"hallucination_{kind}"] = share(sum(map(said, asked)), len(asked)) if asked else None
    return found


def masks(rows: Sequence[Row]) -> Figures:
    ious, everything, generalised, intersection, union, quiet, found = [], [], [], 0, 0, [], []
    for row in rows:
        if not row.present:
            quiet.append(not said(row))
            generalised.append(0.0 if said(row) else 1.0)
            union += row.predicted if said(row) else 0
            continue
        found.append(said(row))
        if not row.complete:
            continue
        both = row.predicted + row.truth - row.intersection
        iou = row.intersection / both if both else 0.0
        ious.append(iou)
        everything.append(row.truth / row.pixels)
        generalised.append(iou if said(row) else 0.0)
        intersection += row.intersection if said(row) else 0
        union += both if said(row) else row.truth
    return {
        "miou": mean(ious),
        "miou_everything": mean(everything),
        "giou": mean(generalised),
        "ciou": intersection / union if union else None,
        "n_acc": mean(quiet),
        "t_acc": mean(found),
    }


def mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None


def calibration(rows: Sequence[Row]) -> Figures:
    if one_sided(rows):
        return {"ece": None, "brier": None}
    held = defaultdict(list)
    for row in rows:
        held[min(int(row.presence * 15), 14)].append(row)
    ece = 0.0
    for here in held.values():
        confidence = sum(row.presence for row in here) / len(here)
        ece += len(here) / len(rows) * abs(confidence - sum(row.present for row in here) / len(here))
    return {"ece": ece, "brier": sum((row.presence - row.present) ** 2 for row in rows) / len(rows)}


def pope(rows: Sequence[Row]) -> Figures:
    found: Figures = {}
    by_image = defaultdict(list)
    for row in rows:
        by_image[row.image].append(row)
    for setting, kind in (("random", "random"), ("popular", "popular"), ("adversarial", "co_occurring")):
        kept = []
        for asked in by_image.values():
            here = [row for row in asked if row.present]
            gone = [row for row in asked if not row.present and row.kind == kind]
            num = min(len(here), len(gone))
            kept += here[:num] + gone[:num]
        tp, fp, fn, tn = confusion(kept)
        found |= {
            f"pope_{setting}_accuracy": share(tp + tn, len(kept)) if kept else None,
            f"pope_{setting}_precision": share(tp, tp + fp) if kept else None,
            f"pope_{setting}_recall": share(tp, tp + fn) if kept else None,
            f"pope_{setting}_f1": share(2 * tp, 2 * tp + fp + fn) if kept else None,
            f"pope_{setting}_mcc": mcc(tp, fp, fn, tn) if kept else None,
            f"pope_{setting}_yes_ratio": share(tp + fp, len(kept)) if kept else None,
        }
    return found


def mcc_at(rows: Sequence[Row], at: float, score: Callable[[Row], float] = lambda row: row.presence) -> float:
    return mcc(*confusion(rows, lambda row: score(row) >= at))


def threshold(rows: Sequence[Row]) -> float | None:
    if one_sided(rows):
        return None
    scores = sorted({row.presence for row in rows})
    tried = [0.5, scores[0], *[(below + above) / 2 for below, above in pairwise(scores)]]
    found = {t: mcc_at(rows, t) for t in tried}
    best = max(found.values())
    return min((t for t in tried if found[t] >= best - 1e-12), key=lambda t: abs(t - 0.5))


def blind_score(rows: Sequence[Row], own: int) -> float:
    others = [row for place, row in enumerate(rows) if place != own]
    group = [row for row in others if row.phrase == rows[own].phrase]
    overall = sum(row.present for row in others) / len(others) if others else 0.0
    excess = sum(row.present for row in group) - len(group) * overall
    beyond = math.copysign(max(abs(excess) - 1, 0.0), excess)
    return round(beyond / (len(group) + 10), 12)


def blind(rows: Sequence[Row]) -> Figures:
    if one_sided(rows):
        return {"blind_phrase_auc": None, "blind_phrase_mcc": None}
    scores = {id(row): blind_score(rows, place) for place, row in enumerate(rows)}

    def score(row: Row) -> float:
        return scores[id(row)]

    best = max(mcc_at(rows, at, score) for at in scores.values())
    return {"blind_phrase_auc": presence_auc(rows, score), "blind_phrase_mcc": best}


def saco(rows: Sequence[Row]) -> Figures:
    """As the public evaluator accumulates it, one detection where the answer is "present"."""
    positive = [row for row in rows if row.num_instances]
    figures: Figures = {"saco_cgf1": None, "saco_pmf1": None, "saco_il_mcc": None}
    if not positive:
        return figures
    f1s = []
    for place in range(10):
        iou = 0.5 + 0.05 * place
        tp = fp = fn = 0
        for row in positive:
            hit = said(row) and row.best_iou >= iou - 1e-9
            tp += hit
            fp += said(row) and not hit
            fn += row.num_instances - hit
        precision, recall = tp / (tp + fp + 1e-4), tp / (tp + fn + 1e-4)
        f1s.append(2 * precision * recall / (precision + recall + 1e-4))
    figures["saco_pmf1"] = sum(f1s) / 10
    if len(positive) < len(rows):
        figures["saco_il_mcc"] = mcc(*confusion(rows), guard=1e-6)
        figures["saco_cgf1"] = 100 * sum(f1s) / 10 * (figures["saco_il_mcc"] or 0.0)
    return figures


def all_sums(rows: Sequence[Row]) -> Figures:
    """The figures that a single pass over the rows gives."""
    return {**presence(rows), **hallucination(rows), **masks(rows), **calibration(rows), **pope(rows), **saco(rows)}
