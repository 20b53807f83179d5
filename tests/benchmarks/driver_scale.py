"""What a study's size costs its driver: ``python tests/benchmarks/driver_scale.py [TRIALS ...]``.

Studies of one method and many seeds are planned, run by an executor that does nothing but write a record of each trial,
and opened again. Printed are the driver's processor time and memory by trial, and the exponent of their growth: 1 is
linear, so that a trial costs the same in a study of any size.
"""

from __future__ import annotations

import json
import math
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

SIZES = (500, 1000, 2000)
STUDY = """
name: large
tasks: [digits/lenet5-half]
methods: [noise]
seeds: {seeds}
budget: {{steps: 1}}
points: 1
selection: [last]
isolation: none
"""


def measure(trials: int, folder: Path) -> dict[str, float]:
    """Seconds of processor time of each part, and MiB at the peak, in this process."""
    import resource

    from bench.execution import run_study as campaign
    from bench.execution.base_record import record_failure
    from bench.execution.executors import Executor, Watcher, Work
    from bench.execution.overview import overview
    from bench.execution.plan import plan_study
    from bench.spec.trial import Trial

    class WriteOnly(Executor):
        def __call__(self, trials: Sequence[Trial], work: Work, watcher: Watcher) -> None:
            for trial in trials:
                watcher.ended(trial, record_failure(trial, "unsupported", "not run", work.results, Path("no log")))

    file, results = folder / "large.yaml", folder / "results"
    file.write_text(STUDY.format(seeds=list(range(trials))), encoding="utf-8")
    campaign.get_executor = lambda name: WriteOnly()  # type: ignore[assignment]
    campaign._train_teachers = lambda *_: None  # type: ignore[assignment]
    (folder / "small.yaml").write_text(STUDY.format(seeds=[0, 1]), encoding="utf-8")
    campaign.run_study(folder / "small.yaml", results=folder / "small", executor="inline")  # imports and caches
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    found: dict[str, float] = {}

    def timed(name: str, call: Callable[[], object]) -> None:
        began = time.process_time()
        call()
        found[name] = time.process_time() - began

    timed("plan", lambda: plan_study(file, results=results))
    timed("run", lambda: campaign.run_study(file, results=results, executor="inline"))
    timed("open again", lambda: campaign.run_study(file, results=results, executor="inline"))
    timed("status", lambda: overview(results))
    found["MiB"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024 - memory
    return found


def main() -> None:
    if sys.argv[1:2] == ["--one"]:
        with tempfile.TemporaryDirectory() as folder:
            print(json.dumps(measure(int(sys.argv[2]), Path(folder))))
        return
    sizes = [int(word) for word in sys.argv[1:]] or list(SIZES)
    found = []
    for size in sizes:
        command = [sys.executable, __file__, "--one", str(size)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        found.append(json.loads(done.stdout.splitlines()[-1]))
        each = ", ".join(f"{name} {1000 * value / size:.3f}" for name, value in found[-1].items())
        print(f"{size:,} trials, a thousandth of a second (MiB: a KiB) each: {each}", flush=True)
    for name in found[0]:
        if found[0][name] > 0:
            slope = math.log(found[-1][name] / found[0][name]) / math.log(sizes[-1] / sizes[0])
            print(f"exponent of {name}: {slope:.2f}")


if __name__ == "__main__":
    main()
