"""``python -m bench.execution.slurm_task FOLDER``: one task of an array job, which works on its order.

Slurm sends SIGUSR1 before the time is over: what runs is saved, and the task goes back into the queue.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from bench.execution.slurm_queue import requeue
from bench.execution.work_order import SAVED, work_on
from bench.utils.stopping import Stopped


def main() -> None:
    """Start as a task of Slurm's, which says in the environment which one it is."""
    folder, number, job = Path(sys.argv[1]), os.environ["SLURM_ARRAY_TASK_ID"], os.environ["SLURM_JOB_ID"]
    mine = folder / "tasks" / f"{number}-{job}-{os.environ.get('SLURM_RESTART_COUNT', '0')}"
    earlier = [each for each in sorted(folder.glob(f"tasks/{number}-*")) if each != mine]
    try:
        code = work_on(folder / "orders" / f"{number}.tar", mine, earlier, int(os.environ.get("DFKD_WORKERS", "1")))
    except Stopped as stop:
        print(f"stopped ({stop.reason}), and saved", flush=True)
        if stop.reason == "SIGUSR1" and not (folder / "stop").exists():  # SIGTERM: somebody wants it to end
            requeue(f"{os.environ['SLURM_ARRAY_JOB_ID']}_{number}")
        code = SAVED
    sys.exit(code)


if __name__ == "__main__":
    main()
