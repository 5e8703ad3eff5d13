"""The texts of a report: what was found in one sentence, ``report.md`` and ``champion.json``."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from evolve.engine import FINALISTS
from evolve.errors import PluginError
from evolve.objectives import LOSS_FLOOR
from evolve.reports.champion import standalone_source
from evolve.reports.contents import Champion, Contents
from evolve.reports.front import front_json, front_texts
from evolve.reports.generations import GENERATIONS, LONG_SEARCH, folded, generations_csv
from evolve.reports.lineage import render_lineage
from evolve.reports.markdown import code, counted, joined, number, percent, render
from evolve.reports.networks import PAGE, networks_json, networks_texts
from evolve.reports.operators import operators_json
from evolve.reports.readable import shown_rule, values_above
from evolve.reports.tables import SplitTable
from evolve.reports.words import in_words
from evolve.scoring import THRESHOLD
from evolve.store import to_json_text

#: The pictures of a report, in its folder.
MAP_FIGURE = "figures/precision_map.svg"
FITNESS_FIGURE = "figures/fitness.svg"
COMPRESSION_FIGURE = "figures/compression.svg"


def report_texts(contents: Contents, figures: bool) -> dict[str, str]:
    """Return the text files of a report by name.

    Args:
        contents: What the report shows.
        figures: Whether the report has pictures.
    """
    alone, problem = _standalone(contents)
    texts = {
        "report.md": render_report(contents, figures, problem),
        "lineage.md": render_lineage(contents.lineage),
        "champion.json": to_json_text(champion_record(contents)),
        "report.json": to_json_text(report_json(contents)),
        GENERATIONS: generations_csv(contents.generations, contents.search_splits),
        **front_texts(contents.front),
        **networks_texts(contents.networks, figures),
    }
    return texts | ({"champion.py": alone} if alone else {})


def report_json(contents: Contents) -> dict[str, Any]:
    """Return what ``report.json`` holds: what was found, the front, and what each operator earned."""
    return {
        "found": found(contents),
        "front": front_json(contents.front),
        "operators": operators_json(contents.operators),
        **networks_json(contents.networks),
    }


def _standalone(contents: Contents) -> tuple[str, str]:
    """Return the champion as a file of its own, or why a plugin's rule cannot be one."""
    champion = contents.champion
    if champion is None:
        return "", ""
    title = f"Allocates a number format to each layer of a network: candidate {champion.candidate.id}."
    try:
        facts = _facts(contents)
        text = standalone_source(
            champion.candidate, champion.template, title=title, facts=facts, tied=contents.tied
        )
        return text, ""
    except PluginError as error:
        # Without the plugin's file, which is a path of this machine.
        return "", ": ".join(part for part in (error.field, error.problem) if part)


def found(contents: Contents) -> str:
    """Return one sentence: what the search found."""
    effort = f"{_generations(contents)} and {counted(contents.evaluations, 'evaluation')}"
    start = f"starting from {counted(len(contents.seeds), 'seed heuristic')}"
    if contents.champion is None:
        return f"In {effort}, {start}, no candidate worked, so there is no rule; the reasons are below."
    seed = contents.champion.seed
    what = f"nothing better than the seed heuristic {code(seed)}, which" if seed else "a rule that"
    shares = joined([_share(table, contents, place == 0) for place, table in enumerate(contents.tables)])
    return f"In {effort}, {start}, the search found {what} {shares}{_comparison(contents)}."


def _generations(contents: Contents) -> str:
    made = len(contents.generations)
    if made == contents.planned:
        return counted(made, "generation")
    why = "stopped at a plateau" if contents.finished else "stopped before its end"
    return f"{made} of {counted(contents.planned, 'generation')} ({why})"


def _share(table: SplitTable, contents: Contents, first: bool) -> str:
    row = table.champion
    assert row is not None
    if row.failure:
        return f"fails on {table.split}"
    where = f"on {table.split}"
    if contents.single_file:
        where = "on the one model it was searched on"
    elif len(table.models) > 1:
        where += f" (mean of {len(table.models)} models)"
    reaches = "reaches " if first else ""
    optimum = " of the proven optimum" if first else ""
    unseen = ", which selected nothing" if table.split == "test" else ""
    return f"{reaches}{percent(row.optimum_ratio)}{optimum} {where}{unseen}"


def _comparison(contents: Contents) -> str:
    """Compare with the best published rule, where nothing was selected if there is such a split."""
    table = contents.tables[-1]
    published = table.best_published
    if published is None:
        return ""
    where = "there" if len(contents.tables) == 1 else f"on {table.split}"
    share = percent(published.optimum_ratio)
    return f"; the best published rule {where}, {code(published.name)}, reaches {share}"


def champion_record(contents: Contents) -> dict[str, Any]:
    """Return what ``champion.json`` holds; everything but the sentence is missing without a champion."""
    record: dict[str, Any] = {"found": found(contents), "dataset": contents.dataset}
    champion = contents.champion
    if champion is None:
        return {**record, "id": None}
    return {
        "id": champion.candidate.id,
        **record,
        **champion.candidate.to_json(),
        "complexity": champion.scored.evaluation.complexity,
        "signals": contents.signals,
        "source": champion.source,
        "lineage": [
            {
                "id": step.id,
                "operator": step.operator,
                "generation": step.generation,
                "parents": [parent.id for parent in step.parents],
            }
            for step in contents.lineage
        ],
        "scores": {table.split: _scores(table) for table in contents.tables},
    }


def _scores(table: SplitTable) -> dict[str, Any]:
    assert table.champion is not None
    scores = asdict(table.champion)
    return {
        "models": len(table.models),
        **{key: scores[key] for key in scores if key not in ("name", "role")},
    }


def _facts(contents: Contents) -> dict[str, str]:
    """Return what the standalone champion says of itself: what it is, how good, and on what."""
    facts = {"found": found(contents)}
    for table in contents.tables:
        row = table.champion
        assert row is not None
        measured = (
            f"fitness {number(row.fitness)} (optimum {number(row.optimum)})",
            f"compression {number(row.compression_ratio)}",
            f"retention {number(row.accuracy_retention)}",
        )
        facts[table.split] = "it fails" if row.failure else ", ".join(measured)
    return facts


def render_report(contents: Contents, figures: bool, problem: str = "") -> str:
    """Render ``report.md``.

    Args:
        contents: What the report shows.
        figures: Whether it links pictures.
        problem: Why there is no ``champion.py``; empty if there is one.
    """
    champion = contents.champion
    several = any(len(table.models) > 1 for table in contents.tables)
    return render(
        "report.md.j2",
        {
            "contents": contents,
            "found": found(contents),
            "champion": champion,
            "problem": problem,
            **_rule(champion),
            **_generations_table(contents),
            "several": several,
            "threshold": THRESHOLD,
            "loss_floor": LOSS_FLOOR,
            "finalists": FINALISTS,
            "networks_page": PAGE if contents.networks else "",
            "figures": {"map": MAP_FIGURE, "fitness": FITNESS_FIGURE, "compression": COMPRESSION_FIGURE}
            if figures
            else {},
        },
    )


def _generations_table(contents: Contents) -> dict[str, Any]:
    rows, apart = folded(contents.generations)
    long = len(contents.generations) > LONG_SEARCH
    return {"generations": rows, "apart": apart, "generations_file": GENERATIONS, "long": long}


def _rule(champion: Champion | None) -> dict[str, Any]:
    """Return the rule as the report shows it, in words too, and whether its code was made more readable."""
    if champion is None:
        return {"rule": "", "words": "", "rewritten": False}
    shown = shown_rule(champion.candidate, champion.template)
    return {
        "rule": values_above(shown.parameters) + shown.source,
        "words": in_words(shown.source, dict(shown.parameters)),
        "rewritten": shown.source != champion.source,
    }
