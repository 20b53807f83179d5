"""``dfkd teacher``: train, import and look at teachers."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated, Any

import typer

from bench.cli import complete, out
from bench.cli.plain import PLAIN, VerbGroup
from bench.cli.run import stopped
from bench.cli.settings import AllowAltered, DataFolder, Json, TaskFiles, know
from bench.cli.watch import TeacherLines
from bench.errors import UserError, nearest
from bench.harness.teachers.passport import find_passport, passports, weights_state
from bench.records.comparable import AGREEMENTS
from bench.spec.task import TeacherSpec, get_recipe, get_task
from bench.spec.teacher_key import known_teachers, quick_teachers
from bench.utils.hardware import choose_device
from bench.utils.paths import teacher_folder
from bench.utils.stopping import listening

NO_LABELS = "none: the test images have no labels"
app = typer.Typer(help="Train, import and inspect teachers.", no_args_is_help=True, cls=VerbGroup, **PLAIN)


@app.command()
def train(
    task: Annotated[str, typer.Argument(autocompletion=complete.task_names, help="See `dfkd list tasks`.")],
    recipe: Annotated[str | None, typer.Option(metavar="NAME", help="A recipe other than the task's own.")] = None,
    quick: Annotated[bool, typer.Option("--quick", help="The task's recipe for small machines.")] = False,
    seed: Annotated[int | None, typer.Option(min=0, metavar="N", help="A seed other than the task's own.")] = None,
    backbone: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Start a segmentation teacher from this ImageNet ResNet-50's weights."),
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
    data: DataFolder = None,
    allow_altered: AllowAltered = False,
    tasks: TaskFiles = None,
) -> None:
    """Train a task's teacher, or all of its teachers, and cache them; `dfkd run` does so automatically.

    The same command resumes an interrupted training from its last checkpoint. Ctrl-C, SIGTERM and SIGUSR1 save the
    training and stop (exit code 75).
    """
    know(tasks)
    spec = get_task(task)
    if quick and recipe:
        raise UserError("--quick already selects a recipe; leave out --recipe")
    if spec.teachers and (recipe or seed is not None or backbone):
        raise UserError(
            f"task {spec.name!r} has several teachers: --recipe, --seed and --backbone change one; write a task with "
            "other `teachers`"
        )
    bases = quick_teachers(spec) if quick else spec.all_teachers
    wanted = [
        TeacherSpec(network=base.network, recipe=recipe or base.recipe, seed=base.seed if seed is None else seed)
        for base in bases
    ]
    if any(not each.recipe for each in wanted):
        raise UserError(
            f"task {spec.name!r} names no recipe for its teacher: import it (`dfkd teacher import FILE --task "
            f"{shlex.quote(spec.name)}`), or choose a recipe with --recipe"
        )
    epochs = [get_recipe(each.recipe).epochs for each in wanted]
    kind, number = choose_device(device)

    import torch

    from bench.data import load_source
    from bench.harness.teachers.cache import train_teacher

    dataset = load_source(spec.source, size=spec.stored_size, folder=data, allow_altered=allow_altered)
    for each, count in zip(wanted, epochs, strict=True):
        tell = TeacherLines()
        out.say(f"{each.network} on {spec.data}, recipe {each.recipe}, seed {each.seed}, {out.count(count, 'epoch')}")
        try:
            with listening():
                folder = train_teacher(
                    spec,
                    each,
                    dataset,
                    lambda progress, tell=tell: tell(spec.name, progress),  # type: ignore[misc]
                    altered_data=allow_altered,
                    device=torch.device("cpu" if kind == "cpu" else f"cuda:{number or 0}"),
                    backbone=backbone,
                )
        except KeyboardInterrupt as stop:
            raise typer.Exit(stopped(stop)) from None
        _print(find_passport(folder.name))
    if quick and folder.name in known_teachers(spec):
        out.say("to use it, add to a study: teacher: quick")
    elif folder.name not in known_teachers(spec):
        out.say(f"to use it, add to a study: teachers: {{{spec.name}: {folder.name}}}")


@app.command(name="import")
def import_(
    file: Annotated[Path, typer.Argument(help="safetensors, or a torch file with a state_dict.")],
    task: Annotated[
        str,
        typer.Option(autocompletion=complete.task_names, help="The task whose teacher network the weights belong to."),
    ],
    network: Annotated[
        str | None, typer.Option(metavar="NAME", help="Which network, where the task has teachers of several.")
    ] = None,
    data: DataFolder = None,
    allow_altered: AllowAltered = False,
    tasks: TaskFiles = None,
) -> None:
    """Import your own checkpoint as a teacher: it is validated, scored on the test images and cached."""
    know(tasks)
    spec = get_task(task)
    networks = list(dict.fromkeys(each.network for each in spec.all_teachers))
    if network is None and len(networks) > 1:
        raise UserError(f"the teachers of {task!r} are several networks; say which: --network {' or '.join(networks)}")
    if network is not None and network not in networks:
        raise UserError(f"no teacher of {task!r} is a {network!r}{nearest(network, networks)}")

    from bench.data import load_source
    from bench.harness.teachers.cache import import_teacher

    dataset = load_source(spec.source, size=spec.stored_size, folder=data, allow_altered=allow_altered)
    folder = import_teacher(spec, file, dataset, network or networks[0])
    _print(find_passport(folder.name))
    if spec.teachers:
        return out.say(
            f"to use it, put it in its place among the keys of all teachers in a study: "
            f"teachers: {{{spec.name}: [{folder.name}, ...]}}"
        )
    return out.say(f"to use it, add to a study: teachers: {{{spec.name}: {folder.name}}}")


@app.command(name="list")
def list_(as_json: Json = False) -> None:
    """List the teachers in the cache."""
    found = passports()
    if as_json:
        return out.print_json(found)
    if not found:
        return out.say(f"no teachers in {teacher_folder()} yet; `dfkd run` and `dfkd teacher train TASK` train them")
    table = out.table("key", "data", "recipe", "seed", "test score", right=["seed", "test score"])
    for passport in found:
        numbers = (str(passport["seed"]), out.percent(_score(passport)))
        table.add_row(passport["key"], passport["data"], passport["recipe"], *numbers)
    return out.show(table)


@app.command()
def show(
    key: Annotated[str, typer.Argument(help="A teacher's key or its beginning.")],
    as_json: Json = False,
) -> None:
    """Show a teacher's passport, and whether its weights still match it."""
    passport = find_passport(key)
    if as_json:
        return out.print_json([{**passport, "weights": weights_state(passport)}])
    return _print(passport)


def _score(passport: dict[str, Any]) -> float | None:
    """The test score; None where no test image has a label, and it would be agreement with itself."""
    return None if passport.get("metric") in AGREEMENTS else passport["score"]


def _print(passport: dict[str, Any]) -> None:
    image, made = passport["image"], passport.get("provenance", {})
    recipe = ", ".join(f"{name} {value}" for name, value in passport.get("recipe_content", {}).items() if value)
    origin = (
        f"{passport['imported_from']} (sha256 {passport['imported_sha256'][:12]})"
        if "imported_from" in passport
        else ""
    )
    rows = [
        ("network", passport["network"]),
        ("data", f"{passport['data']}, images {image['channels']}x{image['size']}x{image['size']}"),
        ("recipe", f"{passport['recipe']}{f': {recipe}' if recipe else ''}"),
        ("imported from", origin),
        ("changed for it", "; ".join(passport.get("imported_changes", []))),
        ("seed", "" if origin else str(passport["seed"])),
        ("test score", NO_LABELS if _score(passport) is None else out.percent(_score(passport))),
        ("weights", f"{weights_state(passport)}, sha256 {passport['sha256']}"),
        ("made", ", ".join(str(made[name]) for name in ("finished", "device", "python") if made.get(name))),
        ("folder", str(teacher_folder() / passport["key"])),
    ]
    out.say(passport["key"])
    out.pairs((name, value) for name, value in rows if value)
