"""More calls at once than any library sends: what becomes of each, told by the frames that come back."""

import collections
import concurrent.futures

from support.http2 import ACK, SETTINGS, Connection, call, frame, headers, message

GET = "/userintent.v1.UserIntentService/GetCreation"


def burst(address, identity, connections=8, calls=500, waves=3):
    """Each connection sends all of its calls in one go and, once they are answered, the next wave. How many calls ended, by
    what ended them: "answered", "reset 7" (the code of RST_STREAM), "nothing"."""
    block, body = headers(GET), message(b"\x0a\x24" + b"00000000-0000-4000-8000-000000000000")

    def one(connection):
        ended = collections.Counter()
        connection.wait(lambda: connection.received[SETTINGS] > 0)
        connection.send(frame(SETTINGS, ACK))  # without it a current libgrpc takes no more than the first wave
        for wave in range(waves):
            streams = range(1 + 2 * calls * wave, 1 + 2 * calls * (wave + 1), 2)
            connection.send(b"".join(call(stream, block, body) for stream in streams))
            connection.wait(lambda: all(connection.answered[stream] for stream in streams))
            for stream in streams:
                code = connection.resets.get(stream)
                ended["answered" if connection.trailers[stream] else "nothing" if code is None else f"reset {code}"] += 1
        return ended

    made = [Connection(address, identity) for _ in range(connections)]
    try:
        with concurrent.futures.ThreadPoolExecutor(connections) as pool:
            return sum(pool.map(one, made), collections.Counter())
    finally:
        for connection in made:
            connection.close()
