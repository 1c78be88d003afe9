"""The parts of the page, each a function from results to HTML."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from typing import Any

from refeed.report import theme
from refeed.report.html import Html, join, tag
from refeed.report.notices import notices
from refeed.report.overlay import last_generation
from refeed.report.results import Results
from refeed.report.statistics import Estimate
from refeed.report.table import Row
from refeed.report.text import count, duration, estimate_value, interval, number, title
from refeed.report.verdicts import Verdict, ended

LONGEST = 900  # characters shown of one sampled text
# An SVG inside <img> runs no script and fetches nothing.
DATA_URI = re.compile(r"data:image/(png|jpeg|gif|webp|svg\+xml);base64,[A-Za-z0-9+/=\s]+")
GLYPHS = {
    "circle": '<circle cx="6" cy="6" r="5"/>',
    "square": '<rect x="1.2" y="1.2" width="9.6" height="9.6"/>',
    "triangle-up": '<path d="M6 .8 11.4 10.6H.6z"/>',
    "diamond": '<path d="M6 .2 11 6 6 11.8 1 6z"/>',
    "cross": '<path d="M4 .5h4V4h3.5v4H8v3.5H4V8H.5V4H4z"/>',
    "triangle-down": '<path d="M6 11.2.6 1.4h10.8z"/>',
}


def policy_mark(results: Results, policy: str) -> Html:
    """The policy's shape and colour, as in the figures."""
    place = results.policies.index(policy)
    colour, shape = theme.colours(results.policies)[place], theme.shapes(results.policies)[place]
    glyph = GLYPHS[shape].replace("/>", f' fill="{colour}"/>')
    return Html(f'<svg viewBox="0 0 12 12" aria-hidden="true">{glyph}</svg>')


def policy_name(results: Results, policy: str) -> Html:
    return tag("span", policy_mark(results, policy), policy, cls="policy")


def legend(results: Results) -> Html:
    about = {policy["name"]: policy.get("about", "") for policy in results.study["policies"]}
    names = (tag("span", policy_mark(results, p), p, title=about[p]) for p in results.policies)
    return tag("div", *names, cls="legend")


def header(results: Results) -> Html:
    study, run = results.study, results.run
    facts = [
        (count(last_generation(results), "generation"), ""),
        (count(len(study.get("seeds", [])), "seed"), ""),
        (count(len(results.policies), "policy"), ""),
        (count(len(results.cases), "case"), ""),
        ("scale", study.get("scale")),
        ("run", str(run.get("started", ""))[:10]),
        ("took", duration(run["wall_seconds"]) if run.get("wall_seconds") is not None else None),
    ]
    items = (
        tag("li", tag("b", head) if value == "" else join(f"{head} ", tag("b", value)))
        for head, value in facts
        if value is not None
    )
    kicker = tag("p", tag("span", "refeed", cls="mark"), f" · study {study['name']}", cls="kicker")
    return tag("header", kicker, tag("h1", study.get("question") or study["name"]), tag("ul", *items, cls="facts"), alarm(results))


def alarm(results: Results) -> Html | None:
    """Lineages that did not complete, loudly: what is left of a policy flatters it."""
    early = [row for by_seed in ended(results).values() for row in by_seed.values()]
    if not early:
        return None
    shown = [
        tag("li", tag("b", row["outcome"]), f" · {row['case']} · {row['policy']} · seed {row['seed']}: ended at generation "
            f"{row['generation']}, {row['sentence']}")
        for row in early[:12]
    ]  # fmt: skip
    rest = tag("p", f"and {len(early) - 12} more", cls="small") if len(early) > 12 else None
    head = tag("h2", f"{len(early)} of {count(results.outcomes.num_rows, 'lineage')} ended early")
    note = tag("p", "Numbers at later generations are over the lineages that are left.", cls="small")
    return tag("div", head, tag("ul", *shown), rest, note, cls="alert", role="alert")


def noticed(results: Results) -> Html | None:
    """What to know before trusting the numbers, above the first figure."""
    found = notices(results, ended=False)
    return tag("ul", *(tag("li", sentence) for sentence in found), cls="noticed") if found else None


def change(estimate: Estimate | None) -> Html:
    if estimate is None:
        return Html("–")
    return join(
        tag("span", estimate_value(estimate), cls="big", title=estimate.method), tag("span", interval(estimate), cls="small")
    )


def headline_table(results: Results, rows: Sequence[Row]) -> Html:
    """One case: by what factor each policy changed, where it started and ended, and where theory says it should end."""
    last = max(row.generation for row in rows)
    heads = ("change", "gen. 1", f"gen. {last}") if last > 1 else ("gen. 1",)
    head = tag("tr", tag("th", "policy"), *(tag("th", text, cls="num") for text in heads))
    body = []
    for row in rows:
        notes = [f"theory {number(row.theory)}"] if row.theory is not None else []
        notes += [f"at generation {row.generation}" if row.generation else "none"] if row.generation != last else []
        cells = [
            tag("td", change(row.change), cls="num"),
            tag("td", number(row.first), cls="num"),
            tag("td", number(row.last), *(tag("span", note, cls="small") for note in notes), cls="num"),
        ]
        body.append(tag("tr", tag("th", policy_name(results, row.policy)), *cells[-len(heads) :]))
    return tag("div", tag("table", tag("thead", head), tag("tbody", *body)), cls="scroll")


def change_matrix(results: Results, rows: Sequence[Row]) -> Html:
    """Several cases: the change of each policy from generation 1 to the last one."""
    head = tag("tr", tag("th", "case"), *(tag("th", policy_name(results, p), cls="num") for p in results.policies))
    body = []
    for case in dict.fromkeys(row.case for row in rows):
        cells = (tag("td", change(row.change), cls="num") for row in rows if row.case == case)
        body.append(tag("tr", tag("th", case), *cells))
    return tag("div", tag("table", tag("thead", head), tag("tbody", *body)), cls="scroll")


def chip(verdict: Verdict) -> Html:
    kind = {"not measured": "none", "cannot say": "open"}.get(verdict.answer, "alarm" if verdict.worries else "calm")
    return tag("span", verdict.answer, cls=f"chip {kind}")


def verdict_table(results: Results, verdicts: Sequence[Verdict]) -> Html:
    """One row a definition, one column a policy, and at the end what is not measured.

    Of several cases each cell counts the answers, of one case it shows the number behind the answer.
    """
    lines: dict[tuple[str, str], dict[str, list[Verdict]]] = {}
    unmeasured = {verdict.label: verdict for verdict in verdicts if verdict.answer == "not measured"}
    for verdict in verdicts:
        if verdict.answer != "not measured":
            lines.setdefault((verdict.label, verdict.quantity), {}).setdefault(verdict.policy, []).append(verdict)
            unmeasured.pop(verdict.label, None)
    body = []
    for (label, quantity), by_policy in lines.items():
        says = next(iter(by_policy.values()))[0].definition.says
        name = tag("th", label, tag("span", title(quantity), cls="small"), title=says)
        body.append(tag("tr", name, *(_cell(by_policy.get(policy, [])) for policy in results.policies)))
    if unmeasured:
        names = (tag("span", label, cls="chip none", title=verdict.definition.says) for label, verdict in unmeasured.items())
        body.append(tag("tr", tag("th", "not measured"), tag("td", *names, colspan=len(results.policies), cls="chips")))
    head = tag("tr", tag("th", ""), *(tag("th", policy_name(results, p)) for p in results.policies))
    return tag(
        "div",
        tag("table", tag("thead", head), tag("tbody", *body), cls="verdicts", style=f"--n:{len(results.policies)}"),
        cls="scroll",
    )


def _cell(verdicts: Sequence[Verdict]) -> Html:
    if not verdicts:
        return tag("td", tag("span", "–", cls="small"))
    if len(verdicts) > 1:
        answers = Counter(verdict.answer for verdict in verdicts)
        examples = [next(verdict for verdict in verdicts if verdict.answer == answer) for answer, _ in answers.most_common()]
        return tag("td", *(join(chip(verdict), tag("b", f" {answers[verdict.answer]} ")) for verdict in examples))
    verdict, estimate = verdicts[0], verdicts[0].estimate
    if estimate is None:
        return tag("td", chip(verdict), title=verdict.sentence)
    value = estimate_value(estimate) + (" a generation" if estimate.scale == "slope" else "")
    away = estimate.num_standard_errors if verdict.against else None
    below = interval(estimate) + (f" · {number(abs(away))} SE" if away is not None else "")
    return tag(
        "td", chip(verdict), tag("span", f" {value}", cls="num"), tag("span", below, cls="small num"), title=verdict.sentence
    )


def verdict_lines(verdicts: Sequence[Verdict]) -> Html:
    """Every verdict as a sentence, with its interval and method."""
    shown = []
    done = set()
    for verdict in verdicts:
        if verdict.answer == "not measured":
            if verdict.label in done:
                continue
            done.add(verdict.label)
            shown.append(tag("li", tag("b", verdict.label), ": not measured"))
            continue
        shown.append(
            tag("li", tag("b", verdict.label), f", {verdict.policy}: ", tag("b", verdict.answer), f". {verdict.sentence}.")
        )
    return tag("ul", *shown, cls="lines")


def samples(results: Results, case: str) -> Html | None:
    """What was sampled, side by side: real rows, then each generation by policy."""
    entries = [entry for entry in results.exhibits if entry["case"] == case]
    seeds = sorted({entry["seed"] for entry in entries if entry["policy"] != "real"})
    if not seeds:
        return None
    real = [entry for entry in entries if entry["policy"] == "real"][:1]
    shown = [entry for entry in entries if entry["seed"] == seeds[0] and entry["policy"] in results.policies]
    generations = sorted({entry["generation"] for entry in shown})
    chosen = sorted({generations[0], generations[len(generations) // 2], generations[-1]})
    parts = [tag("h3", "Real"), _alone(results, real[0], "")] if real else []
    parts += [_generation(results, shown, generation) for generation in chosen]
    rest = [_generation(results, shown, generation) for generation in generations if generation not in chosen]
    more = tag("details", tag("summary", "The other generations"), *rest) if rest else None
    return join(*parts, more)


def _generation(results: Results, entries: Sequence[dict[str, Any]], generation: int) -> Html:
    here = {entry["policy"]: entry for entry in entries if entry["generation"] == generation}
    ordered = [here[policy] for policy in results.policies if policy in here]
    if len(ordered) > 1 and all(entry["items"] == ordered[0]["items"] for entry in ordered):
        heading = tag("h3", f"Generation {generation}", tag("span", " the same model under every policy", cls="small"))
        return join(heading, _alone(results, ordered[0] | {"policy": ""}, ""))
    cells = (_sample(results, entry, "") for entry in ordered)
    return join(tag("h3", f"Generation {generation}"), tag("div", *cells, cls="samples"))


def _alone(results: Results, entry: dict[str, Any], name: str) -> Html:
    """A cell that no policy stands beside, its texts side by side instead."""
    texts = [entry | {"items": [item]} for item in entry["items"][:3]] if entry["kind"] == "text" else [entry]
    return tag("div", *(_sample(results, text, name) for text in texts or [entry]), cls="samples")


def _sample(results: Results, entry: dict[str, Any], name: str) -> Html:
    policy = entry["policy"]
    colour = theme.REAL if policy == "real" else None
    head = tag("span", name, cls="small") if name else None
    if policy in results.policies:
        colour = theme.colours(results.policies)[results.policies.index(policy)]
        head = policy_name(results, policy)
    if entry["kind"] == "image":
        body = [tag("div", *(image(item) for item in entry["items"][:64]), cls="images")]
    else:
        body = [tag("blockquote", _shorten(str(item))) for item in entry["items"][:3]]
    if not entry["items"]:
        body = [tag("p", "no rows", cls="small")]
    return tag("div", head, *body, cls="sample", style=f"--c:{colour}" if colour else None)


def image(item: Any) -> Html:
    """An image given as a data URI; anything else is not shown."""
    if isinstance(item, str) and DATA_URI.fullmatch(item):
        return tag("img", src=item, alt="sampled image", loading="lazy")
    return tag("span", "not an image", cls="small")


def _shorten(text: str) -> str:
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}… ({len(text) - LONGEST:,} more characters)"


def recipe(thing: Any) -> str:
    """A recipe in a few words: `Linear(dimension 10, rows 100)`."""
    if not isinstance(thing, dict):
        return str(thing)
    kind = str(thing.get("kind", "")).rsplit(":", 1)[-1]
    fields = (
        f"{title(key)} {recipe(value)}"
        for key, value in thing.get("fields", thing).items()
        if key not in ("kind", "version") and value is not None
    )
    inner = ", ".join(fields)
    return f"{kind}({inner})" if inner else kind


def recipes(results: Results, case: str) -> str:
    """What a case is made of: its source, learner and sampler, and where its models begin."""
    made = results.cases[case]
    parts = [recipe(made[part]) for part in ("source", "learner", "sampler") if made.get(part)]
    if made.get("first_learner"):
        parts.append(f"generation 1 by {recipe(made['first_learner'])}")
    if (begin := made.get("start", "scratch")) != "scratch":
        content = made.get("start_digest")
        where = f"the weights of {begin} (content {content[:12]})" if content else "the model before it"
        parts.append(f"every model begins from {where}")
    return " · ".join(parts)


def all_recipes(results: Results) -> Html:
    lines = (tag("li", tag("b", case), ": ", recipes(results, case)) for case in results.cases)
    return tag("details", tag("summary", "What the cases are made of"), tag("ul", *lines, cls="lines"))


def cost(results: Results) -> Html:
    run = results.run
    head = tag(
        "tr",
        *(tag("th", text, cls=None if text == "step" else "num") for text in ("step", "all", "run", "reused", "seconds", "each")),
    )
    body = []
    for kind, step in run.get("steps", {}).items():
        each = duration(step["seconds"] / step["run"]) if step["run"] else "–"
        numbers = (f"{step['total']:,}", f"{step['run']:,}", f"{step['reused']:,}", number(step["seconds"]), each)
        body.append(tag("tr", tag("th", kind), *(tag("td", text, cls="num") for text in numbers)))
    seconds = sum(step["seconds"] for step in run.get("steps", {}).values())
    wall = run.get("wall_seconds")
    said = f"{duration(seconds)} of work" + (f" in {duration(wall)}" if wall else "")
    workers = f", engine {run['engine']}" if "engine" in run else ""
    workers += f", {count(run['workers'], 'worker')}" if run.get("workers") else ""
    return join(
        tag("p", said + workers, cls="small"), tag("div", tag("table", tag("thead", head), tag("tbody", *body)), cls="scroll")
    )


def environment(results: Results) -> Html:
    rows = (tag("tr", tag("th", name), tag("td", str(value))) for name, value in results.run.get("environment", {}).items())
    return tag("div", tag("table", tag("tbody", *rows)), cls="scroll")


BIBTEX = """@article{gerstgrasser2024collapse,
  title   = {Is Model Collapse Inevitable? Breaking the Curse
             of Recursion by Accumulating Real and Synthetic Data},
  author  = {Gerstgrasser, Matthias and Schaeffer, Rylan and
             Dey, Apratim and others},
  journal = {arXiv preprint arXiv:2404.01413},
  year    = {2024}
}"""


def cite(results: Results) -> Html:
    version = results.run.get("environment", {}).get("refeed", "")
    said = f"refeed {version}".strip() + ", Apache-2.0, with the paper whose loop it reproduces:"
    return join(tag("p", said), tag("pre", BIBTEX))
