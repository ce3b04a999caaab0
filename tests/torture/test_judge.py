"""The judge bites: a story without a fault is sound, and each fault put into it is found, by the rule that is meant for it."""

import copy
import dataclasses

import pytest

from torture.judge import FAILED, RELEASED, SENDING, SUCCEEDED, UNKNOWN, Ask, Heard, Row, Story, judge

# (request id, address, rows' state, its POSTs as (status, created), what callers heard)
IDS = [
    ("created", "a", SUCCEEDED, [(201, True)], [SUCCEEDED]),
    ("refused and created", "b", SUCCEEDED, [(503, False), (429, False), (201, True)], [SUCCEEDED, SUCCEEDED]),
    ("rejected", "c", FAILED, [(400, False)], [FAILED]),
    ("lost", "d", UNKNOWN, [(0, True)], [UNKNOWN]),
    ("lost and settled", "e", SUCCEEDED, [(0, True)], [UNKNOWN, SUCCEEDED]),
    ("given up", "f", UNKNOWN, [(500, False)], [UNKNOWN]),
    ("in its place", "f", SUCCEEDED, [(201, True)], [SUCCEEDED]),
    ("refused", "g", RELEASED, [(503, False)], []),
    ("first", "h", SUCCEEDED, [(201, True)], [SUCCEEDED]),
    ("second", "h", SUCCEEDED, [(201, True)], []),
    ("third", "h", SUCCEEDED, [(201, True)], [SUCCEEDED]),
    ("never sent", "h", None, [], []),
]


def at(second):
    return f"2026-01-01T00:{second // 60:02}:{second % 60:02}.000000001Z"


@pytest.fixture
def story():
    made = Story({}, {}, [], [], {}, {}, [])
    for request_id, address, state, sent, heard in IDS:
        ask = made.asks[request_id] = Ask(request_id, address)
        made.tags[f"tag of {request_id}"] = request_id
        intent = f"intent of {request_id}" if any(created for _, created in sent) else ""
        for number, (status, created) in enumerate(sent):
            seq = len(made.posts) + 1
            made.posts.append({
                "seq": seq, "email": address, "attempt_id": f"{request_id} {number}", "body_complete": True, "status": status,
                "committed": created, "intent_id": intent if created else "", "refused": False, "done": True,
                "arrived": at(2 * seq), "ended": at(2 * seq + 1), "body": {"metadata": {"canary_key": f"tag of {request_id}"}}})
            if created:
                made.intents.append({"id": intent, "email": address, "post": seq})
        for number, what in enumerate(heard):
            ask.heard.append(Heard(what, intent if what == SUCCEEDED else "", 10.0 * number, 10.0 * number + 5))
        ask.first_hand = SUCCEEDED in heard
        if state is not None:
            email = ord(address)
            row = made.rows[request_id] = Row(state, intent if state == SUCCEEDED else "", len(sent), request_id == "given up",
                                              email, int(state == SUCCEEDED))
            confirmed, possible = made.counters.get(email, (0, 0))
            made.counters[email] = (confirmed + row.confirmed, possible + (state in (FAILED, UNKNOWN)))
    return made


FAULTS = {}


def fault(rule):
    def keep(function):
        FAULTS[function.__name__] = (rule, function)
        return function
    return keep


def post_of(story, request_id, number=-1):
    return [post for post in story.posts if post["body"]["metadata"]["canary_key"] == f"tag of {request_id}"][number]


def send_again(story, request_id, **changes):
    post = copy.deepcopy(post_of(story, request_id))
    seq = len(story.posts) + 1
    post.update({"seq": seq, "attempt_id": "another", "arrived": at(2 * seq), "ended": at(2 * seq + 1), **changes})
    story.posts.append(post)
    return post


def change(story, request_id, **values):
    story.rows[request_id] = dataclasses.replace(story.rows[request_id], **values)


def hear(story, request_id, state, intent="", begun=100.0):
    story.asks[request_id].heard.append(Heard(state, intent, begun, begun + 1))


@fault("T1")
def sent_again_after_it_was_created(story):
    send_again(story, "created", committed=False, status=429)


@fault("T1")
def sent_again_after_no_answer(story):
    send_again(story, "given up")


@fault("T1")
def an_attempt_id_twice(story):
    story.posts[1]["attempt_id"] = story.posts[0]["attempt_id"]


@fault("T2")
def two_at_once(story):
    post_of(story, "first")["ended"] = post_of(story, "third")["ended"]


@fault("T2")
def one_that_never_ended(story):
    post_of(story, "first").update({"done": False, "ended": "0001-01-01T00:00:00Z"})


@fault("T3")
def a_fourth_intent(story):
    story.intents.append({"id": "fourth", "email": "H", "post": 1})


@fault("T3")
def a_fifth_where_one_was_given_up(story):
    story.intents += [{"id": f"more {number}", "email": "f", "post": 1} for number in range(4)]


@fault("T4")
def another_intent_was_heard(story):
    hear(story, "created", SUCCEEDED, "another")


@fault("T4")
def a_rejection_was_heard_too(story):
    hear(story, "created", FAILED)


@fault("T4")
def unknown_after_it_was_known(story):
    hear(story, "created", UNKNOWN)


@fault("T4")
def two_were_told_that_it_was_theirs(story):
    story.asks["created"].first_hand = 2


@fault("T4")
def the_row_is_gone(story):
    del story.rows["rejected"]


@fault("T4")
def the_row_says_otherwise(story):
    change(story, "rejected", state=RELEASED)


@fault("T5")
def created_twice(story):
    send_again(story, "refused and created")


@fault("T5")
def sent_without_a_row(story):
    del story.rows["refused"]


@fault("T5")
def more_was_sent_than_the_row_knows(story):
    change(story, "refused and created", attempts=2)


@fault("T5")
def succeeded_and_not_created(story):
    change(story, "given up", state=SUCCEEDED)


@fault("T5")
def released_and_created(story):
    change(story, "lost", state=RELEASED)


@fault("T6")
def still_on_its_way(story):
    change(story, "given up", state=SENDING)


@fault("T7")
def a_wrong_counter(story):
    story.counters[ord("a")] = (0, 1)


@fault("T7")
def an_intent_that_is_not_counted(story):
    change(story, "lost", state=RELEASED)
    story.counters[ord("d")] = (0, 0)


@fault("T7")
def two_addresses_are_one(story):
    change(story, "created", email=ord("b"))


@fault("T9")
def one_that_was_seen_on_the_way(story):
    story.other.append("T9: INTERNAL")


def test_a_sound_story(story):
    assert judge(story) == []


def test_what_was_heard_of_two_calls_at_once(story):
    """The call that was held up began before the outcome was known."""
    hear(story, "created", UNKNOWN, begun=3.0)
    assert judge(story) == []


def test_a_body_that_was_cut_off(story):
    send_again(story, "created", body_complete=False, body=None)
    assert judge(story) == []


@pytest.mark.parametrize("name", FAULTS)
def test_fault(story, name):
    rule, put_in = FAULTS[name]
    put_in(story)
    assert any(line.startswith(rule + ":") for line in judge(story)), judge(story)
