"""Write: a plan becomes shards, beside `cp` then `sha256sum` of the same bytes, and beside `webdataset.TarWriter`.

    python benchmarks/write.py [--gigabytes 2] [--rounds 3] [--workers 2] [--json FILE]

A whole build is made once, so that the plan is there; then only the stage that writes is timed, from a ready plan to
shards on the disk (flushed) and their records, with running workers and all input in memory (page cache). `cp` and
`sha256sum` move the finished shards; TarWriter is fed the same members' bytes, read from them, and hashes nothing.
A second table says what the checks of a picture cost, picture by picture on one core.
"""

import argparse
import hashlib
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from pathlib import Path
from statistics import median

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import pyarrow.parquet as pq

from benchmarks.sa1b_like import HEIGHT, RECIPE, WIDTH, World, write_world
from benchmarks.timing import Claim, Figures, Value, Way, add_options, alternate, machine, median_ratio, report
from manifests import files
from manifests.recipe import SPLITS
from manifests.recipe_file import load_recipe
from manifests.stage import local_executor, progress_bar
from shards.build import write_shards
from shards.images import inspect_image, perceptual_hash, verify_decodes
from shards.plan import ShardPart
from shards.sources.registry import open_sources

HERE = Path(__file__).resolve().parent
CP, CP_SYNC, TAR_WRITER = "cp, then sha256sum", "cp, sync, then sha256sum", "webdataset.TarWriter"
WRITE, WRITE_FRESH = "write_shards", "write_shards, starting its workers"
WRITE_BOUND = 0.7
_CHECKED = 100  # pictures

Member = tuple[str, int, int, int, int]  # key, offset and bytes of the JPEG, offset and bytes of the json


def planned_parts(build: Path) -> list[ShardPart]:
    """The plan of the finished `build`, as `shards.plan` gave it."""
    folder = build / "work" / "plan"
    names = [path.name.removesuffix(".images.parquet") for path in folder.glob("*.images.parquet")]
    parts = [_planned(name, str(folder)) for name in names]
    return sorted(parts, key=lambda part: (SPLITS.index(part.split), part.number))


def _planned(name: str, folder: str) -> ShardPart:
    split, number, _ = name.split("-")
    weight = pq.read_metadata(f"{folder}/{name}.images.parquet").num_rows
    return ShardPart(name=name, weight=weight, split=split, number=int(number), folder=folder)


def members(shard: Path) -> list[Member]:
    """Where a shard's samples lie."""
    with tarfile.open(shard) as tar:
        infos = tar.getmembers()
    return [
        (jpeg.name.removesuffix(".jpg"), jpeg.offset_data, jpeg.size, sample.offset_data, sample.size)
        for jpeg, sample in zip(infos[::2], infos[1::2], strict=True)
    ]


def write_with_webdataset(source: str, found: Sequence[Member], out: str) -> None:
    """One shard of the samples that lie in `source`, by TarWriter."""
    from webdataset import TarWriter  # imports torch, which the workers of `write_shards` do without

    with TarWriter(out) as writer:
        for key, jpeg, jpeg_bytes, sample, sample_bytes in found:
            writer.write(
                {
                    "__key__": key,
                    "jpg": files.read_range(source, jpeg, jpeg_bytes),
                    "json": files.read_range(source, sample, sample_bytes),
                }
            )


class Rivals:
    """The ways that are timed, over one finished build."""

    def __init__(self, recipe: Path, build: Path, copies: Path, num_workers: int, executor: Executor) -> None:
        self._build, self._copies, self._num_workers, self._executor = build, copies, num_workers, executor
        self._parts = planned_parts(build)
        self._roots = {source.name: source.root for source in open_sources(load_recipe(str(recipe)))}
        self._shards = sorted((build / "shards").glob("*.tar"))
        self._members = [members(shard) for shard in self._shards]
        self._digests = self._sha256()
        self.num_bytes = sum(shard.stat().st_size for shard in self._shards)
        self.num_samples = sum(map(len, self._members))

    def ways(self) -> list[Way]:
        """All of them; before our own, what was written is taken away, and put back by writing it again."""
        return [
            Way(WRITE, lambda: self._write(self._executor), self._forget),
            Way(CP, self._copy, self._clear),
            Way(TAR_WRITER, lambda: self._tar_write(None), self._clear),
            Way(f"{TAR_WRITER}, {self._num_workers} processes", lambda: self._tar_write(self._executor), self._clear),
            Way(CP_SYNC, lambda: self._copy(sync=True), self._clear),
            Way(WRITE_FRESH, self._write_fresh, self._forget),
        ]

    def require_same(self) -> None:
        """Stop unless the shards that were written last are those of the build."""
        if self._sha256() != self._digests:
            raise SystemExit("the shards differ from those of the first build; expected the same bytes")

    def _sha256(self) -> list[str]:
        return [files.sha256_file(str(shard)) for shard in self._shards]

    def _forget(self) -> None:
        self._clear()
        shutil.rmtree(self._build / "shards")
        shutil.rmtree(self._build / "work" / "shards")

    def _clear(self) -> None:
        shutil.rmtree(self._copies, ignore_errors=True)
        self._copies.mkdir()

    def _write(self, executor: Executor) -> None:
        with progress_bar(quiet=True) as progress:
            write_shards(self._parts, self._roots, out=str(self._build), executor=executor, progress=progress)

    def _write_fresh(self) -> None:
        with local_executor(self._num_workers) as executor:
            self._write(executor)

    def _copy(self, *, sync: bool = False) -> None:
        subprocess.run(["cp", *self._shards, self._copies], check=True)
        copied = sorted(self._copies.iterdir())
        if sync:
            subprocess.run(["sync", *copied], check=True)
        subprocess.run(["sha256sum", *copied], check=True, stdout=subprocess.DEVNULL)

    def _tar_write(self, executor: Executor | None) -> None:
        tasks = [
            (str(shard), found, str(self._copies / shard.name))
            for shard, found in zip(self._shards, self._members, strict=True)
        ]
        if executor is None:
            for task in tasks:
                write_with_webdataset(*task)
        else:
            for future in [executor.submit(write_with_webdataset, *task) for task in tasks]:
                future.result()


def milliseconds(function: Callable[[bytes], object], pictures: Sequence[bytes]) -> float:
    """Median time that `function` takes for a picture."""
    times = []
    for picture in pictures:
        start = time.perf_counter()
        function(picture)
        times.append(time.perf_counter() - start)
    return 1000 * median(times)


def check_rows() -> list[dict[str, Value]]:
    """What each check of a picture costs in the scan."""
    world = World(seed=1)
    pictures = [world.jpeg(number) for number in range(_CHECKED)]
    checks: dict[str, Callable[[bytes], object]] = {
        'structure of the JPEG (verify = "structure")': inspect_image,
        'all pixels decoded (verify = "decode")': verify_decodes,
        "near-duplicate hash": perceptual_hash,
        "sha256": lambda data: hashlib.sha256(data).digest(),
    }
    return [{"step": name, "ms per picture": milliseconds(check, pictures)} for name, check in checks.items()]


def measure(gigabytes: float, rounds: int, num_workers: int) -> Figures:
    """The figures of one run."""
    conditions = machine("webdataset")
    with tempfile.TemporaryDirectory() as folder, local_executor(num_workers) as executor:
        world, build, copies = (Path(folder) / name for name in ("world", "build", "copies"))
        num_pictures = write_world(world, round(gigabytes * 1e9))
        options = [str(world / RECIPE), "--out", str(build), "--workers", str(num_workers)]
        command = [sys.executable, "-m", "flows.build_shards", *options]
        subprocess.run(command, check=True, cwd=HERE.parent, capture_output=True)
        rivals = Rivals(world / RECIPE, build, copies, num_workers, executor)
        alternate(rivals.ways()[:4], 1)  # once unmeasured: workers import, caches fill
        times = alternate(rivals.ways(), rounds, settle=True)
        rivals.require_same()
    megabytes = rivals.num_bytes / 1e6
    rows: list[dict[str, Value]] = [
        {"way": name, "s": median(found), "MB/s": megabytes / median(found)} for name, found in times.items()
    ]
    return Figures(
        benchmark="write",
        title="Write: plan to shards",
        command=f"python benchmarks/write.py --gigabytes {gigabytes:g} --rounds {rounds} --workers {num_workers}",
        conditions={
            **conditions,
            "pictures": f"{num_pictures} of {WIDTH} x {HEIGHT}, {gigabytes:g} GB of tars",
            "samples": rivals.num_samples,
            "shards": f"{megabytes:.0f} MB",
            "workers": num_workers,
            "rounds": rounds,
        },
        rows=[*rows, *check_rows()],
        claims=[
            Claim(
                name=f"throughput beside {CP}",
                value=median_ratio(times, CP, WRITE),
                bound=WRITE_BOUND,
                at_least=True,
            ),
            Claim(
                name=f"throughput beside {TAR_WRITER}",
                value=median_ratio(times, TAR_WRITER, WRITE),
                bound=1.0,
                at_least=True,
            ),
        ],
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    add_options(parser)
    parser.add_argument("--gigabytes", type=float, default=2.0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args()
    report(measure(options.gigabytes, options.rounds, options.workers), options.json)


if __name__ == "__main__":
    main()
