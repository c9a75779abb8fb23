"""Writes the tables of docs/monitoring.md from the declarations in `app.metrics`. A test compares the two."""

import re
from collections.abc import Iterator
from pathlib import Path

from prometheus_client import REGISTRY, Counter, Gauge, Histogram

from app import metrics

PAGE = Path(__file__).parents[1] / "docs/monitoring.md"
Declared = Counter | Gauge | Histogram
_HEADER = "| Metric | Labels | Meaning |\n|---|---|---|\n"


def declared(*, facts: bool) -> list[Declared]:
    """What the database knows, or else what each process counts, in the order of the declarations."""
    registry = metrics.FACTS if facts else REGISTRY
    found = [value for value in vars(metrics).values() if isinstance(value, Declared)]
    return [metric for metric in found if metric in registry._collector_to_names]


def name_of(metric: Declared) -> str:
    """The name that PromQL uses. A histogram has `_bucket`, `_sum` and `_count` behind it."""
    return f"{metric._name}_total" if isinstance(metric, Counter) else metric._name


def series() -> Iterator[tuple[str, set[str]]]:
    """Every series by its name, with its labels."""
    for metric in [*declared(facts=False), *declared(facts=True)]:
        name, labels = name_of(metric), set(metric._labelnames)
        if isinstance(metric, Histogram):
            yield from ((f"{name}_bucket", labels | {"le"}), (f"{name}_sum", labels), (f"{name}_count", labels))
        else:
            yield name, labels


def table(*, facts: bool) -> str:
    """A Markdown table with one row for each metric."""
    rows = []
    for metric in declared(facts=facts):
        labels = ", ".join(f"`{label}`" for label in metric._labelnames)
        rows.append(f"| `{name_of(metric)}` | {labels} | {metric._documentation} |\n")
    return _HEADER + "".join(rows)


def fill(page: str) -> str:
    """The page with a new table between each pair of markers."""
    for title, facts in (("Processes", False), ("Database", True)):
        block = f"<!-- {title} -->\n{table(facts=facts)}<!-- /{title} -->"
        page, replaced = re.subn(f"<!-- {title} -->\n.*?<!-- /{title} -->", lambda _: block, page, flags=re.DOTALL)  # noqa: B023
        assert replaced == 1, f"docs/monitoring.md needs one pair of markers: <!-- {title} --> and <!-- /{title} -->"
    return page


if __name__ == "__main__":
    PAGE.write_text(fill(PAGE.read_text()))
