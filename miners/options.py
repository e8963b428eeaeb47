"""The recipe's `[mine]` table as options of a command: one list of settings, whoever asks."""

import argparse
from typing import Literal, get_args, get_origin

import msgspec

from manifests.errors import RecipeError
from manifests.recipe import DEFAULT_RATE, Mine
from manifests.recipe_mine import check_mine
from manifests.sample import NegativeKind

_HELP = {
    "encoder": "auto, conse, MODEL/PRETRAINED of open_clip, MODEL@FILE.safetensors or hf-hub:NAME",
    "templates": "file of prompt templates instead of the encoder's own",
    "max_false_negative_rate": f"let the audit choose the margin [{DEFAULT_RATE}, where no margin is given]",
    "relative_margin": "keep scores this share below their positive",
    "absolute_margin": "keep scores this far below their positive",
    "margin_space": "scores that margins act on: standard ones, or cosines",
    "max_score": "keep near_text and near_image scores up to this",
    "min_score": "keep near_text and near_image scores from this on",
    "range_min": "pass over ranks below this",
    "range_max": "look at ranks below this [as deep as needed]",
    "num_negatives": "rows per query [as many as a build can ask]",
    "sampling_strategy": "take the hardest, or random ones of the range",
    "max_per_image": "near_image rows of one picture",
    "max_per_phrase_share": "near_text rows of one phrase, as a share of all",
    "hidden_share": "share of the known presences that the audit hides",
    "memory_gb": "memory for the index; above it the search is approximate",
    "negatives": "",  # only a build reads finished tables
    "predictions": "a student's predictions, whose false alarms are mined",
    "verifier": "predictions of a second model",
    "decisions": "a person's decisions, from the gallery",
}


def add_mine_options(parser: argparse.ArgumentParser) -> None:
    """Give `parser` an option for every setting that mining itself reads."""
    for field in msgspec.structs.fields(Mine):
        if not (text := _HELP[field.name]):
            continue
        option = f"--{field.name.replace('_', '-')}"
        if get_origin(field.type) is list:
            parser.add_argument(option, action="append", metavar="FILE", help=text)
        elif get_origin(field.type) is Literal:
            parser.add_argument(option, choices=get_args(field.type), help=f"{text} [{field.default}]")
        else:
            shown = "" if field.default in (None, "") else f" [{field.default}]"
            parser.add_argument(option, metavar="VALUE", help=f"{text}{shown}")


def mine_settings(options: argparse.Namespace) -> Mine:
    """The settings that were given, checked as a recipe's are.

    Raises:
        RecipeError: a value is of the wrong type or out of range, or two that exclude each other were given.
    """
    names = [field.name for field in msgspec.structs.fields(Mine)]
    given = {name: getattr(options, name) for name in names if getattr(options, name, None) is not None}
    try:
        settings = msgspec.convert(given, Mine, strict=False)
    except msgspec.ValidationError as error:
        raise RecipeError(f"options: {error}; see --help") from error
    alarms = [NegativeKind.FALSE_ALARM] if settings.predictions else []
    check_mine(settings, [NegativeKind.NEAR_IMAGE, NegativeKind.NEAR_TEXT, *alarms], "options")
    return settings
