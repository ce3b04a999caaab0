"""I11: an unknown outcome becomes known by proof, and no proof is lost.

* What the ledger settled it settled from UNKNOWN, by Astra's word, to what the row says now; and Astra's account agrees
  (I2 and I3 look at the intents of every row).
* A webhook that was answered 200 is in the ledger, and something came of it. One that Astra did not sign never was, and
  is not there.
* A request whose outcome is still unknown has no intent of which a webhook with its attempt id was received.
* Astra never says two things here, so nothing contradicts what is recorded.
"""

import collections

BY_WEBHOOK = "settle by webhook"
ACTIONS = {BY_WEBHOOK, "settle by late answer"}
STATES = {"SUCCEEDED": "CREATED", "FAILED": "REJECTED"}


def check(history, last, posts, intents):
    """Every violation, as text. `last`, `posts`, `intents`: rows, POSTs and intents by (caller, request_id)."""
    return [*_settled(history, last, intents), *_webhooks(history), *_unknown(history, last, posts, intents),
            *(f"{one['key']} is in conflict: {one['action']} claims {one['claimed']} {one['intent']}"
              for one in history.conflicts)]


def _settled(history, last, intents):
    ends, counted = {}, set()
    for entry in history.audit:
        if entry["actor"] != "astra" or entry["from"] != "UNKNOWN" or entry["action"] not in ACTIONS:
            yield f"{entry['key']}: the audit has {entry['action']} by {entry['actor']} from {entry['from']}"
        before = ends.get(entry["key"])
        if before and before["to"] != "RELEASED":
            yield f"{entry['key']} was settled as {before['to']} and again as {entry['to']}"
        if entry["to"] == "UNKNOWN":    # a late 2xx answer without a usable intent: counted, and nothing is settled
            if entry["key"] in counted or entry["action"] == BY_WEBHOOK:
                yield f"{entry['key']} was counted once more, or by a webhook"
            counted.add(entry["key"])
            continue
        counted.discard(entry["key"])
        ends[entry["key"]] = entry
        if entry["action"] == BY_WEBHOOK:
            yield from _by_webhook(history, entry, last, intents)
    for key, entry in ends.items():
        row = last.get(key)
        if entry["to"] in STATES and (row is None or row["state"] != STATES[entry["to"]]):
            yield f"{key} was settled as {entry['to']} and is {row and row['state']}"


def _by_webhook(history, entry, last, intents):
    hook = next((hook for hook in history.hooks if entry["evidence"] == f"webhook {hook['id']}"), None)
    row = last.get(entry["key"])
    if hook is None:
        yield f"{entry['key']} was settled by {entry['evidence']}, which is not there"
    elif row and (row.get("id") != hook["resource"] or
                  hook["resource"] not in {made["id"] for made in intents[entry["key"]]}):
        yield f"{entry['key']} was settled by {entry['evidence']}, which is about another's intent"


def _webhooks(history):
    hooks = {hook["id"]: hook for hook in history.hooks}
    signed = set()
    for one in history.sent:
        if one["key"] != "wrong":
            signed.add(one["webhook_id"])
        elif 200 in one["answers"]:
            yield f"webhook {one['webhook_id']} is not Astra's and was answered 200"
        if 200 in one["answers"] and one["webhook_id"] not in hooks:
            yield f"webhook {one['webhook_id']} was answered 200 and is not in the ledger"
    for name, hook in hooks.items():
        if name not in signed:
            yield f"webhook {name} is in the ledger, and Astra did not sign it"
        if hook["waits"]:
            yield f"webhook {name} still waits ({hook['result']})"


def _unknown(history, last, posts, intents):
    received = collections.defaultdict(set)     # attempt -> intents that a webhook named with it
    for one in history.sent:
        if one["key"] != "wrong" and 200 in one["answers"] and one["webhook_type"].startswith("user_intent_"):
            received[one["attempt_id"]].add(one["resource_id"])
    for key, row in last.items():
        if not row or row["state"] != "UNKNOWN":
            continue
        attempts = {post["attempt_id"] for post in posts[key] if post["attempt_id"]}
        for made in intents[key]:
            if any(made["id"] in received[attempt] for attempt in attempts):
                yield f"{key} is UNKNOWN, though a webhook told of its intent {made['id']}"
