"""The same steps of methods by several checkouts and settings, in turn, in processor time of one thread.

    python tests/benchmarks/steps_in_turn.py --variant old=../base --variant new=.,memory_format=channels_last \
        --task mnist/lenet5-half --method dafl --method cmi

Each variant is a process of its own with that checkout's code, and does a round of steps when it is its turn, so that
other work on the machine falls on all of them. A variant is ``name=FOLDER``, with a trial's ``memory_format`` and
``precision`` behind it. Options are those of ``settings: small``. The table says the medians over the rounds and of the
rounds' ratios to the first variant.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import subprocess
import sys
import time
from pathlib import Path
from statistics import median
from typing import Any

HERE = Path(__file__).resolve()
BATCH_NORM = {"mnist/lenet5-half": "mnist/lenet5bn-half"}
# what is measured: how many steps are one round, and options by which a round is short, or has all kinds of steps
ROUNDS: dict[str, tuple[int, dict[str, Any]]] = {
    "dafl": (1, {}),
    "dfad": (1, {"student_steps": 2}),
    "zskt": (1, {"student_steps": 5}),
    "dfq": (2, {"student_steps": 1}),
    "cmi": (1, {}),
    "fast_dfkd": (3, {"iterations": 2, "warm_up": 0, "student_steps": 1}),
    "deepinversion": (1, {}),
    "adi": (1, {"share": 0.9}),
    "kd": (1, {}),
    "noise": (1, {}),
}
WARM = 4  # rounds before the first that counts


def serve(task: str, name: str, settings: dict[str, str], largest: int) -> None:
    """Do a round of steps for each line that comes, and say what it took."""
    sys.path[:0] = [str(HERE.parent), str(HERE.parents[1] / "support")]
    import torch
    from stepping import Stepping, real_images

    from bench.harness.session import session_for
    from bench.harness.trial_context import TrialContext
    from bench.models import build
    from bench.spec.budget import Budget
    from bench.spec.expand import preset
    from bench.spec.method import Data
    from bench.spec.method_loader import load_method
    from bench.spec.method_registry import find_methods
    from bench.spec.requirements import why_unsupported
    from bench.spec.task import get_task

    with contextlib.suppress(ImportError):  # an older checkout gives memory back
        from bench.utils.memory import keep_freed_memory

        keep_freed_memory()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    card, spec = find_methods()[name], get_task(task)
    if why_unsupported(card, spec, card.defaults()):
        spec = get_task(BATCH_NORM[task])
    steps, short = ROUNDS[name]
    options = {**card.defaults(), **preset(card, spec, "small"), **short}
    if largest:
        options |= {key: min(options[key], largest) for key in options if key.startswith("batch") and options[key]}
    method = load_method(card)
    made = method.make_options({key: value for key, value in options.items() if key in card.defaults()})
    teacher, student = (build(each, spec.image, 10) for each in (spec.teacher.network, spec.student))
    more: dict[str, Any] = {"precision": settings.get("precision", "float32")}
    if settings.get("memory_format", "contiguous") != "contiguous":
        from bench.utils.memory_format import lay_out

        more["memory_format"] = settings["memory_format"]
        lay_out(teacher, settings["memory_format"])
    context = TrialContext(
        image=spec.image, teacher=teacher.eval(), student=student, budget=Budget(steps=1_000_000), access=card.access,
        data=card.data, device=torch.device("cpu"), seed=0, augment=spec.augment,
        real=None if card.data is Data.NONE else real_images(spec.image.shape), **more,
    )  # fmt: skip
    cast = contextlib.nullcontext()
    if more["precision"] != "float32":
        from bench.harness.precision import computing

        cast = computing(more["precision"], torch.device("cpu"))

    def run() -> None:
        with context, cast:
            context.clock.start()
            method.run(session_for(spec.image, 10, spec.metric == "miou"), made)

    with Stepping(context, run, teacher) as trial:
        trial.advance(WARM * steps)
        print("ready", flush=True)
        for _ in sys.stdin:
            before = time.process_time()
            trial.advance(steps)
            print(time.process_time() - before, flush=True)


def measure(task: str, name: str, variants: dict[str, tuple[Path, dict[str, str]]], rounds: int, largest: int) -> str:
    workers = {}
    for label, (folder, settings) in variants.items():
        words = [f"{key}={value}" for key, value in settings.items()]
        command = [sys.executable, str(HERE), "--serve", task, name, str(largest), *words]
        environment = {**os.environ, "PYTHONPATH": str(folder), "OMP_NUM_THREADS": "1"}
        pipe = subprocess.PIPE
        workers[label] = subprocess.Popen(
            command, cwd=folder, env=environment, stdin=pipe, stdout=pipe, text=True, bufsize=1
        )
    times: dict[str, list[float]] = {label: [] for label in workers}
    for worker in workers.values():
        assert worker.stdout is not None
        if worker.stdout.readline().strip() != "ready":
            raise SystemExit(f"{name} on {task} does not run")
    for number in range(rounds):
        order = list(workers) if number % 2 == 0 else list(reversed(workers))
        for label in order:
            worker = workers[label]
            assert worker.stdin is not None
            assert worker.stdout is not None
            worker.stdin.write("\n")
            times[label].append(float(worker.stdout.readline()))
    for worker in workers.values():
        worker.communicate()
    first = times[next(iter(times))]
    cells = []
    for found in times.values():
        ratio = median(one / other for one, other in zip(found, first, strict=True))
        cells.append(f"{1000 * median(found):,.1f} ({ratio:.2f})")
    return f"| `{name}` | {task} | {' | '.join(cells)} |"


def main() -> None:
    if sys.argv[1:2] == ["--serve"]:
        task, name, largest, *words = sys.argv[2:]
        serve(task, name, dict(word.split("=") for word in words), int(largest))
        return
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--variant", action="append", required=True)
    parser.add_argument("--task", action="append", required=True)
    parser.add_argument("--method", action="append", choices=sorted(ROUNDS))
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--largest", type=int, default=0, help="images in the largest batch; 0: as the settings say")
    given = parser.parse_args()
    variants = {}
    for text in given.variant:
        label, _, rest = text.partition("=")
        folder, *words = rest.split(",")
        variants[label] = (Path(folder).resolve(), dict(word.split("=") for word in words))
    print(f"| method | task | {' | '.join(f'{label}, ms' for label in variants)} |")
    print(f"|---|---|{'--:|' * len(variants)}")
    for task in given.task:
        for name in given.method or ROUNDS:
            print(measure(task, name, variants, given.rounds, given.largest), flush=True)


if __name__ == "__main__":
    main()
