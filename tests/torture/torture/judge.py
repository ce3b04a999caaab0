"""What must be true whatever happened. The sandbox's account is believed, then what callers heard; the ledger never.

  T1  a request_id is POSTed once, and again only after a refusal (429, 503 with Retry-After, REFUSED_STREAM) of the POST
      before it; no attempt id is used twice
  T2  per e-mail address one POST at a time, unless a caller knowingly superseded the earlier one
  T3  per e-mail address at most 3 intents, plus what a caller knowingly superseded
  T4  what a caller heard stays true: an intent, a rejection; UNKNOWN may be settled later, by better knowledge only
  T5  the ledger agrees with the account: SUCCEEDED was created once, under that id; FAILED and RELEASED were not created;
      whatever was sent has a row that knows of as many attempts
  T6  nothing is SENDING once everybody has had the time to fence and to sweep
  T7  the counters of an address are the sums over its rows, and Astra's truth is between the least and the most of them
  T8  no personal data in the database's files, in its log or in a gateway's
  T9  no gateway ended by itself, none said INTERNAL
"""

import collections
import dataclasses
import datetime

LIMIT = 3
REFUSED = (429, 503)  # the sandbox's 503 all have a Retry-After here
SENDING, SUCCEEDED, FAILED, UNKNOWN, RELEASED = range(1, 6)
STATES = ("", "SENDING", "SUCCEEDED", "FAILED", "UNKNOWN", "RELEASED")


@dataclasses.dataclass(frozen=True)
class Row:
    """Of a request, as the database has it at the end."""
    state: int
    intent: str
    attempts: int
    superseded: bool
    email: int       # number of the address
    confirmed: int


@dataclasses.dataclass(frozen=True)
class Heard:
    """What one call gave, begun and ended at these seconds of one clock."""
    state: int       # SUCCEEDED, FAILED or UNKNOWN
    intent: str
    begun: float
    ended: float


@dataclasses.dataclass
class Ask:
    """One request_id and everything that callers heard of it."""
    request_id: str
    email: str       # lower-cased
    heard: list = dataclasses.field(default_factory=list)
    first_hand: int = 0  # OK answers that were no replay


@dataclasses.dataclass
class Story:
    """A run, to be judged."""
    asks: dict        # Ask by request_id
    tags: dict        # request_id by the value that each request carries to the sandbox
    posts: list       # of the sandbox's account
    intents: list
    rows: dict        # Row by request_id
    counters: dict    # (confirmed, possible) by number of the address
    other: list       # violations that were seen on the way


def when(text):
    return datetime.datetime.fromisoformat(text)


def judge(story):
    """Every violation, as a line that begins with its rule."""
    found = list(story.other)
    posts = collections.defaultdict(list)
    for post in sorted(story.posts, key=lambda post: post["seq"]):
        if post["body_complete"]:  # else cut off by the end of a process, and nothing came of it
            posts[story.tags[post["body"]["metadata"]["canary_key"]]].append(post)
    found += _sending(posts)
    found += _attempt_ids(story)
    found += _single_flight(story, posts)
    found += _budgets(story)
    for ask in story.asks.values():
        found += _heard(ask, story.rows.get(ask.request_id))
        found += _row(ask, story.rows.get(ask.request_id), posts[ask.request_id])
    found += _counters(story)
    return found


def _sending(posts):
    for request_id, sent in posts.items():
        if any(post["committed"] or not (post["refused"] or post["status"] in REFUSED) for post in sent[:-1]):
            yield f"T1: {request_id} was sent {len(sent)} times: {[_say(post) for post in sent]}"


def _say(post):
    return f"{post['status'] or 'no answer'}{' created' if post['committed'] else ''}"


def _attempt_ids(story):
    counts = collections.Counter(post["attempt_id"] for post in story.posts if post["attempt_id"])
    for attempt_id, count in counts.items():
        if count > 1:
            yield f"T1: the attempt id {attempt_id} was sent {count} times"


def _single_flight(story, posts):
    by_email = collections.defaultdict(list)
    for request_id, sent in posts.items():
        by_email[story.asks[request_id].email] += [(when(post["arrived"]), post, request_id) for post in sent]
    for flights in by_email.values():
        flights.sort(key=lambda flight: flight[0])
        for index, (arrived, _, request_id) in enumerate(flights):
            for _, before, earlier in flights[:index]:
                row = story.rows.get(earlier)
                if (not before["done"] or when(before["ended"]) > arrived) and not (row and row.superseded):
                    yield f"T2: {request_id} was sent while {earlier} was on its way to the same address"


def _budgets(story):
    created = collections.Counter(intent["email"].lower() for intent in story.intents)
    given_up = collections.Counter(ask.email for ask in story.asks.values()
                                   if (row := story.rows.get(ask.request_id)) and row.superseded)
    for email, count in created.items():
        if count > LIMIT + given_up[email]:
            yield f"T3: {count} intents of one address, {given_up[email]} were superseded"


def _heard(ask, row):
    known = {(heard.state, heard.intent) for heard in ask.heard if heard.state != UNKNOWN}
    if len(known) > 1:
        yield f"T4: {ask.request_id}: callers heard {sorted(STATES[state] for state, _ in known)}, or several intents"
    # Of two calls at once the one that was held up may hear what was true before.
    settled = min((heard.ended for heard in ask.heard if heard.state != UNKNOWN), default=None)
    if settled is not None and any(heard.state == UNKNOWN and heard.begun > settled for heard in ask.heard):
        yield f"T4: {ask.request_id}: UNKNOWN was heard after the outcome was"
    if ask.first_hand > 1:
        yield f"T4: {ask.request_id}: {ask.first_hand} callers heard that the POST was theirs"
    if not ask.heard:
        return
    if row is None:
        yield f"T4: {ask.request_id}: an outcome was heard, and the ledger has no row"
    elif known and (row.state, row.intent) not in known:
        yield f"T4: {ask.request_id}: {STATES[known.pop()[0]]} was heard, the row is {STATES[row.state]} or has another intent"


def _row(ask, row, sent):
    made = [post["intent_id"] for post in sent if post["committed"]]
    if len(made) > 1:
        yield f"T5: {ask.request_id} was created {len(made)} times"
    if row is None:
        if sent:
            yield f"T5: {ask.request_id} was sent, and the ledger has no row"
        return
    if len(sent) > row.attempts:
        yield f"T5: {ask.request_id} was sent {len(sent)} times, the row knows of {row.attempts}"
    if row.state == SUCCEEDED and made != [row.intent]:
        yield f"T5: {ask.request_id} is SUCCEEDED and was created {len(made)} times, or under another id"
    if row.state in (FAILED, RELEASED) and made:
        yield f"T5: {ask.request_id} is {STATES[row.state]} and was created"
    if row.state == SENDING:
        yield f"T6: {ask.request_id} is still SENDING"


def _counters(story):
    sums = collections.defaultdict(lambda: [0, 0])
    emails = collections.defaultdict(set)
    for request_id, row in story.rows.items():
        sums[row.email][0] += row.confirmed
        sums[row.email][1] += row.state != RELEASED and not row.confirmed
        if request_id in story.asks:
            emails[row.email].add(story.asks[request_id].email)
    created = collections.Counter(intent["email"].lower() for intent in story.intents)
    for number in set(sums) | set(story.counters):
        confirmed, possible = story.counters.get(number, (0, 0))
        if [confirmed, possible] != sums[number]:
            yield f"T7: the counters of an address are {confirmed} and {possible}, its rows say {sums[number]}"
        if len(emails[number]) > 1:
            yield "T7: two addresses under one number"
        truth = sum(created[email] for email in emails[number])
        if not confirmed <= truth <= confirmed + possible:
            yield f"T7: Astra has {truth} intents of an address that is counted {confirmed} to {confirmed + possible}"
