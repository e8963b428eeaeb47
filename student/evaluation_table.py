"""An evaluation for people: its main readings with intervals, the blind baselines beside presence, and its page."""

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from student.failures import failures_uri
from student.metric_kinds import AT_VAL, Group, metric_kind
from student.readings import Evaluation, Reading

_GROUPS = (
    ("miou", "miou_everything", "giou", "ciou", "n_acc", "t_acc", "prompt_sensitivity"),
    ("presence_f1", "presence_precision", "presence_recall", "absence_f1", "il_mcc", "il_fpr"),
    ("presence_auc", "blind_phrase_auc", "blind_source_auc", "blind_phrase_mcc", "blind_source_mcc"),
    ("ece", "ece_scaled", "brier", "brier_scaled"),
    ("saco_cgf1", "saco_pmf1", "saco_il_mcc"),
)


def show(evaluation: Evaluation, folder: str, console: Console | None = None) -> None:
    """Print the evaluation that lies in `folder`."""
    console = console or Console()
    console.print(
        f"{escape(evaluation.name)} on {evaluation.split} of {escape(evaluation.build)}: "
        f"{evaluation.num_present:,} present and {evaluation.num_absent:,} absent prompts of "
        f"{evaluation.num_images:,} pictures, 95 % intervals over pictures"
    )
    console.print(_table(evaluation))
    for why, keys in _undefined(evaluation).items():
        console.print(f"Undefined: {', '.join(keys)}, because {escape(why)}.")
    if evaluation.threshold is not None:
        temperature = "undefined" if evaluation.temperature is None else f"{evaluation.temperature:.3f}"
        console.print(f"Threshold {evaluation.threshold:.3f}, temperature {temperature}: from {evaluation.fitted_on}.")
    for note in evaluation.notes:
        console.print(f"Note: {escape(note)}.")
    console.print(f"False alarms and misses, with pictures: {escape(failures_uri(folder))}", soft_wrap=True)


def _table(evaluation: Evaluation) -> Table:
    table = Table(show_edge=False, pad_edge=False)
    for name in ("metric", "at 0.5", "95 %", "at val's", "prompts"):
        table.add_column(name, justify="left" if name == "metric" else "right", no_wrap=True)
    for keys in _rows(evaluation):
        for key in keys:
            if evaluation.readings[key].value is not None:
                table.add_row(key, *_cells(evaluation.readings, key))
        table.add_section()
    return table


def _rows(evaluation: Evaluation) -> list[list[str]]:
    """The keys that are shown, group by group; kinds that were not asked are left out."""
    rates = [key for key in evaluation.readings if metric_kind(key).group is Group.HALLUCINATION]
    asked = [key for key in rates if not key.endswith(AT_VAL) and evaluation.readings[key].value is not None]
    return [*map(list, _GROUPS), asked]


def _undefined(evaluation: Evaluation) -> dict[str, list[str]]:
    """The shown metrics that are undefined, by the reason."""
    found: dict[str, list[str]] = {}
    for key in (key for keys in _rows(evaluation) for key in keys):
        if evaluation.readings[key].value is None:
            found.setdefault(evaluation.readings[key].undefined, []).append(key)
    return found


def _cells(readings: dict[str, Reading], key: str) -> tuple[str, str, str, str]:
    found, at_val = readings[key], readings.get(key + AT_VAL)
    interval = "" if found.low is None else f"{found.low:.3f} to {found.high:.3f}"
    chosen = "" if at_val is None or at_val.value is None else f"{at_val.value:.3f}"
    return f"{found.value:.3f}", interval, chosen, f"{found.num:,}"
