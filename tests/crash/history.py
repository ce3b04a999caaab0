"""What callers asked and were told, and whether it agrees with the ledger's files and with the sandbox's account.

The invariants, by the numbers under which the tests name them:

  I1  a request_id is POSTed once, and again only after a refusal (429, 503 with Retry-After, REFUSED_STREAM) of the
      POST before it; every POST has a row that counted it before it left
  I2  SUCCEEDED: created exactly once, under the id that the row holds; whatever was created is SUCCEEDED, or UNKNOWN
      or SENDING where nobody could hear of it
  I3  FAILED and RELEASED: not created
  I4  what a caller was told is in the files, for ever
  I5  SUCCEEDED, FAILED and UNKNOWN rows never change
  I6  the counters of an e-mail address are the sums over its rows
  I7  what may count against an e-mail address is at most 3, plus what a caller knowingly superseded; used_min <= what
      Astra has <= used_max
  I8  no personal data in the files
  I9  whatever a dead process left SENDING is UNKNOWN once another one serves
"""

import collections
import dataclasses

from support.protos import pb

from crash_server import TALLY
from ledgers import FAILED, RELEASED, SENDING, STATE_NAMES, SUCCEEDED, UNKNOWN

LIMIT = 3
REFUSED = (429, 503)  # the tests' 503 all have a Retry-After
FINAL = (SUCCEEDED, FAILED, UNKNOWN)
OPEN_OR_USED = (SENDING, SUCCEEDED, UNKNOWN)

# Reasons whose row the contract says; the others leave it as it is.
ROW_OF = {"UPSTREAM_REJECTED": FAILED, "OUTCOME_UNKNOWN": UNKNOWN}
ROW_OF_CREATION = {pb.CREATION_STATE_CREATED: SUCCEEDED, pb.CREATION_STATE_REJECTED: FAILED,
                   pb.CREATION_STATE_UNKNOWN: UNKNOWN, pb.CREATION_STATE_NOT_SENT: RELEASED,
                   pb.CREATION_STATE_IN_PROGRESS: SENDING}


@dataclasses.dataclass
class Ask:
    request: object
    told: tuple = None         # (row, intent id) once any caller has heard something for ever
    first_hand: int = 0        # OK answers that were no replay
    final: object = None       # the row, once it was seen in a final state


class History:
    """Of one ledger, from its making on. Begins with an empty sandbox."""

    def __init__(self):
        self.asks = {}  # by request_id
        self.tags = {}  # request_id by the metadata value that each request carries
        self.wrong = []

    def add(self, request):
        ask = self.asks[request.request_id] = Ask(request)
        tag = request.metadata["canary_key"]
        assert tag not in self.tags
        self.tags[tag] = request.request_id
        TALLY["requests"] += 1
        return ask

    def _wrong(self, invariant, what, request_id=""):
        self.wrong.append(f"{invariant}: {what} {request_id}".rstrip())

    def check(self, where):
        assert not self.wrong, f"{where}: " + "; ".join(self.wrong[:10])

    # -- what callers hear ---------------------------------------------------------------------------------------------

    def _tell(self, ask, row, intent=""):
        request_id = ask.request.request_id
        TALLY["outcomes told"] += 1
        if ask.told not in (None, (row, intent)):
            self._wrong("I5", f"told {STATE_NAMES[ask.told[0]]} first and {STATE_NAMES[row]} or another id later", request_id)
        ask.told = (row, intent)

    def on_response(self, ask, response):
        self._tell(ask, SUCCEEDED, response.user_intent.id)
        ask.first_hand += not response.replayed
        if ask.first_hand > 1:
            self._wrong("I1", "two callers were told that the POST was theirs", ask.request.request_id)

    def on_error(self, ask, error):
        if error.reason == "INTERNAL":
            self._wrong("-", "INTERNAL", ask.request.request_id)
        row = ROW_OF.get(error.reason)
        if row is not None:
            self._tell(ask, row)

    def on_creation(self, ask, creation, at_rest):
        row = ROW_OF_CREATION[creation.state]
        if row in FINAL:
            self._tell(ask, row, creation.user_intent.id)
        if row == SENDING and at_rest:
            self._wrong("I9", "in progress with nobody at work", ask.request.request_id)

    # -- the files -----------------------------------------------------------------------------------------------------

    def check_files(self, files):
        """After the end of a process."""
        sums = collections.defaultdict(lambda: [0, 0])
        for row in files.rows.values():
            sums[row.email][0] += row.confirmed
            sums[row.email][1] += row.state != RELEASED and not row.confirmed
        for email in set(sums) | set(files.counters):
            if tuple(sums[email]) != tuple(files.counters.get(email, (0, 0))):
                self._wrong("I6", f"counters {files.counters.get(email)}, rows {sums[email]}")
        if unknown := set(files.rows) - set(self.asks):
            self._wrong("I4", f"{len(unknown)} rows that nobody asked for")
        for request_id, ask in self.asks.items():
            row = files.rows.get(request_id)
            if ask.told and (row is None or row.state != ask.told[0] or row.intent != ask.told[1]):
                self._wrong("I4", f"told {STATE_NAMES[ask.told[0]]}, the row is {row and STATE_NAMES[row.state]}", request_id)
            if ask.final and (row is None or dataclasses.replace(row, superseded=False, email=0) != ask.final):
                self._wrong("I5", f"{STATE_NAMES[ask.final.state]} became {row and STATE_NAMES[row.state]}, or changed",
                            request_id)
            if row and row.state in FINAL:
                ask.final = dataclasses.replace(row, superseded=False, email=0)

    # -- files and sandbox ---------------------------------------------------------------------------------------------

    def check_account(self, files, account):
        """`account` was read after the end of the process that left the files."""
        posts = collections.defaultdict(list)
        for post in sorted(account["posts"], key=lambda post: post["seq"]):
            if not post["body_complete"]:
                continue  # a head, and at most a part of the body: cut off by the kill, and nothing came of it
            posts[self.tags[post["body"]["metadata"]["canary_key"]]].append(post)
        created = {request_id: [post for post in sent if post["committed"]] for request_id, sent in posts.items()}

        for request_id in self.asks:
            row, sent, made = files.rows.get(request_id), posts[request_id], created.get(request_id, [])
            if len(sent) > (row.attempts if row else 0):
                self._wrong("I1", f"{len(sent)} POSTs, the row knows of {row and row.attempts}", request_id)
            if any(not (post["refused"] or post["status"] in REFUSED) or post["committed"] for post in sent[:-1]):
                self._wrong("I1", f"POSTed again after {[post['status'] for post in sent]}", request_id)
            if len(made) > 1:
                self._wrong("I2", f"created {len(made)} times", request_id)
            if row is None:
                continue
            if row.state == SUCCEEDED and [post["intent_id"] for post in made] != [row.intent]:
                self._wrong("I2", f"SUCCEEDED, created {len(made)} times or under another id", request_id)
            if row.state in (FAILED, RELEASED) and made:
                self._wrong("I3", f"{STATE_NAMES[row.state]}, but it was created", request_id)

        of_email = collections.defaultdict(list)
        for request_id, row in files.rows.items():
            of_email[row.email].append((request_id, row))
        numbers = collections.defaultdict(set)
        for request_id, row in files.rows.items():
            if request_id in self.asks:
                numbers[self.asks[request_id].request.email].add(row.email)
        if any(len(several) != 1 for several in numbers.values()):
            self._wrong("I6", "an e-mail address under two numbers")
        for email, rows in of_email.items():
            truth = sum(len(created.get(request_id, [])) for request_id, _ in rows)
            confirmed, possible = files.counters.get(email, (0, 0))
            if not confirmed <= truth <= confirmed + possible:
                self._wrong("I7", f"counted {confirmed} to {confirmed + possible}, Astra has {truth}")
            may_count = sum(row.state in OPEN_OR_USED for _, row in rows)
            superseded = sum(row.superseded for _, row in rows)
            if max(may_count, truth) > LIMIT + superseded or confirmed > LIMIT:
                self._wrong("I7", f"{may_count} may count, {truth} do, {confirmed} surely, {superseded} were superseded")

    def check_attempts(self, ask, attempts, account):
        """What a caller hears of the attempts while nothing runs."""
        truth = sum(intent["email"].lower() == ask.request.email.lower() for intent in account["intents"])
        if not attempts.used_min <= truth <= attempts.used_max:
            self._wrong("I7", f"told {attempts.used_min} to {attempts.used_max}, Astra has {truth}", ask.request.request_id)

    def expect_recovered(self, before, recovered):
        """`before`: the files that the new process found."""
        left = sum(row.state == SENDING for row in before.rows.values())
        TALLY["left SENDING by a kill"] += left
        if left != recovered:
            self._wrong("I9", f"{left} rows were SENDING, {recovered} were recovered")
