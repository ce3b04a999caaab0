"""docs/flags.md and docs/metrics.md against the program; what other pages name of it; and the links of every page."""

import re
import subprocess
import sys

import pytest

from support.gateway import SERVER
from support.protos import REPO

sys.path.insert(0, str(REPO / "scripts"))
import check_monitoring  # noqa: E402
import reference_pages  # noqa: E402


def rows(page):
    """{first cell: other cells} of every table of the page."""
    found = {}
    for line in page.read_text().splitlines():
        if line.startswith("| `"):
            first, *others = (part.strip() for part in re.split(r"(?<!\\)\|", line)[1:-1])
            found[first.strip("`")] = others
    return found


def test_every_flag_with_its_default_is_on_the_page_and_nothing_else():
    text = subprocess.run([SERVER, "--help"], capture_output=True, text=True, check=True).stdout
    wanted = {}
    for line in text.splitlines():
        if match := re.match(r"  (?:-\w, )?--(\w+)", line):
            default = re.search(r"\(default: (.*)\)$", line)
            wanted[match[1]] = default[1] if default else ""
    assert len(wanted) > 30
    page = {re.match(r"--(\w+)", first)[1]: others[0].strip("`").replace("\\|", "|")
            for first, others in rows(reference_pages.FLAGS).items() if first.startswith("--")}
    assert page == wanted, "`make docs` writes the page anew"


def test_every_metric_is_on_the_page_and_nothing_else(new_gateway):
    families = dict(line.split(" ")[2:4] for line in new_gateway().http("/metrics")[1].splitlines() if line.startswith("# TYPE "))
    assert len(families) > 15
    page = {first: others[0] for first, others in rows(reference_pages.METRICS).items()}
    assert page == families, "`make docs` writes the page anew"


def test_the_pages_are_as_the_program_writes_them():
    wrong = [line for path, wanted in reference_pages.pages().items() for line in reference_pages.differences(path, wanted)]
    assert not wrong, "`make docs` writes them anew:\n" + "\n".join(wrong)


def test_the_comparison_names_what_is_missing_and_what_is_unknown(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("# A page\n| `--old=FILE` | none | x |\n")
    assert reference_pages.differences(page, "# A page\n| `--new=FILE` | none | x |\n") == [
        "page.md: not the program's: | `--old=FILE` | none | x |", "page.md: missing: | `--new=FILE` | none | x |"]
    help_text = "  --one=A|B  (default: A)\n      first line\n      second <line>\n\n  -h, --help\n      print this\n"
    assert reference_pages.entries(help_text) == [["one", "A|B", "A", "first line second <line>"], ["help", "", "", "print this"]]


def test_the_check_of_the_monitoring_notices_a_metric_and_a_label_that_do_not_exist():
    known = check_monitoring.known_metrics("| `userintent_a_total` | counter | `way`: x, y | m |\n| `userintent_b` | histogram |  | m |\n")
    assert check_monitoring.problems('rate(userintent_a_total{way="x",instance="i"}[5m]) + userintent_b_bucket{le="1"}', known) == []
    assert check_monitoring.problems('userintent_a_total{reason="x"} > userintent_b', known) == [
        "userintent_a_total has no label reason", "userintent_b is no metric of docs/metrics.md"]


def test_alerts_and_dashboard_name_what_exists():
    assert check_monitoring.main() == 0


def pages():
    listed = subprocess.run(["git", "ls-files", "--cached", "--others", "--exclude-standard", "*.md"], cwd=REPO, capture_output=True,
                            text=True, check=True).stdout
    return [REPO / name for name in listed.splitlines() if (REPO / name).exists()]


def named(pattern):
    """What every page names of this form, with the pages that do."""
    found = {}
    for page in pages():
        for name in re.findall(pattern, page.read_text()):
            found.setdefault(name, []).append(str(page.relative_to(REPO)))
    return found


def test_every_flag_that_a_page_names_is_one_of_our_programs():
    known = ""
    for program in ("userintent-server", "userintent-ledger", "astra-sandbox"):
        done = subprocess.run([SERVER.parent / program, "--help"], capture_output=True, text=True, check=False)
        known += done.stdout + done.stderr
    flags = named(r"(?<![\w-])--([a-z0-9]+(?:_[a-z0-9]+)+)\b")  # with an underscore, as ours are and no other tool's
    assert len(flags) > 30
    assert {flag: where for flag, where in flags.items() if not re.search(rf"\b{flag}\b", known)} == {}


def test_every_metric_that_a_page_names_exists(new_gateway):
    exposed = new_gateway().http("/metrics")[1]
    metrics = named(r"`(userintent_[a-z_]+[a-z])")
    assert len(metrics) > 15
    assert {name: where for name, where in metrics.items() if f"# TYPE {name} " not in exposed} == {}


def test_every_log_line_that_a_page_names_is_written_somewhere():
    source = "".join(path.read_text() for path in (REPO / "server").rglob("*.cc"))
    events = named(r"(?:[Ll]og|log line|log says) `([a-z_]+)`")
    assert len(events) > 5
    assert {name: where for name, where in events.items() if f'"{name}"' not in source} == {}


def anchors(page):
    """What GitHub makes of the headings."""
    headings = re.findall(r"^#+ (.*)$", re.sub(r"^```.*?^```", "", page.read_text(), flags=re.M | re.S), re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", pages(), ids=lambda page: str(page.relative_to(REPO)))
def test_every_link_leads_somewhere(page):
    text = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.M | re.S)
    wrong = []
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"[a-z]+:", target):
            continue
        name, _, anchor = target.partition("#")
        path = (page.parent / name).resolve() if name else page
        if not path.exists() or (anchor and path.suffix == ".md" and anchor not in anchors(path)):
            wrong.append(target)
    assert not wrong


def test_every_package_that_is_installed_has_its_reason_on_the_page():
    page = (REPO / "docs" / "dependencies.md").read_text()
    script = (REPO / "scripts" / "deps.sh").read_text()
    packages = [line.partition("|")[0].strip() for block in re.findall(r"^readonly APT\w*='\n(.*?)^'$", script, re.M | re.S)
                for line in block.splitlines()]
    for file in ("tests/requirements.txt", "scripts/requirements-lint.txt"):
        packages += re.findall(r"^([\w-]+)==", (REPO / file).read_text(), re.M)
    assert len(packages) > 40
    assert [name for name in packages if name.lower() not in page.lower()] == []


def test_what_a_stranger_looks_for_first_is_there():
    for name, words in (("LICENSE", "Apache License"), ("CHANGELOG.md", "## [Unreleased]"), ("SECURITY.md", "private"),
                        ("CONTRIBUTING.md", "./test"), ("README.md", "no personal data in clear")):
        text = " ".join((REPO / name).read_text().split())
        assert words in text, name
        assert name == "README.md" or f"({name})" in (REPO / "README.md").read_text(), f"README does not lead to {name}"
