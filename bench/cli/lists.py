"""``dfkd list``: what there is to choose from."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from bench.cli import complete, out
from bench.cli.plain import PLAIN, VerbGroup
from bench.cli.settings import Json, MethodFiles, TaskFiles, know
from bench.spec.budget import in_words
from bench.spec.method_card import MethodCard
from bench.spec.method_registry import find_methods, get_card
from bench.spec.metric_names import ALIASES, FEATURE_EXTRACTORS, METRICS, OPEN_WORDS, PERCEPTUAL, PROTOCOLS
from bench.spec.options import OptionSpec, limits_words, meaning_words, value_words
from bench.spec.study import LoadedStudy, Study, load_study, study_files
from bench.spec.task import TaskSpec
from bench.spec.task import tasks as all_tasks
from bench.utils.text import cut

app = typer.Typer(help="List tasks, methods, metrics and studies.", no_args_is_help=True, cls=VerbGroup, **PLAIN)


@app.command()
def tasks(tasks: TaskFiles = None, as_json: Json = False) -> None:
    """List the tasks: data set, teacher, student, images, and the published score of the teacher."""
    know(tasks)
    rows = [_task(task) for task in all_tasks().values()]
    if as_json:
        return out.print_json(rows)
    table = out.table(
        "task", "teacher", "student", "image", "metric", "published teacher", "recipes", "settings", "pools"
    )
    for row in rows:
        image = "x".join(map(str, row["image"]))
        published = out.percent(row["published_teacher"])
        named = [*(each["recipe"] for each in row["teachers"]), *(each["quick"] for each in row["teachers"])]
        recipes = ", ".join(dict.fromkeys(filter(None, named)))
        table.add_row(
            row["name"],
            ", ".join(each["network"] for each in row["teachers"]),
            row["student"],
            image,
            row["metric"],
            published,
            recipes,
            ", ".join(row["settings"]),
            ", ".join(f"{role}: {pool}" for role, pool in row["pools"].items()),
        )
    out.show(table)
    return out.say(
        "\nThe second recipe, if any, is the quick one, for two CPU cores: `dfkd teacher train TASK --quick`."
    )


@app.command()
def methods(
    name: Annotated[
        str | None,
        typer.Argument(
            autocompletion=complete.methods, help="A method, or a method file: show its paper and all its options."
        ),
    ] = None,
    method: MethodFiles = None,
    as_json: Json = False,
) -> None:
    """List the methods with the real data and teacher access that each needs."""
    chosen = _chosen(name, method or [])
    if as_json:
        return out.print_json([_method(card) for card in chosen])
    if name:
        for number, card in enumerate(chosen):
            if number:
                out.say()
            _print_method(card)
        return None
    table = out.table("method", "real data", "teacher access", "title")
    for card in chosen:
        table.add_row(card.name, _real_data(card), card.access.label, cut(card.title, 40))
    out.show(table)
    return out.say("\n`dfkd list methods NAME` shows a method's paper and options.")


def _chosen(name: str | None, files: list[Path]) -> list[MethodCard]:
    """All methods, the one of a name, or those of a file."""
    if name and name.endswith(".py"):
        file = Path(name).resolve()
        return [card for card in find_methods([*files, file]).values() if card.file == file]
    cards = find_methods(files)
    return [get_card(name, cards)] if name else list(cards.values())


@app.command()
def metrics(as_json: Json = False) -> None:
    """List the metrics with meaning, unit and better direction."""
    rows = [
        {
            "name": metric.name,
            "kind": metric.kind,
            "unit": metric.unit,
            "higher_is_better": metric.higher_is_better,
            "low": metric.low,
            "high": metric.high,
            "needs": metric.needs,
            "doc": metric.doc,
        }
        for metric in METRICS.values()
    ]
    if as_json:
        return out.print_json(rows)
    words = {True: "higher", False: "lower", None: "neither"}
    table = out.table("metric", "of", "unit", "bounds", "better", "meaning")
    for metric in METRICS.values():
        meaning = f"{metric.doc} (needs {metric.needs})" if metric.needs else metric.doc
        better = words[metric.higher_is_better]
        table.add_row(metric.name, metric.kind, metric.unit, _bounds(metric.low, metric.high), better, meaning)
    out.show(table)
    out.say(f"\nEXTRACTOR: {', '.join(FEATURE_EXTRACTORS)}, {OPEN_WORDS}")
    out.say(f"NETWORK: {', '.join(PERCEPTUAL)}")
    out.say(f"aliases: {'; '.join(f'{name} = {whole}' for name, whole in ALIASES.items())}")
    out.say("; ".join(f"{name} = {', '.join(parts)}" for name, parts in PROTOCOLS.items()))
    return out.say("\nA study's `image_metrics` are those of kind image; the others are always measured.")


@app.command()
def studies(
    schema: Annotated[
        bool, typer.Option("--schema", help="Print the JSON schema of a study file, for editors.")
    ] = False,
    as_json: Json = False,
) -> None:
    """List the studies that come with the suite."""
    if schema:
        return print(json.dumps(Study.model_json_schema(), indent=1))
    loaded = {name: (file, load_study(file)) for name, file in study_files().items()}
    if as_json:
        return out.print_json([_study(name, file, study) for name, (file, study) in loaded.items()])
    table = out.table("study", "tasks", "methods", "seeds", "budget", "description")
    for name, (_, found) in loaded.items():
        study = found.study
        chosen = ", ".join(dict.fromkeys(method for method, _ in found.entries))
        budgets = (found.budget(task, method).limits() for task in found.tasks for method, _ in found.entries)
        budget = "; ".join(dict.fromkeys(map(in_words, budgets)))
        table.add_row(name, ", ".join(found.tasks), chosen, str(len(study.seeds)), budget, study.description)
    out.show(table)
    return out.say("\n`dfkd run NAME` runs one; `dfkd run NAME --dry-run` shows its trials.")


def _bounds(low: float | None, high: float | None) -> str:
    if low is None:
        return "any"
    return f"from {low:g}" if high is None else f"{low:g} to {high:.3g}"


def _task(task: TaskSpec) -> dict[str, Any]:
    return {
        "name": task.name,
        "data": task.data,
        "test": task.test or task.data,
        "teacher": task.teacher.network,
        "recipe": task.teacher.recipe,
        "quick": task.teacher.quick,
        "teachers": [teacher.model_dump() for teacher in task.all_teachers],
        "metric": task.metric,
        "published_teacher": task.published.teacher.score if task.published.teacher else None,
        "seed": task.teacher.seed,
        "student": task.student,
        "image": task.image.shape,
        "mean": task.image.mean,
        "std": task.image.std,
        "settings": sorted({"paper", *task.settings}),
        "pools": dict(task.pools),
    }


def _method(card: MethodCard) -> dict[str, Any]:
    return {
        "name": card.name,
        "title": card.title,
        "paper": card.paper,
        "doc": card.doc,
        "data": card.data.value,
        "pool": card.pool,
        "anchors": card.anchors,
        "access": card.access.label,
        "batch_norm": card.batch_norm,
        "layers": card.layers,
        "file": str(card.file),
        "options": [_option(spec) for spec in card.specs],
        "presets": card.presets,
    }


def _option(spec: OptionSpec) -> dict[str, Any]:
    return {
        "name": spec.name,
        "type": spec.type_name,
        "default": spec.default,
        "unit": spec.unit,
        "above": spec.above,
        "low": spec.low,
        "high": spec.high,
        "when": spec.when,
        "doc": spec.doc,
    }


def _real_data(card: MethodCard) -> str:
    return f"{card.data.value}: {card.pool}" if card.pool else card.data.value


def _print_method(card: MethodCard) -> None:
    out.say(f"{card.name}: {card.title}\n")
    about = [("what", card.doc), ("paper", card.paper), ("real data", _real_data(card))]
    out.pairs([*about, ("teacher access", card.access.label), *card.conditions(), ("file", str(card.file))])
    if not card.specs:
        return out.say("\nIt has no options.")
    table = out.table("option", "default", "type", "limits", "unit", "meaning")
    for spec in card.specs:
        table.add_row(
            spec.name, value_words(spec.default), spec.type_name, limits_words(spec), spec.unit, meaning_words(spec)
        )
    out.say()
    out.show(table)
    for data, values in card.presets.items():
        out.say(
            f"\nOn {data}, the paper's: {', '.join(f'{name}={value_words(value)}' for name, value in values.items())}"
        )
    return None


def _study(name: str, file: Path, loaded: LoadedStudy) -> dict[str, Any]:
    plain: dict[str, Any] = loaded.study.model_dump(mode="json")
    del plain["name"]
    return {"name": name, "file": str(file), **plain}
