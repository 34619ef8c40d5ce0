"""Great Expectations' Data Docs as two pages that need neither network nor scripts.

The renderers and templates of the content are Great Expectations' own. Its page frame is replaced: that one loads style
sheets and scripts from six hosts, stamps addresses with the time, numbers elements at random, and lets a sample's text
through as HTML.
"""

import html
import itertools
from pathlib import Path
from typing import Any

from great_expectations.render.renderer.page_renderer import (
    ExpectationSuitePageRenderer,
    ValidationResultsPageRenderer,
)
from great_expectations.render.view.view import DefaultJinjaPageView
from jinja2 import ChoiceLoader, DictLoader

from datamill import files
from datamill.validation.checking import SUITE_NAME, Report

RESULTS = "index.html"
SUITE = "expectations.html"
FRAME = "offline_page.j2"
FROM_DATA = ("partial_unexpected_list", "partial_unexpected_counts", "observed_value", "details")

STYLE = """
:root { color-scheme: light dark; --line: #8884; --soft: #8881; }
body { font: 15px/1.5 system-ui, sans-serif; margin: 0; }
nav.top { border-bottom: 1px solid var(--line); padding: .8rem 2rem; }
nav.top a { margin-right: 1.5rem; }
a { color: #2a6fb5; text-decoration: none; }
a:hover { text-decoration: underline; }
main { display: grid; grid-template-columns: 14rem minmax(0, 1fr); gap: 2rem; padding: 1.5rem 2rem; }
aside { position: sticky; top: 1.5rem; align-self: start; max-height: 90vh; overflow: auto; }
aside a { display: block; padding: .1rem 0; overflow-wrap: anywhere; }
h5, h6 { margin: 0; font-size: 1rem; }
.h6, .h5 { font-weight: 600; }
.alert { background: var(--soft); border-radius: 6px; padding: .6rem .9rem; margin: 1rem 0 .5rem; }
table { border-collapse: collapse; margin: .3rem 0; }
.table { width: 100%; }
th, td { border-bottom: 1px solid var(--line); padding: .35rem .7rem; text-align: left; vertical-align: top; }
td p { margin: 0; }
ul { margin: .3rem 0; }
li hr { display: none; }
.badge { background: #5a6a7a; color: #fff; border-radius: 4px; padding: .05rem .4rem; font-size: .85em; }
.text-danger { color: #c0392b; }
.text-success { color: #2e8b57; }
.text-warning { color: #b8860b; }
.badge-danger, .badge-warning, .badge-info { background: #b5533c; }
i.fas { font-style: normal; }
i.fa-check-circle::before { content: "\\2714"; }
i.fa-times::before { content: "\\2718"; }
i.fa-exclamation-triangle::before { content: "\\26A0"; }
a[data-toggle=collapse] { display: none; }
.collapse p { margin: 0; font-size: .85em; opacity: .75; }
.collapse h6 { display: none; }
.cooltip .top { display: none; }
@media (max-width: 50rem) { main { grid-template-columns: 1fr; } aside { position: static; } }
""".strip()

PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<title>{{ heading }}</title>
<style>
{{ style }}
</style>
</head>
<body>
<nav class="top"><a href="index.html">Validation results</a><a href="expectations.html">Expectations</a></nav>
<main>
<aside>
{% for section in sections %}<a href="#section-{{ loop.index }}">{{ section.section_name | e }}</a>
{% endfor %}</aside>
<div>
{% for section in sections %}{% set section_loop = loop %}{% include 'section.j2' %}{% endfor %}
</div>
</main>
</body>
</html>
"""


def write_docs(folder: Path, *, report: Report) -> None:
    """Write ``index.html`` (what was found) and ``expectations.html`` (what is expected); equal results, equal bytes.

    The report's result is changed: text that came from the data is escaped in it.
    """
    for result in report.validated.results:
        result.result = {key: _escaped(one) if key in FROM_DATA else one for key, one in result.result.items()}
    folder.mkdir(parents=True, exist_ok=True)
    pages = {
        RESULTS: ("Validation results", ValidationResultsPageRenderer(run_info_at_end=True).render(report.validated)),
        SUITE: ("Expectations", ExpectationSuitePageRenderer().render(report.suite)),
    }
    for name, (heading, document) in pages.items():
        document.sections = [one for one in document.sections if one.section_name != "Run Info"]
        with files.atomic_write(folder / name) as partial:
            partial.write_text(_render(document, heading=heading), encoding="utf-8")


def _render(document: Any, *, heading: str) -> str:
    view = DefaultJinjaPageView()
    assert view.env.loader is not None
    view.env.loader = ChoiceLoader([DictLoader({FRAME: PAGE}), view.env.loader])
    numbers = itertools.count()
    view.env.filters["generate_html_element_uuid"] = lambda prefix="": f"{prefix}{next(numbers)}"
    page: str = view.render(document, template=FRAME, heading=heading, style=STYLE)
    page = page.replace(f"../../../../expectations/{SUITE_NAME}.html", SUITE)
    return "\n".join(line.strip() for line in page.splitlines() if line.strip()) + "\n"


def _escaped(value: Any) -> Any:
    if isinstance(value, str):
        return html.escape(value)
    if isinstance(value, dict):
        return {key: _escaped(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_escaped(one) for one in value)
    return value
