#!/usr/bin/env python3
"""make mutants: would the tests notice if the code that keeps the promise were wrong?

Copies the sources to build/mutants, puts every mutation of FILES into the copy at once, each behind a switch, builds the
unit tests there, and runs them once for each mutation with that one switched on. A mutation that no test notices
survives; survivors.json explains those that cannot be noticed, all others are a hole in the tests.

    tests/mutants/mutants.py                 # everything; minutes
    tests/mutants/mutants.py --only creation # mutations whose name holds the word
    tests/mutants/mutants.py --list

The name of a mutation is file, operator and the line it changes, so it stays the same when other lines move.
Exit status 1 when a survivor is unexplained, or an explained one is dead or gone.
"""

import argparse
import concurrent.futures
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
WORK = ROOT / "build" / "mutants"
EXPLAINED = pathlib.Path(__file__).with_name("survivors.json")

LEDGER = ["ledger_decide_test", "ledger_group_commit_test", "ledger_ledger_test", "ledger_stores_test", "ledger_sqlite_test",
          "ledger_model_test"]
INDEX = ["ledger_merged_index_test", "ledger_lost_commit_test", "ledger_stores_test"]
# The quickest first: most mutations die there.
FILES = {
    "server/usecase/creation.cc": ["creation_test"],
    "server/usecase/creation_place.cc": ["creation_test"],
    "server/usecase/upstream_queue.cc": ["usecase_parts_test"],
    "server/usecase/retry_policy.cc": ["usecase_parts_test", "creation_test"],
    "server/usecase/get_user_intent.cc": ["get_user_intent_test"],
    "server/usecase/intent_reads.cc": ["get_user_intent_test"],
    "server/astra/classify.cc": ["astra_test"],
    "server/policy/policy.cc": ["policy_test"],
    "server/policy/access.cc": ["policy_test"],
    "server/ledger/rules.cc": LEDGER,
    "server/ledger/decide.cc": LEDGER,
    "server/ledger/decide_operator.cc": LEDGER,
    "server/ledger/begin_operation.cc": LEDGER,
    "server/ledger/finish_operation.cc": LEDGER,
    "server/ledger/next_attempt_operation.cc": LEDGER,
    "server/ledger/get_operation.cc": LEDGER,
    "server/ledger/reading_operation.cc": LEDGER,
    "server/ledger/joins.cc": LEDGER,
    "server/ledger/outbox.cc": LEDGER,
    "server/ledger/group_commit.cc": LEDGER,
    "server/ledger/key_filter.cc": INDEX,
    "server/ledger/sqlite_merged_index.cc": INDEX,
}

SWITCH = """
#include <cstdlib>
namespace { bool Mutant(int n) { static const int on = [] {
  const char* text = std::getenv("MUTANT"); return text ? std::atoi(text) : 0; }(); return on == n; } }
"""

# Text by text: each place where the left stands is a mutation to the right.
SWAPS = [
    (r"==", "!="), (r"!=", "=="), (r"&&", "||"), (r"\|\|", "&&"), (r"<=", "<"), (r">=", ">"), (r" < ", " <= "),
    (r" > ", " >= "),
    (r"(?<!\") \+ (?!\")", " - "),  # not of texts
    # Not between two times, which have no sum.
    (r" - (?!\w+\.(shard\.)?loop\b|sent_at_|asked_at_|now\b|record_->)", " + "), (r"\+= 1\b", "+= 2"), (r"\btrue\b", "false"),
    (r"\bfalse\b", "true"), (r"\bstd::max\b", "std::min"), (r"\bstd::min\b", "std::max"),
    (r"\bState::kUnknown\b", "State::kReleased"), (r"\bState::kReleased\b", "State::kUnknown"),
    (r"\bState::kFailed\b", "State::kReleased"), (r"\bState::kSucceeded\b", "State::kFailed"),
    (r"\bSent::kNo\b", "Sent::kMaybe"), (r"\bSent::kMaybe\b", "Sent::kNo"), (r"\bSent::kYes\b", "Sent::kMaybe"),
    (r"\bVerdict::kUnknown\b", "Verdict::kNotSent"), (r"\bVerdict::(?!kUnknown)k\w+\b", "Verdict::kUnknown"),
    (r"\bBeginVerdict::(?!kGo)k\w+\b", "BeginVerdict::kGo"),
    (r"\{0, 1\}", "{0, 0}"), (r"\{1, 0\}", "{0, 1}"), (r"\{0, 0\}", "{0, 1}"),
]  # fmt: skip

# Statements that a switch can stand before: returns, assignments to what exists already, calls. Declarations cannot.
STATEMENT = re.compile(
    r"^(?P<indent> +)(?P<text>(return\b|(\+\+|--)\w|\(?\*?\w[\w.\[\]()*>-]*\)?(->|\.)\w+(\[\w+\])?\s*[-+]?= |\w+_? [-+]?= "
    r"|(\w+(::|\.|->))*\w+\()[^{}]*;)$"
)
NOT_STATEMENT = re.compile(r"^ +(case|default|using|static_assert|CrashPoint|Reach|Post\(|const|auto|if|for|while|switch)\b")


def swapped(text: str):
    """(operator, text) for each way in which one swap changes the text."""
    for pattern, to in SWAPS:
        for place in re.finditer(pattern, text):
            if "Verdict::" in pattern and not re.match(r"[\w:]*", to):
                continue
            yield f"{place.group(0).strip()} -> {to.strip()}", text[: place.start()] + to + text[place.end() :]


def condition_end(text: str, start: int) -> int:
    """The index of the parenthesis that closes the one at `start`."""
    depth = 0
    for i in range(start, len(text)):
        depth += {"(": 1, ")": -1}.get(text[i], 0)
        if depth == 0:
            return i
    raise ValueError("unbalanced")


class Instrumenter:
    def __init__(self, path: str, first: int):
        self.path, self.number, self.mutants = path, first, []

    def add(self, operator: str, line: str) -> int:
        name = f"{self.path.removeprefix('server/')}: {operator}: {' '.join(line.split())}"
        same = sum(m["name"].partition(" #")[0] == name for m in self.mutants)
        self.number += 1
        self.mutants.append({"id": self.number, "name": name + (f" #{same + 1}" if same else ""), "file": self.path})
        return self.number

    def condition(self, head: str, text: str, line: str) -> str:
        """`text` is what stands in the parentheses of an if."""
        # A semicolon inside of a lambda parts nothing.
        before, semicolon, condition = ("", "", text) if "{" in text else text.rpartition("; ")
        if not semicolon and re.match(r"(const )?auto\b[^=]*=(?!=)|(const )?[\w:<>*& ]+ \w+ = ", text):
            return text  # the declaration is the condition
        out = f"static_cast<bool>({condition})"
        for operator, other in swapped(condition):
            out = f"(Mutant({self.add(operator, line)}) ? ({other}) : ({out}))"
        out = f"(Mutant({self.add('negate', line)}) ? !({condition}) : ({out}))"
        return f"{before}{semicolon}{out}"

    def statement(self, indent: str, text: str) -> str:
        chain = ""
        if not text.startswith("return"):
            chain += f"if (Mutant({self.add('drop', text)})) {{ }} else "
        for operator, other in swapped(text):
            chain += f"if (Mutant({self.add(operator, text)})) {{ {other} }} else "
        return f"{indent}{{ {chain}{{ {text} }} }}" if chain else indent + text

    def run(self, source: str) -> str:
        lines, out, i = source.split("\n"), [], 0
        inside = False  # of a function: after a line that ends with { at column 0's level
        while i < len(lines):
            line = lines[i]
            if re.match(r"^[^\s/#}].*[^;]$", line):
                inside = True
            if line == "}":
                inside = False
            if not inside or not line.startswith("  ") or re.match(r" +//", line):
                out.append(line)
                i += 1
                continue
            code = re.sub(r"\s+// .*$", "", line)
            found = re.match(r"^( +(?:\} else )?if \()", code)
            if found:
                text, last = code, i
                while text.count("(") != text.count(")") and last + 1 < len(lines):
                    last += 1
                    text += " " + re.sub(r"\s+// .*$", "", lines[last]).strip()
                start = found.end() - 1
                end = condition_end(text, start)
                tail = text[end + 1 :]
                # A statement on the same line stays as it is, but for being mutated too.
                single = re.match(r"^ ((?:return|[\w.>-]+)[^{}]*;)$", tail)
                if single and not NOT_STATEMENT.match("  " + single.group(1)):
                    tail = self.statement(" ", single.group(1))
                out.append(f"{text[: start + 1]}{self.condition(found.group(1), text[start + 1 : end], text)}){tail}")
                i = last + 1
                continue
            declared = re.match(r"^( +(?:const )?(?:bool|absl::Duration|Counters) \w+ = )(.*);$", code)
            if declared:
                value = declared.group(2)
                for operator, other in swapped(declared.group(2)):
                    value = f"(Mutant({self.add(operator, code)}) ? ({other}) : ({value}))"
                out.append(f"{declared.group(1)}{value};")
                i += 1
                continue
            text, last = code, i
            while not text.endswith((";", "{", "}", ":")) and last + 1 < len(lines):
                last += 1
                text += " " + re.sub(r"\s+// .*$", "", lines[last]).strip()
            found = STATEMENT.match(text)
            previous = next((earlier for earlier in reversed(out) if earlier.strip()), "")
            if found and not NOT_STATEMENT.match(text) and previous.rstrip().endswith((";", "{", "}", ":")) \
                    and text.count("(") == text.count(")"):
                out.append(self.statement(found["indent"], found["text"]))
                i = last + 1
                continue
            out.append(line)
            i += 1
        return "\n".join(out)


def copy_sources() -> pathlib.Path:
    tree = WORK / "src"
    names = subprocess.run(["git", "ls-files", "--cached", "--others", "--exclude-standard"], cwd=ROOT, check=True,
                           capture_output=True, text=True).stdout.split("\n")  # fmt: skip
    keep = set()
    for name in filter(None, names):
        if name.startswith(("client_lib/", "docs/")) or not (ROOT / name).is_file():
            continue
        keep.add(tree / name)
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        text = (ROOT / name).read_bytes()
        if name in FILES:
            continue
        if not (tree / name).is_file() or (tree / name).read_bytes() != text:
            (tree / name).write_bytes(text)
    tools = tree / "build" / "tools"
    if not tools.exists() and (ROOT / "build" / "tools").is_dir():
        tools.parent.mkdir(parents=True, exist_ok=True)
        tools.symlink_to(ROOT / "build" / "tools")
    return tree


def instrument(tree: pathlib.Path) -> list[dict]:
    mutants: list[dict] = []
    for name in FILES:
        worker = Instrumenter(name, len(mutants))
        text = worker.run((ROOT / name).read_text())
        head, _, rest = text.partition("\n")
        text = head + SWITCH + rest
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        if not (tree / name).is_file() or (tree / name).read_text() != text:
            (tree / name).write_text(text)
        mutants += worker.mutants
    return mutants


def build(tree: pathlib.Path, targets: list[str], jobs: int) -> pathlib.Path:
    out = WORK / "bin-tree"
    if not (out / "build.ninja").is_file():
        subprocess.run(["cmake", "-S", tree, "-B", out, "-G", "Ninja", "-DCMAKE_BUILD_TYPE=Debug",
                        "-DCMAKE_CXX_FLAGS_DEBUG=-O1 -w"], check=True, stdout=subprocess.DEVNULL)  # fmt: skip
    subprocess.run(["cmake", "--build", out, "-j", str(jobs), "--target", *targets], check=True, stdout=subprocess.DEVNULL)
    return out / "bin"


def killed_by(mutant: dict, programs: pathlib.Path, patience: dict[str, float]) -> str:
    """The test program that notices, or nothing. A program that takes far longer than without the mutation waits for
    ever where the right code does not, which is noticing, too."""
    for test in FILES[mutant["file"]]:
        try:
            done = subprocess.run(
                [programs / test, "--gtest_fail_fast", "--gtest_brief=1"], env={**os.environ, "MUTANT": str(mutant["id"])},
                stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, timeout=patience[test])  # fmt: skip
            if done.returncode != 0:
                return test
        except subprocess.TimeoutExpired:
            return f"{test}, which did not end"
    return ""


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    options.add_argument("--only", default="")
    options.add_argument("--list", action="store_true")
    options.add_argument("--jobs", type=int, default=os.cpu_count())
    options = options.parse_args()

    tree = copy_sources()
    mutants = [m for m in instrument(tree)]
    if options.list:
        print("\n".join(m["name"] for m in mutants if options.only in m["name"]))
        return 0
    chosen = [m for m in mutants if options.only in m["name"]]
    tests = sorted({test for m in chosen for test in FILES[m["file"]]})
    programs = build(tree, tests, options.jobs)
    patience = {}
    for test in tests:
        began = time.monotonic()
        if subprocess.run([programs / test], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL).returncode:
            print(f"{test} fails without any mutation", file=sys.stderr)
            return 1
        patience[test] = 120 + 8 * (time.monotonic() - began)

    explained = json.loads(EXPLAINED.read_text()) if EXPLAINED.is_file() else {}
    with concurrent.futures.ThreadPoolExecutor(options.jobs) as pool:
        results = dict(zip((m["name"] for m in chosen), pool.map(lambda m: killed_by(m, programs, patience), chosen), strict=True))
    (WORK / "results.json").write_text(json.dumps(results, indent=1))

    bad = 0
    for name, by in results.items():
        if not by and name not in explained:
            print(f"SURVIVED {name}")
            bad += 1
        elif by and name in explained:
            print(f"EXPLAINED BUT KILLED by {by}: {name}")
            bad += 1
    for name in explained:
        if options.only in name and name not in results:
            print(f"EXPLAINED BUT GONE: {name}")
            bad += 1
    alive = sum(not by for by in results.values())
    for file in FILES:
        own = [by for m, by in zip(chosen, results.values(), strict=True) if m["file"] == file]
        if own:
            print(f"{file}: {sum(map(bool, own))} of {len(own)} killed")
    print(f"{len(results) - alive} of {len(results)} killed, {alive} survived, {alive - bad if alive >= bad else 0} of them explained")
    return 1 if bad else 0


if __name__ == "__main__":
    shutil.which("cmake") or sys.exit("cmake is missing: make deps")
    sys.exit(main())
