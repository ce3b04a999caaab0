"""What was seen of one episode, as plain data: it can be written down, changed by hand and judged again.

    calls      every call of every caller: when it began and ended (seconds, this machine's clock), for whom, and `out`:
               {"ok": {...}} | {"error": {"reason", "code", "meta", "retry"}} | {"bare": code} | {"row": {...} or None} |
               {"broken": what of the contract's rules for every error it breaks}
    specs      ref -> caller, id, e-mail address (as it is counted) and person
    snapshots  what GetCreation said of every id at a quiet moment, and how much the sandbox had counted then
    posts      the sandbox's account: every POST, with the ref from its body, and when it began and ended
    intents    what the sandbox created
    sent       the sandbox's account: every webhook, each copy for itself, with the answers that it got
    hooks      the ledger's webhooks at the end: what came of each
    audit      what the ledger says was settled, and by what; conflicts: what it says was contradicted
    process    how the processes ended; leaks: where personal data was found

    phases of calls: run (faults on), repeat (all healed, every id once more), again (after one more kill -9)
"""

import dataclasses
import gzip
import json


@dataclasses.dataclass
class History:
    seed: int
    specs: dict = dataclasses.field(default_factory=dict)
    calls: list = dataclasses.field(default_factory=list)
    snapshots: list = dataclasses.field(default_factory=list)
    posts: list = dataclasses.field(default_factory=list)
    intents: list = dataclasses.field(default_factory=list)
    sent: list = dataclasses.field(default_factory=list)
    hooks: list = dataclasses.field(default_factory=list)
    audit: list = dataclasses.field(default_factory=list)
    conflicts: list = dataclasses.field(default_factory=list)
    process: list = dataclasses.field(default_factory=list)
    leaks: list = dataclasses.field(default_factory=list)

    def dump(self, path):
        """One entry a line, so that a recording can be read."""
        with _open(path, "wt") as out:
            def put(kind, value):
                out.write(json.dumps([kind, value], separators=(",", ":"), sort_keys=True) + "\n")
            put("seed", self.seed)
            for ref, spec in self.specs.items():
                put("specs", [ref, spec])
            for name in ("calls", "snapshots", "posts", "intents", "sent", "hooks", "audit", "conflicts", "process",
                         "leaks"):
                for entry in getattr(self, name):
                    put(name, entry)

    @classmethod
    def load(cls, path):
        history = cls(0)
        with _open(path, "rt") as lines:
            for line in lines:
                kind, value = json.loads(line)
                if kind == "seed":
                    history.seed = value
                elif kind == "specs":
                    history.specs[value[0]] = value[1]
                else:
                    getattr(history, kind).append(value)
        return history


def _open(path, mode):
    return (gzip.open if str(path).endswith(".gz") else open)(path, mode, encoding="utf-8")


def key_of(caller, request_id):
    return f"{caller}/{request_id}"
