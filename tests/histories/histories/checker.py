"""Judges a history: what callers saw, what the ledger says and what the sandbox counted must be one story.

check() gives every violation as "I<n>: ..." and knows nothing of how the history came about. The numbers:

    I0  every answer keeps the contract's rules for answers; no error that the contract does not name
    I1  of one (caller, request_id) at most one POST that was not refused unprocessed, none after it, one content only,
        and no attempt id twice
    I2  CREATED means exactly one intent at Astra, with the same id; every intent has a row that is CREATED or UNKNOWN
    I3  REJECTED, NOT_SENT and "no record" mean that nothing was created; `sent: no` means no POST
    I4  an OK that a caller saw stays, with the same intent, for ever; a row never vanishes
    I5  final states never change: every later call gets the same answer, and at most one answer has replayed=false.
        UNKNOWN is final, too, unless the ledger's audit says when, and by which proof, it was settled
    I6  used_min <= attempts that Astra counted <= used_max, and both are the sums over the address's rows
    I7  no POST for an address while another request for it runs or is unresolved (unless replaced), nor after three
        answers with a 2xx status line
    I8  personal data nowhere but at Astra
    I9  nothing is IN_PROGRESS when nothing runs
    I10 a refusal has its reason: PERSON_EXISTS, EMAIL_*, SUPERSEDES_INVALID, REQUEST_ID_REUSED; processes end well
    I11 settled by proof, never otherwise: see proofs.py

"Attempts that Astra counted" are intents, and POSTs answered with a 2xx status line: what the sandbox answers so without
creating anything is an attempt for everybody who cannot look behind the answer.
"""

import collections

from histories import proofs
from histories.plan import refused_unprocessed, refusing_status
from histories.record import key_of

LIMIT = 3
SLACK = 0.002          # seconds between two programs' ideas of now on one machine
ON_ITS_WAY = 1.0       # seconds that a POST may need from the ledger's decision to Astra where the machine is busy
FINAL = {"CREATED", "REJECTED", "UNKNOWN"}
# Made by the gRPC library on either side: the deadline, the cancel, the connection of a process that is gone.
BARE = {"UNAVAILABLE", "CANCELLED", "DEADLINE_EXCEEDED"}


def check(history):
    """Every violation, as text."""
    return _Checker(history).check()


def fact_of(call):
    """What this answer says for ever about its id, or None."""
    out = call["out"]
    if call["kind"] == "validate":
        return None
    if "ok" in out:
        return ("CREATED", out["ok"].get("id"))
    if out.get("row"):
        return _fact_of_row(out["row"])
    if "error" in out:
        reason, meta = out["error"]["reason"], out["error"]["meta"]
        if reason == "OUTCOME_UNKNOWN":
            return ("UNKNOWN",)
        if reason == "UPSTREAM_REJECTED" or (reason == "EMAIL_ATTEMPTS_EXHAUSTED" and "http_status" in meta):
            return ("REJECTED", reason)  # Astra said so, not the gateway's own counting
    return None


def _fact_of_row(row):
    if row["state"] == "CREATED":
        return ("CREATED", row.get("id"))
    if row["state"] == "REJECTED":
        return ("REJECTED", row.get("reason"))
    return ("UNKNOWN",) if row["state"] == "UNKNOWN" else None


def confirmed(row):
    """A 2xx status line came."""
    return row["state"] == "CREATED" or (
        row["state"] == "UNKNOWN" and row["meta"].get("http_status", "").startswith("2"))


class _Checker:
    def __init__(self, history):
        self.h = history
        self.found = []
        self.posts = collections.defaultdict(list)      # key -> POSTs in the order of arrival
        self.by_email = collections.defaultdict(list)
        for post in sorted(history.posts, key=lambda post: post["seq"]):
            if post["ref"] in history.specs:
                self.posts[self._key(post["ref"])].append(post)
                self.by_email[history.specs[post["ref"]]["email"]].append(post)
        # Its body was never read. Whose it was is known if somebody heard the answer, and only then.
        self.nobodys = [post for post in history.posts if not post["body_complete"]]
        self.calls = collections.defaultdict(list)
        for call in sorted(history.calls, key=lambda call: call["t0"]):
            self.calls[key_of(call["caller"], call["id"])].append(call)
        self.last = history.snapshots[-1]["rows"] if history.snapshots else {}
        self.intents = collections.defaultdict(list)
        for intent in history.intents:
            if intent["ref"] in history.specs:
                self.intents[self._key(intent["ref"])].append(intent)
        self.settled = collections.defaultdict(list)    # key -> entries of the audit, in order
        for entry in history.audit:
            self.settled[entry["key"]].append(entry)
        self.bound = {key: self._bound(key) for key in self.calls}

    def _key(self, ref):
        spec = self.h.specs[ref]
        return key_of(spec["caller"], spec["id"])

    def _say(self, rule, text):
        self.found.append(f"{rule}: {text}")

    def _bound(self, key):
        """The ref whose content the row of this id has, or None where there is no row."""
        row = self.last.get(key)
        if row is None:
            return None
        if self.posts[key]:
            return self.posts[key][0]["ref"]
        refs = {call["ref"] for call in self.calls[key] if call["kind"] == "create"}
        reused = {call["ref"] for call in self.calls[key]
                  if call["out"].get("error", {}).get("reason") == "REQUEST_ID_REUSED"}
        left = sorted(refs - reused)
        if len(left) != 1:
            self._say("I10", f"{key} has a row, and {len(left)} of its contents are accepted as its own")
        return left[0] if left else None

    def _email(self, key):
        return self.h.specs[self.bound[key]]["email"] if self.bound[key] else None

    def check(self):
        if not self.h.snapshots or not self.h.calls:
            return ["I0: there is nothing to judge"]
        self._answers()
        self._one_post()
        for snapshot in self.h.snapshots:
            self._snapshot(snapshot)
        self._for_ever()
        self._addresses()
        self._refusals()
        self.found += [f"I11: {text}" for text in proofs.check(self.h, self.last, self.posts, self.intents)]
        for leak in self.h.leaks:
            self._say("I8", leak)
        for trouble in self.h.process:
            self._say("I10", trouble)
        return self.found

    # -- I0 ------------------------------------------------------------------------------------------------------------

    def _answers(self):
        for call in self.h.calls:
            out = call["out"]
            if "broken" in out:
                self._say("I0", f"call {call['n']}: {out['broken']}")
            elif out.get("bare") is not None and out["bare"] not in BARE:
                self._say("I0", f"call {call['n']}: {out['bare']} without details ({out.get('text')})")
            elif "bare" in out and call["phase"] != "run":
                self._say("I0", f"call {call['n']} in the quiet: {out['bare']} ({out.get('text')})")
            elif out.get("error", {}).get("reason") == "INTERNAL":
                self._say("I0", f"call {call['n']}: INTERNAL")
            if "ok" in out:
                ok = out["ok"]
                if call["kind"] == "validate":
                    if "id" in ok:
                        self._say("I0", f"call {call['n']}: validate_only answered with an intent")
                elif not ok.get("id"):
                    self._say("I0", f"call {call['n']}: OK without an intent")
                elif ok["min"] < 1:
                    self._say("I6", f"call {call['n']}: OK, but used_min is {ok['min']}")
                if not 0 <= ok["min"] <= ok["max"]:
                    self._say("I6", f"call {call['n']}: used_min {ok['min']}, used_max {ok['max']}")

    # -- I1 ------------------------------------------------------------------------------------------------------------

    def _one_post(self):
        read_early = set()
        early = collections.defaultdict(set)   # POSTs whose body was never read are known by the answer's Request-Id
        for call in self.h.calls:
            out = call["out"]
            rid, status = "", ""
            if "error" in out:
                rid, status = out["error"]["meta"].get("astra_request_id", ""), out["error"]["meta"].get("http_status")
            elif out.get("row"):
                rid, status = out["row"]["rid"], out["row"].get("meta", {}).get("http_status")
            if rid.startswith("early-"):
                key = key_of(call["caller"], call["id"])
                read_early.add(key)
                if not refusing_status(int(status or 0), "early"):
                    early[key].add(rid)
        seen_ids = {}
        for post in sorted(self.h.posts, key=lambda post: post["seq"]):
            if post["attempt_id"]:
                if post["attempt_id"] in seen_ids:
                    self._say("I1", f"POSTs {seen_ids[post['attempt_id']]} and {post['seq']} have one attempt id")
                seen_ids[post["attempt_id"]] = post["seq"]
            if post["body_complete"] and post["ref"] not in self.h.specs:
                self._say("I1", f"POST {post['seq']} is nobody's")
        for key in self.calls:
            posts = self.posts[key]
            taken = [post for post in posts if not refused_unprocessed(post)]
            unread = early[key] if not any(post["fault"] == "early" for post in taken) else set()
            if len(taken) + len(unread) > 1:
                self._say("I1", f"{key}: POSTs {[post['seq'] for post in taken]} {sorted(unread)} may all have counted")
            if taken and posts[-1] is not taken[0]:
                self._say("I1", f"{key}: POST {taken[0]['seq']} may have counted, and {posts[-1]['seq']} came after it")
            if len({post["ref"] for post in posts}) > 1:
                self._say("I1", f"{key}: two contents were sent under one id")
            self._sent(key, posts, key in read_early)

    def _sent(self, key, posts, early):
        """`sent` in the errors of an id, against the POSTs that came for it."""
        for call in self.calls[key]:
            error = call["out"].get("error")
            if not error or error["reason"] in ("REQUEST_ID_REUSED", "LEDGER_UNAVAILABLE"):
                continue
            if error["meta"]["sent"] == "no":
                before = [post for post in posts if post["t1"] is not None and post["t1"] < call["t0"] - SLACK]
                if before:
                    self._say("I3", f"call {call['n']} for {key}: sent is no, and POST {before[0]['seq']} had come")
            elif error["meta"]["sent"] == "yes" and not early and not any(
                    post["t0"] is None or post["t0"] < call["t1"] + SLACK for post in posts + self.nobodys):
                self._say("I3", f"call {call['n']} for {key}: sent is yes, and no POST had come")

    # -- I2, I3, I9, I6 at a quiet moment ------------------------------------------------------------------------------

    def _snapshot(self, snapshot):
        when, rows, until = snapshot["when"], snapshot["rows"], snapshot["posts"]
        intents = {key: [intent for intent in made if intent["post"] <= until] for key, made in self.intents.items()}
        posts = {key: [post for post in sent if post["seq"] <= until] for key, sent in self.posts.items()}
        for intent in self.h.intents:
            if intent["post"] <= until:
                key = self._key(intent["ref"]) if intent["ref"] in self.h.specs else None
                row = rows.get(key)
                if row is None or row["state"] not in ("CREATED", "UNKNOWN"):
                    self._say("I2", f"{when}: the intent of POST {intent['post']} belongs to {key}, whose row is "
                                    f"{row and row['state']}")
        for key, row in rows.items():
            made = [intent["id"] for intent in intents.get(key, ())]
            state = row["state"] if row else "none"
            if state == "IN_PROGRESS":
                self._say("I9", f"{when}: {key} is IN_PROGRESS")
            elif state == "CREATED":
                if made != [row.get("id")]:
                    self._say("I2", f"{when}: {key} is CREATED as {row.get('id')}, Astra has {made}")
            elif state == "UNKNOWN":
                if len(made) > 1:
                    self._say("I2", f"{when}: {key} is UNKNOWN, Astra has {len(made)} intents")
            elif state in ("REJECTED", "NOT_SENT", "none"):
                if made:
                    self._say("I3", f"{when}: {key} is {state}, Astra has {len(made)} intents")
            else:
                self._say("I0", f"{when}: {key} is {state}")
            sent = posts.get(key, ())
            if sent and (row is None or (row.get("meta") or {}).get("sent") == "no"):
                self._say("I3", f"{when}: {key} was never sent, it is said, and POST {sent[0]['seq']} came")
        self._budgets(when, rows, until)

    def _budgets(self, when, rows, until):
        sums = collections.defaultdict(lambda: [0, 0])
        for key, row in rows.items():
            if row is None or self._email(key) is None:
                continue
            pair = sums[self._email(key)]
            pair[0] += confirmed(row)
            pair[1] += row["state"] in FINAL
        truth = collections.Counter()
        for email, posts in self.by_email.items():
            truth[email] = sum(post["committed"] or 200 <= (post["status"] or post["begun"]) <= 299 for post in posts
                               if post["seq"] <= until)
        for key, row in rows.items():
            email = row and self._email(key)
            if not email:
                continue
            if not row["min"] <= truth[email] <= row["max"]:
                self._say("I6", f"{when}: {key} says {row['min']} to {row['max']} attempts, Astra counted "
                                f"{truth[email]}")
            if [row["min"], row["max"]] != sums[email]:
                self._say("I6", f"{when}: {key} says {row['min']} to {row['max']} attempts, the rows of the address "
                                f"say {sums[email][0]} to {sums[email][1]}")

    # -- I4, I5 --------------------------------------------------------------------------------------------------------

    def _for_ever(self):
        seen = collections.defaultdict(list)    # key -> (when it was known, when it was asked, what)
        for key, calls in self.calls.items():
            for call in calls:
                fact = fact_of(call)
                if fact:
                    seen[key].append((call["t1"], fact))
        for snapshot in self.h.snapshots:
            for key, row in snapshot["rows"].items():
                if row and _fact_of_row(row):
                    seen[key].append((snapshot["at"], _fact_of_row(row)))
        for key, facts in seen.items():
            facts = self._without_what_was_settled(key, facts)
            if not facts:
                continue
            first_at, first = min(facts)
            others = {fact for _, fact in facts} - {first}
            rule = "I4" if first[0] == "CREATED" or any(fact[0] == "CREATED" for fact in others) else "I5"
            if others:
                self._say(rule, f"{key} was {first}, then {sorted(others)}")
            for snapshot in self.h.snapshots:
                row = snapshot["rows"].get(key)
                if snapshot["at"] > first_at and key in snapshot["rows"] and (
                        row is None or row["state"] not in FINAL):
                    self._say(rule, f"{key} was {first}, and is {row and row['state']} at '{snapshot['when']}'")
            for call in self.calls[key]:
                if call["t0"] > first_at:
                    self._replay(key, call, first, rule)
        for key, calls in self.calls.items():
            self._same_answers(key, calls)
            recorded = False
            for snapshot in self.h.snapshots:
                if recorded and snapshot["rows"].get(key, True) is None:
                    self._say("I4", f"{key} had a row, and has none at '{snapshot['when']}'")
                recorded = recorded or snapshot["rows"].get(key) is not None

    def _without_what_was_settled(self, key, facts):
        """UNKNOWN is no fact for ever where a proof came; after the proof it is none at all."""
        ends = [entry for entry in self.settled[key] if entry["to"] != "UNKNOWN"]  # which counts, and settles nothing
        if not ends:
            return facts
        end = ends[-1]
        if end["to"] != "RELEASED":
            for call in self.calls[key]:
                if fact_of(call) == ("UNKNOWN",) and call["t0"] > end["at"] + SLACK:
                    self._say("I5", f"{key} was settled as {end['to']}, and UNKNOWN again for call {call['n']}")
        elif self.last.get(key) and self.last[key]["state"] == "UNKNOWN":
            return []   # sent again since
        return [(at, fact) for at, fact in facts if fact != ("UNKNOWN",)]

    def _unknown_at(self, key, when, before=SLACK):
        """Whether the row's outcome was not known then, though perhaps it is now. Nothing: nobody can tell, because it
        became known at that time or less than `before` seconds earlier."""
        for entry in self.settled[key]:
            if when - before <= entry["at"] <= when + SLACK:
                return None
            if when < entry["at"]:
                return True     # or it still ran
        return False

    def _replay(self, key, call, fact, rule):
        """`call` began when `fact` was known to a caller."""
        out = call["out"]
        if "bare" in out or "broken" in out:
            return
        if call["kind"] == "get":
            if out["row"] is None or _fact_of_row(out["row"]) != fact:
                self._say(rule, f"{key} was {fact}; GetCreation {call['n']} says "
                                f"{out['row'] and out['row']['state']}")
            return
        if out.get("error", {}).get("reason") == "REQUEST_IN_PROGRESS" and self._deadline_was_near(call):
            return
        if call["ref"] != self.bound[key]:
            if out.get("error", {}).get("reason") != "REQUEST_ID_REUSED":
                self._say(rule, f"{key} was {fact}; call {call['n']} with other content got {_short(out)}")
            return
        if call["kind"] == "validate":
            return
        if fact_of(call) != fact:
            self._say(rule, f"{key} was {fact}; call {call['n']} got {_short(out)}")
        elif "error" in out and out["error"]["meta"].get("replayed") != "true":
            self._say("I5", f"{key} was {fact}; call {call['n']} got it as news")

    @staticmethod
    def _deadline_was_near(call):
        deadline = call["deadline"]
        return call["t1"] - call["t0"] >= 0.9 * max(deadline - 0.05, deadline / 2) - 0.03

    def _same_answers(self, key, calls):
        answers = [call["out"]["ok"] for call in calls if "ok" in call["out"] and call["kind"] == "create"]
        fresh = [answer for answer in answers if not answer["replayed"]]
        if len(fresh) > 1:
            self._say("I5", f"{key}: {len(fresh)} answers are not marked as replayed")
        # Not the status: that moves.
        if len({(answer.get("id"), answer.get("at"), answer["rid"]) for answer in answers}) > 1:
            self._say("I4", f"{key}: its OK answers differ")
        row = self.last.get(key)
        if answers and row and row["state"] == "CREATED":
            if (row.get("id"), row.get("at"), row["rid"]) != tuple(answers[0].get(name) for name in ("id", "at", "rid")):
                self._say("I4", f"{key}: GetCreation shows another intent than the callers saw")

    # -- I7 ------------------------------------------------------------------------------------------------------------

    def _addresses(self):
        replaces = collections.defaultdict(set)     # unresolved key -> keys whose callers asked to replace it
        for call in self.h.calls:
            if call.get("supersedes") and call["kind"] == "create":
                replaces[key_of(call["caller"], call["supersedes"])].add(key_of(call["caller"], call["id"]))
        rows = collections.defaultdict(list)
        for key, row in self.last.items():
            if row and self._email(key):
                rows[self._email(key)].append((key, row))
        for email, posts in self.by_email.items():
            self._address(posts, rows[email], replaces)
        for email, mine in rows.items():
            sure = sum(confirmed(row) and not self.settled[key] for key, row in mine)
            if sure > LIMIT:
                self._say("I7", f"{sure} answers with a 2xx status line for one address: {[key for key, _ in mine]}")

    def _address(self, posts, rows, replaces):
        for number, post in enumerate(posts):
            key = self._key(post["ref"])
            earlier = [other for other in posts[:number] if self._key(other["ref"]) != key]
            sure = {self._key(other["ref"]) for other in earlier
                    if not refused_unprocessed(other)}
            sure = {other for other in sure if self.last.get(other) and confirmed(self.last[other]) and
                    not (self.settled[other] and post["t0"] is not None and self._unknown_at(other, post["t0"], ON_ITS_WAY) is not False)}
            if len(sure) >= LIMIT:
                self._say("I7", f"POST {post['seq']} for {key}, though {len(sure)} attempts were surely used")
            for other in earlier:
                self._pair(post, key, other, replaces)
            if post["t0"] is not None:
                for other, row in rows:
                    # Unresolved to this day, and nobody replaces it. (Recorded before this POST came.)
                    if other != key and row["state"] == "UNKNOWN" and not row["by"] and not replaces[other] and \
                            post["t0"] > row["updated"] / 1e9 + SLACK:
                        self._say("I7", f"POST {post['seq']} for {key}, though {other} was unresolved")

    def _pair(self, post, key, other, replaces):
        """`other` came before `post`, for another request of the same address."""
        other_key = self._key(other["ref"])
        row = self.last.get(other_key)
        if row is None:
            return  # I3 says it
        if self.settled[other_key] and row["state"] != "UNKNOWN":
            unknown = None if post["t0"] is None else self._unknown_at(other_key, post["t0"])
            if unknown is None:
                return  # it was settled at about that time, and set this request free then
            if unknown:
                row = {**row, "state": "UNKNOWN"}
        if row["state"] == "UNKNOWN" and not refused_unprocessed(other):
            # Unresolved since then. This request replaces it, or one before did and was not released meanwhile.
            if key not in replaces[other_key] and not any(
                    self._took_its_place(one, row, other, post) for one in replaces[other_key]):
                self._say("I7", f"POST {post['seq']} for {key}, though {other_key} (POST {other['seq']}) was unresolved")
            return
        if None in (post["t0"], other["t1"]):
            return
        # Once it is settled nobody waits for the end of its exchange.
        if post["t0"] < other["t1"] - SLACK and not self.settled[other_key]:
            self._say("I7", f"POST {post['seq']} for {key} came while POST {other['seq']} for {other_key} ran")
        took = not refused_unprocessed(other)
        if took and row["state"] == "CREATED" and post["t0"] < row["at"] / 1e9 - SLACK:
            self._say("I7", f"POST {post['seq']} for {key} came before the end of {other_key} was recorded")

    def _took_its_place(self, one, row, other, post):
        """`one` asked to replace the row of `other`, and still did when `post` came."""
        if any(other["seq"] < sent["seq"] < post["seq"] and not refused_unprocessed(sent)
               for sent in self.posts[one]):
            return True
        # It ended UNKNOWN, too: its POST was lost before it arrived, or the refusal on its way back.
        mine = self.last.get(one)
        return bool(mine) and (mine["state"] == "UNKNOWN" or self.settled[one]) and one.endswith("/" + (row["by"] or "-")) and not any(
            sent["seq"] > post["seq"] for sent in self.posts[one])

    # -- I10 -----------------------------------------------------------------------------------------------------------

    def _refusals(self):
        created = collections.defaultdict(list)     # (address, person) -> keys
        unknown = collections.defaultdict(set)      # address -> keys
        sure = collections.Counter()
        others = collections.defaultdict(set)
        for key, row in self.last.items():
            if row and self._email(key):
                email = self._email(key)
                if row["state"] == "CREATED":
                    created[email, self.h.specs[self.bound[key]]["person"]].append(key)
                if row["state"] == "UNKNOWN" or self.settled[key]:
                    unknown[email].add(key)
                sure[email] += confirmed(row)
        contents = collections.defaultdict(set)
        for call in self.h.calls:
            contents[key_of(call["caller"], call["id"])].add(call["ref"])
            others[self.h.specs[call["ref"]]["email"]].add(key_of(call["caller"], call["id"]))
        for call in self.h.calls:
            error = call["out"].get("error")
            if not error:
                continue
            reason, meta = error["reason"], error["meta"]
            spec, key = self.h.specs[call["ref"]], key_of(call["caller"], call["id"])
            wrong = None
            if reason == "PERSON_EXISTS":
                mine = [one for one in created[spec["email"], spec["person"]] if one != key]
                ids = {self.last[one]["id"] for one in mine if one.startswith(call["caller"] + "/")}
                if call.get("supersedes"):
                    named = self.last.get(key_of(call["caller"], call["supersedes"]))
                    if named and named["state"] == "CREATED":
                        mine.append(None)
                        ids.add(named["id"])
                if not mine:
                    wrong = "no such person was created"
                elif "user_intent_id" in meta and meta["user_intent_id"] not in ids:
                    wrong = "the intent is not this caller's"
            elif reason == "EMAIL_ATTEMPTS_EXHAUSTED" and "http_status" not in meta:
                if sure[spec["email"]] < LIMIT:
                    wrong = f"{sure[spec['email']]} attempts are surely used"
            elif reason == "EMAIL_UNRESOLVED":
                named = meta.get("unresolved_request_id")
                if not unknown[spec["email"]] - {key}:
                    wrong = "no request for the address is unresolved"
                elif named and key_of(call["caller"], named) not in unknown[spec["email"]] - {key}:
                    wrong = "the request that it names is not unresolved, or not this caller's"
            elif reason == "SUPERSEDES_INVALID" and not call.get("supersedes"):
                wrong = "it replaces nothing"
            elif reason == "EMAIL_BUSY" and not others[spec["email"]] - {key}:
                wrong = "there is no other request for the address"
            elif reason == "EMAIL_BUSY" and call["phase"] != "run":
                wrong = "nothing runs"
            elif reason == "REQUEST_ID_REUSED" and len(contents[key]) < 2:
                wrong = "the id has one content"
            if wrong:
                self._say("I10", f"call {call['n']} for {key} got {reason}, but {wrong}")


def _short(out):
    if "error" in out:
        return out["error"]["reason"]
    if "ok" in out:
        return f"OK {out['ok'].get('id')}"
    return str(next(iter(out)))
