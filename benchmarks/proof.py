"""The proof: students that differ in the absences that they were shown, judged on pictures that nobody tuned to.

    python benchmarks/proof.py COCO --out DIR [--arms abcdefghij] [--sweeps all] [--folds 0,1,2,3,4] [--quick]

Each fold's test pictures are in no other fold's test. All arms of a fold take equally many steps from the same weights,
those of one phase 1 over all its real pictures, and are judged by one build of val and test. What is finished is kept:
run the same command again to go on.
"""

import argparse
import hashlib
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import msgspec

from benchmarks import proof_arms, proof_world
from benchmarks.proof_arms import ARMS, PHASE_1, Arm
from benchmarks.proof_sweeps import SWEEPS
from benchmarks.proof_teacher import write_answers
from student.run_record import read_run

REPOSITORY = Path(__file__).resolve().parent.parent
STUDENT = REPOSITORY / "benchmarks" / "proof_student.toml"
PICTURES_ALONE = ("--encoder", "conse", "--no-crops", "--quiet")  # the embedded encoder's rows, for phase 1
QUICK = {"arms": "ace", "folds": "0", "epochs": 2, "phase_1": 1}


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """What every figure of a folder rests on."""

    epochs: int
    phase_1: int  # epochs of it, before
    config: str  # its text
    pictures: str  # sha256 of their names


@dataclass(frozen=True, slots=True)
class Fold:
    """Where a fold stands, and what all its arms share."""

    folder: Path
    counts: dict[str, int]  # of pictures, by part
    settings: Settings

    @property
    def world(self) -> Path:
        """Its sources."""
        return self.folder / "world"

    @property
    def judge(self) -> Path:
        """The build whose val and test judge every arm."""
        return self.folder / "judge"


def keep_settings(out: Path, settings: Settings) -> None:
    """Note the settings of a folder.

    Raises:
        SystemExit: it was begun with others, whose figures would stand beside these as if they were alike.
    """
    path = out / "settings.json"
    if path.exists():
        kept = msgspec.json.decode(path.read_bytes(), type=Settings)
        names = [name for name in Settings.__struct_fields__ if getattr(kept, name) != getattr(settings, name)]
        if names:
            raise SystemExit(
                f"error: {out} was begun with other {', '.join(names)}; expected the same, or another --out"
            )
        return
    out.mkdir(parents=True, exist_ok=True)
    path.write_bytes(msgspec.json.encode(settings))


def run(*line: str, log: Path) -> None:
    """A command of ours; what it says is kept in `log`.

    Raises:
        SystemExit: it failed.
    """
    begun_s = time.monotonic()
    with log.open("ab") as file:
        done = subprocess.run([sys.executable, "-m", *line], cwd=REPOSITORY, stdout=file, stderr=file, check=False)
    print(f"  {line[0]} {' '.join(line[1:2])}: {time.monotonic() - begun_s:.0f} s", flush=True)
    if done.returncode:
        raise SystemExit(f"error: python -m {' '.join(line)} ended with {done.returncode}; see {log}")


def build(recipe: Path, out: Path) -> Path:
    """The finished build of a recipe."""
    run("flows.build_shards", str(recipe), "--out", str(out), log=out.with_suffix(".log"))
    return out


def share_embeddings(fold: Path, into: Path) -> None:
    """Begin a build with the rows that another arm embedded: the same pictures and phrases need no second pass.

    A stage takes up what is named by the digest of its input, and nothing else.
    """
    rows = into / "work" / "embeddings"
    others = [found.parent for found in sorted(fold.glob("*/build/manifest.json"))]
    found = next((other / "work" / "embeddings" for other in others if (other / "work" / "embeddings").exists()), None)
    if found is not None and not rows.exists():
        part = rows.with_name("embeddings.part")  # so that a copy that was cut short is not taken for a whole one
        shutil.copytree(found, part, dirs_exist_ok=True)
        part.rename(rows)


def changed(config: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """A student's config with some values replaced, and some of those in its tables."""
    return config | {
        name: config.get(name, {}) | value if isinstance(value, dict) else value for name, value in changes.items()
    }


def wanted(arms: str, sweeps: str) -> list[Arm]:
    """The arms named by their letters, and those of the sweeps, "all" or some with commas between; each once.

    An arm that begins with another's student comes after it, asked for or not.

    Raises:
        SystemExit: there is no such arm, or no such sweep.
    """
    known = {sweep.name: sweep for sweep in SWEEPS}
    names = list(known) if sweeps == "all" else [name for name in sweeps.split(",") if name]
    if unknown := set(names) - known.keys() | set(arms) - {arm.name for arm in ARMS}:
        letters = "".join(arm.name for arm in ARMS)
        raise SystemExit(
            f"error: {', '.join(sorted(unknown))}; expected arms of {letters}, sweeps of {', '.join(known)}"
        )
    asked = [arm for arm in ARMS if arm.name in arms]
    asked += [arm for name in names for arm in known[name].points.values()]
    before = {name for arm in asked for name in (arm.alarms_of, arm.begins_with)}
    return list({arm.name: arm for arm in (*(arm for arm in ARMS if arm.name in before), *asked)}.values())


def is_trained(run: Path) -> bool:
    """Whether a run has come to its end."""
    record = read_run(str(run))
    return record is not None and record.finished


def learn(place: Path, *options: str, init: Path | None, student: dict[str, Any], epochs: int) -> Path:
    """The student of a place's build, trained unless it is."""
    trained = place / "run"
    if is_trained(trained):
        return trained
    config = place / "student.toml"
    config.write_bytes(msgspec.toml.encode(student))
    line = [str(place / "build"), "--out", str(trained), "--config", str(config), "--epochs", str(epochs), *options]
    if (trained / "last.safetensors").exists():
        line += ["--resume"]
    elif init is not None:
        line += ["--init", str(init)]
    run("student.train", *line, "--quiet", log=place / "log.txt")
    return trained


def align(fold: Fold) -> Path | None:
    """The student of phase 1 that all arms of a fold begin with, taught by the embedded encoder; None for no epochs."""
    place, settings = fold.folder / PHASE_1.name, fold.settings
    if not settings.phase_1:
        return None
    if is_trained(place / "run"):
        return place / "run"
    place.mkdir(parents=True, exist_ok=True)
    recipe, teacher = place / "recipe.toml", place / "teacher"
    proof_arms.write(recipe, proof_arms.recipe(PHASE_1, fold.world, fold.counts))
    made = str(build(recipe, place / "build"))
    run("miners.embed", made, "--out", str(teacher), *PICTURES_ALONE, log=place / "log.txt")
    student = msgspec.toml.decode(settings.config)
    return learn(place, "--teacher", str(teacher), "--phases", "1", init=None, student=student, epochs=settings.phase_1)


def judge_teacher(fold: Fold) -> None:
    """The evaluation of phase 1's teacher, made unless it is there: what its students' presences are held against."""
    place = fold.folder / PHASE_1.name
    found, log = place / "evaluation", place / "log.txt"
    if (found / "evaluation.json").exists():
        return
    run("miners.embed", str(fold.judge), "--out", str(place / "judge-rows"), *PICTURES_ALONE, log=log)
    found.mkdir(exist_ok=True)
    write_answers(fold.judge, place / "judge-rows", found / "predictions.parquet")
    judging = ("--split", "test", "--out", str(found), "--name", "the teacher of phase 1", "--quiet")
    run("student.evaluate", str(found / "predictions.parquet"), str(fold.judge), *judging, log=log)


def settle(fold: Fold, arm: Arm, aligned: Path | None) -> Path:
    """The evaluation of an arm, made unless it is there."""
    place = fold.folder / arm.name
    found = place / "evaluation" / "evaluation.json"
    if found.exists():
        return found
    place.mkdir(parents=True, exist_ok=True)
    log = place / "log.txt"
    predictions = ""
    if arm.alarms_of:
        other = fold.folder / arm.alarms_of
        predictions = str(place / "train_predictions.parquet")
        if not Path(predictions).exists():
            seen = ("--split", "train", "--ask", "vocabulary", "--out", predictions)  # as flows.close_the_loop asks
            run("student.predict", str(other / "run"), str(other / "build"), *seen, log=log)
    recipe = place / "recipe.toml"
    proof_arms.write(recipe, proof_arms.recipe(arm, fold.world, fold.counts, predictions=predictions))
    if arm.mine is not None:
        share_embeddings(fold.folder, place / "build")
    build(recipe, place / "build")
    init = fold.folder / arm.begins_with / "run" if arm.begins_with else aligned
    student = changed(msgspec.toml.decode(fold.settings.config), arm.student)
    learn(place, *arm.train, init=init, student=student, epochs=arm.epochs or fold.settings.epochs)
    judging = ("--split", "test", "--out", str(place / "evaluation"), "--name", arm.title, "--quiet")
    run("student.evaluate", str(place / "run"), str(fold.judge), *judging, log=log)
    return found


def main(argv: Sequence[str] | None = None) -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("coco", type=Path, help="a folder of COCO pictures and annotations, however deep")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--arms", help="their letters [all; those of the sweeps where there are some]")
    parser.add_argument("--sweeps", default="", help=f"all, or some of {', '.join(sweep.name for sweep in SWEEPS)}")
    parser.add_argument("--folds", default=",".join(map(str, range(proof_world.FOLDS))))
    parser.add_argument("--epochs", type=int, default=10, help="of each arm")
    parser.add_argument("--phase-1", type=int, default=4, help="epochs of phase 1, which all arms share; 0 for none")
    parser.add_argument(
        "--config", default=str(STUDENT), help="of the student [benchmarks/proof_student.toml]; '' for its defaults"
    )
    parser.add_argument("--quick", action="store_true", help="three arms, one fold, two epochs")
    options = parser.parse_args(argv)
    if options.quick:
        vars(options).update(QUICK)
    everything = "" if options.sweeps else "".join(arm.name for arm in ARMS)
    asked = wanted(everything if options.arms is None else options.arms, options.sweeps)
    arms = [arm for arm in asked if arm.epochs != options.epochs]  # one that is as long as all others is one of them
    pictures = proof_world.gather(options.coco.resolve())
    names = hashlib.sha256("".join(picture.row["file_name"] for picture in pictures.found).encode()).hexdigest()
    config = Path(options.config).read_text(encoding="utf-8") if options.config else ""
    settings = Settings(epochs=options.epochs, phase_1=options.phase_1, config=config, pictures=names)
    keep_settings(options.out, settings)
    for number in map(int, options.folds.split(",")):
        folder = options.out.resolve() / f"fold-{number}"
        world = folder / "world"
        counts_file = world / "counts.json"
        if not counts_file.exists():
            counts_file.parent.mkdir(parents=True, exist_ok=True)
            counts_file.write_bytes(msgspec.json.encode(proof_world.write_fold(pictures, number, world)))
        fold = Fold(folder, msgspec.json.decode(counts_file.read_bytes()), settings)
        print(f"fold {number}: {fold.counts}", flush=True)
        proof_arms.write(folder / "judge.toml", proof_arms.judge(world))
        build(folder / "judge.toml", fold.judge)
        aligned = align(fold)
        for arm in arms:
            print(f"arm {arm.name}: {arm.title}", flush=True)
            settle(fold, arm, aligned)
        if aligned is not None:
            judge_teacher(fold)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
