"""docs/monitoring against docs/metrics.md: prints each metric and each label that is named there and does not exist, as
file: what, and exits 1. The page is written from the program (reference_pages.py), so a rename is noticed here.
"""

import json
import pathlib
import re
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "metrics.md"
ALERTS = ROOT / "docs" / "monitoring" / "alerts.yml"
DASHBOARD = ROOT / "docs" / "monitoring" / "dashboard.json"

NAMED = re.compile(r"\b((?:userintent|grpc_server|http_client)_\w+)(?:\{([^}]*)\})?")
OF_A_SCRAPE = {"instance", "job", "le"}  # labels that the gateway does not write itself, or every histogram has


def known_metrics(page: str) -> dict[str, set[str]]:
    """Every metric of the page with its labels; a histogram's three series have its labels."""
    known = {}
    for line in page.splitlines():
        if not line.startswith("| `"):
            continue
        name, kind, labels, _ = (cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1])
        names = [name.strip("`")]
        if kind == "histogram":
            names = [names[0] + part for part in ("_bucket", "_sum", "_count")]
        for each in names:
            known[each] = set(re.findall(r"`(\w+)`", labels))
    return known


def alert_expressions(text: str) -> str:
    return "\n".join(line for line in text.splitlines() if not line.lstrip().startswith("#"))


def dashboard_expressions(text: str) -> str:
    dashboard = json.loads(text)
    targets = [target["expr"] for panel in dashboard["panels"] for target in panel.get("targets", [])]
    return "\n".join(targets + [variable["query"] for variable in dashboard["templating"]["list"]])


def problems(expressions: str, known: dict[str, set[str]]) -> list[str]:
    found = []
    for name, selector in NAMED.findall(expressions):
        if name not in known:
            found.append(f"{name} is no metric of docs/metrics.md")
            continue
        for label in re.findall(r"(\w+)\s*[=!]", selector):
            if label not in known[name] | OF_A_SCRAPE:
                found.append(f"{name} has no label {label}")
    return found


def main() -> int:
    known = known_metrics(PAGE.read_text())
    wrong = []
    for path, expressions in ((ALERTS, alert_expressions), (DASHBOARD, dashboard_expressions)):
        told = expressions(path.read_text())
        if not NAMED.search(told):
            wrong.append(f"{path.relative_to(ROOT)}: names no metric at all")
        wrong += [f"{path.relative_to(ROOT)}: {problem}" for problem in problems(told, known)]
    print("\n".join(wrong + [f"monitoring: {len(known)} series known, {len(wrong)} problems"]))
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
