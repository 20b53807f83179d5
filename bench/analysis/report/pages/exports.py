"""The leaderboard for programs (JSON) and for papers (LaTeX with booktabs)."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from bench.analysis.report.sections import leaderboard
from bench.analysis.report.sections.anytime import Anytime, AnytimeOf
from bench.analysis.report.sections.groups import Group, Row, Table, tables_of
from bench.analysis.report.sections.spread import spread_note
from bench.utils.text import shown

TEX = {
    **{
        "\\": r"\textbackslash{}",
        "~": r"\textasciitilde{}",
        "^": r"\textasciicircum{}",
        "±": r"$\pm$",
        "…": r"\dots{}",
    },
    **{sign: f"\\{sign}" for sign in "&%$#_{}"},
    **{"<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}", "—": "---"},
}


def as_json(groups: Sequence[Group], measured: Mapping[str, AnytimeOf] | None = None) -> str:
    """Every group with what its rows share, its rankings and what failed; scores and agreement are shares.

    ``measured``: what the curves say of each row, by the group's name.
    """
    found = measured or {}
    return (
        json.dumps(
            [_group(group, found.get(group.name, {})) for group in groups],
            indent=1,
            ensure_ascii=False,
            allow_nan=False,
        )
        + "\n"
    )


def as_tex(groups: Sequence[Group]) -> str:
    """One ``table`` a ranking; needs ``\\usepackage{booktabs}``.

    >>> as_tex([])
    '% Needs \\\\usepackage{booktabs}.\\n'
    """
    return "\n".join(["% Needs \\usepackage{booktabs}.", *(_tex(g, t) for g in groups for t in tables_of(g)), ""])


def tex(text: str) -> str:
    r"""Text that LaTeX prints as it is.

    >>> tex("kd_related 95 %")
    'kd\\_related 95 \\%'
    >>> tex("[2cm] \\input{x}")
    '{}[2cm] \\textbackslash{}input\\{x\\}'
    """
    plain = "".join(TEX.get(sign, sign) for sign in shown(" ".join(text.split())))
    return f"{{}}{plain}" if plain.startswith(("[", "*")) else plain  # after a line's end these would be its arguments


def _group(group: Group, measured: AnytimeOf) -> dict[str, Any]:
    return {
        "name": group.name,
        **group.key._asdict(),
        "teacher_score": group.teacher.score if group.teacher else None,
        **({"ensemble_score": group.ensemble.score} if group.ensemble else {}),
        "noise": group.floor,
        "kd": group.ceiling,
        "rankings": [
            {"need": table.need, "rows": [{"rank": rank, **_row(group, row, measured)} for rank, row in table.ranked]}
            for table in tables_of(group)
        ],
        "rows": [_row(group, row, measured) for row in group.rows],
        "failures": [
            {"id": r.id, "label": row.label, "seed": r.trial.seed, "status": r.status, "reason": r.reason}
            for row in (*group.rows, *group.left_out)
            for r in row.records
            if r.status != "ok"
        ],
    }


def _row(group: Group, row: Row, measured: AnytimeOf) -> dict[str, Any]:
    return {
        "method": row.method,
        "label": row.label,
        "data": row.data,
        "access": row.records[0].method.access,
        "options": row.records[0].trial.options,
        **leaderboard.numbers_of(group, row),
        "anytime": _anytime(measured.get(row.records[0].id)),
        "seeds_ok": len(row.ok),
        "seeds": len(row.records),
        **dict(zip(("verified", "not_the_same"), leaderboard.verified_of(row), strict=True)),
        "trials": [record.id for record in row.records],
    }


def _anytime(of_row: Anytime | None) -> dict[str, Any] | None:
    if of_row is None:
        return None
    return {
        "area": {unit: {"mean": mean, "low": low, "high": high} for unit, (mean, low, high, _) in of_row.areas.items()},
        "percent_of_kd": {
            str(share): {"seeds": near["seconds"].reached, **{spent: reach.median for spent, reach in near.items()}}
            for share, near in of_row.reached.items()
        },
    }


def _tex(group: Group, table: Table) -> str:
    heads = leaderboard.columns(group.key.metric)
    chosen = ["method", "data", "score", "oracle", "normalised", "agreement", "seconds", "seeds"]
    names = [name for name in chosen if name in heads]
    head = " & ".join(tex(heads[name]) for name in names)
    ranked = [_tex_line(leaderboard.cells(group, rank, row, reference=False), names) for rank, row in table.ranked]
    rest = [_tex_line(leaderboard.cells(group, None, row, reference=True), names) for row in table.reference]
    said = spread_note(len(row.ok) for row in group.rows)
    caption = f"{group.key.task}, {leaderboard.budget_words(group)}: {leaderboard.title_of(table)}."
    return "\n".join(
        [
            r"\begin{table}",
            r"\centering",
            rf"\caption{{{tex(caption)}}}",
            rf"\begin{{tabular}}{{ll{'r' * (len(names) - 2)}}}",
            r"\toprule",
            rf"{head} \\",
            r"\midrule",
            *ranked,
            *([r"\midrule", *rest] if rest else []),
            r"\bottomrule",
            r"\end{tabular}",
            *([rf"\par\footnotesize {tex(said)}"] if said else []),
            r"\end{table}",
        ]
    )


def _tex_line(cells: dict[str, str], names: Sequence[str]) -> str:
    return " & ".join(tex(cells[name]) for name in names) + r" \\"
