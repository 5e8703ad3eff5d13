"""From outcomes to what is published: JSON and markdown tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

from evolve.statistics import quartiles
from peer_comparison.each_model import RuleOnModels
from peer_comparison.outcomes import Outcome, Quartiles, corrected_p, quartiles_of_counts
from peer_comparison.same_numbers import OURS

#: Shares that are asked for, of the best that anyone reached and of the optimum.
TARGETS = (0.95, 0.99)

Results = dict[str, Any]


def _by_tool(outcomes: Sequence[Outcome]) -> dict[str, list[Outcome]]:
    found: dict[str, list[Outcome]] = {}
    for each in outcomes:
        found.setdefault(each.tool, []).append(each)
    return found


def _reaching(outcomes: Sequence[Outcome], targets: Sequence[float]) -> Results:
    """Summarise the evaluations that runs took to their targets, one target a run."""
    counts = [each.evaluations_to(target) for each, target in zip(outcomes, targets, strict=True)]
    return {
        "quartiles": [_finite(each) for each in quartiles_of_counts(counts)],
        "reached": sum(each != float("inf") for each in counts),
        "runs": len(counts),
        "each": [_finite(each) for each in counts],
    }


def _finite(value: float) -> float | None:
    return None if value == float("inf") else value


def summarise_numbers(outcomes: Sequence[Outcome], budget: int) -> Results:
    """Return the statistics of the first comparison as JSON."""
    by_tool = _by_tool(outcomes)
    best = max(each.share_at(budget) for each in outcomes)
    checkpoints = sorted({max(1, budget // 10), max(1, 3 * budget // 10), budget})
    targets = {f"{share:.0%} of the best": share * best for share in TARGETS}
    targets |= {f"{share:.0%} of the optimum": share for share in TARGETS}
    tools = {
        name: {
            "share": {str(at): list(quartiles([each.share_at(at) for each in runs])) for at in checkpoints},
            "worst": min(each.share_at(budget) for each in runs),
            "final": [each.share_at(budget) for each in runs],
            "test_share": list(quartiles([each.test_share or 0.0 for each in runs])),
            "evaluations_to": {
                label: _reaching(runs, [target] * len(runs)) for label, target in targets.items()
            },
            "seconds": list(quartiles([each.seconds for each in runs])),
        }
        for name, runs in by_tool.items()
    }
    ours, peers = tools[OURS], {name: each for name, each in tools.items() if name != OURS}
    p_values = {
        "final share": corrected_p({name: (ours["final"], each["final"]) for name, each in peers.items()})
    }
    for label in targets:
        # Who never arrives needs more than the budget; how much more is not known, and counts as one.
        needed = {
            name: [count or budget + 1.0 for count in each["evaluations_to"][label]["each"]]
            for name, each in tools.items()
        }
        p_values[label] = corrected_p({name: (needed[OURS], needed[name]) for name in peers})
    return {"evaluations": budget, "best_reached": best, "tools": tools, "p_against_ours": p_values}


def summarise_models(outcomes: Sequence[Outcome], rules: Sequence[RuleOnModels]) -> Results:
    """Return the statistics of the second comparison as JSON; the first rule is compared with the tools."""
    models = list(rules[0].shares)
    tools = {}
    pairs = {}
    for name, runs in _by_tool(outcomes).items():
        budget = len(runs[0].best_so_far)
        checkpoints = sorted({min(1000, budget), budget})
        means = [fmean(each.share_at(budget) for each in runs if each.model == model) for model in models]
        pairs[name] = ([rules[0].shares[model] for model in models], means)
        tools[name] = {
            "evaluations": budget,
            "share": {str(at): list(quartiles([each.share_at(at) for each in runs])) for at in checkpoints},
            "share_by_model": dict(zip(models, means, strict=True)),
            "evaluations_to_share_of": {
                rule.name: _reaching(runs, [rule.shares[each.model] for each in runs]) for rule in rules
            },
            "seconds": list(quartiles([each.seconds for each in runs])),
        }
    described = {
        rule.name: {
            "signals": rule.level,
            "cost_of_signals": rule.cost,
            "mean_share": fmean(rule.shares.values()),
            "worst_share": min(rule.shares.values()),
            "share_by_model": dict(rule.shares),
        }
        for rule in rules
    }
    return {
        "models": models,
        "rules": described,
        "tools": tools,
        "p_against_rule": {"rule": rules[0].name, "paired_by_model": corrected_p(pairs)},
    }


def _share(values: Sequence[float]) -> str:
    low, median, high = values
    return f"{median:.2%} [{low:.2%}, {high:.2%}]"


def _count(reaching: Mapping[str, Any], budget: int) -> str:
    words = [f"> {budget}" if each is None else f"{each:.0f}" for each in reaching["quartiles"]]
    low, median, high = words
    return f"{median} [{low}, {high}]; {reaching['reached']} of {reaching['runs']}"


def _seconds(values: Quartiles | Sequence[float]) -> str:
    return f"{values[1]:.1f}"


def _p(value: float | None) -> str:
    return "–" if value is None else f"{value:.1e}" if value < 0.001 else f"{value:.3f}"


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [header, ["---", *["---:"] * (len(header) - 1)], *rows]
    return "\n".join(f"| {' | '.join(each)} |" for each in lines)


def numbers_markdown(results: Results) -> str:
    """Return the tables of the first comparison."""
    budget, tools, p_values = results["evaluations"], results["tools"], results["p_against_ours"]
    checkpoints = list(tools[OURS]["share"])
    quality = _table(
        [
            "tool",
            *(f"share after {at}" for at in checkpoints),
            "worst",
            "test share",
            "seconds",
            "p against ours",
        ],
        [
            [
                name,
                *(_share(each["share"][at]) for at in checkpoints),
                f"{each['worst']:.2%}",
                _share(each["test_share"]),
                _seconds(each["seconds"]),
                _p(p_values["final share"].get(name)),
            ]
            for name, each in tools.items()
        ],
    )
    labels = list(tools[OURS]["evaluations_to"])
    columns = [title for label in labels for title in (f"to {label}", "p")]
    rows = []
    for name, each in tools.items():
        row = [name]
        for label in labels:
            row += [_count(each["evaluations_to"][label], budget), _p(p_values[label].get(name))]
        rows.append(row)
    return (
        f"Share of the optimum on the train models; the best anyone reached is {results['best_reached']:.2%}."
        f"\n\n{quality}\n\nEvaluations, and how many runs arrived:\n\n{_table(['tool', *columns], rows)}"
    )


def models_markdown(results: Results) -> str:
    """Return the tables of the second comparison."""
    rules, tools, p_values = results["rules"], results["tools"], results["p_against_rule"]
    first = _table(
        ["rule", "signals", "cost of its signals", "mean share", "worst share"],
        [
            [
                name,
                each["signals"],
                each["cost_of_signals"],
                f"{each['mean_share']:.2%}",
                f"{each['worst_share']:.2%}",
            ]
            for name, each in rules.items()
        ],
    )
    second = _table(
        ["tool", "evaluations", "after 1000", "at the end", "seconds", f"p against {p_values['rule']}"],
        [
            [
                name,
                str(each["evaluations"]),
                _share(each["share"][str(min(1000, each["evaluations"]))]),
                _share(each["share"][str(each["evaluations"])]),
                _seconds(each["seconds"]),
                _p(p_values["paired_by_model"][name]),
            ]
            for name, each in tools.items()
        ],
    )
    third = _table(
        ["tool", *(f"to the share of {name}" for name in rules)],
        [
            [name, *(_count(each["evaluations_to_share_of"][rule], each["evaluations"]) for rule in rules)]
            for name, each in tools.items()
        ],
    )
    return (
        f"Rules, without one evaluation of the {len(results['models'])} models:\n\n{first}\n\n"
        f"Direct search of each model, share of the optimum:\n\n{second}\n\n"
        f"Evaluations a model, and how many runs arrived:\n\n{third}"
    )
