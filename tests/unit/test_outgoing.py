"""Bytes on their way: whatever the pieces and however much is sent at a time, the stream is the same."""

from hypothesis import given
from hypothesis import strategies as st

from iot.sftp.client.protocol.outgoing import Outgoing

PIECES = st.lists(st.tuples(st.binary(min_size=1, max_size=40), st.booleans()), max_size=12)


@given(PIECES, st.data())
def test_the_stream_is_what_was_added_in_its_order(pieces, data):
    outgoing, sent, added = Outgoing(), b"", b""
    for content, as_view in pieces:
        outgoing.add((memoryview(content) if as_view else content,))
        added += content
        most = data.draw(st.integers(1, 60))
        first = outgoing.first(most)
        assert first == added[len(sent) :][:most]
        taken = data.draw(st.integers(0, len(first)))  # the channel may take less than it is given
        outgoing.drop(taken)
        sent += first[:taken]
        assert len(outgoing) == len(added) - len(sent)
    assert sent + outgoing.first(len(outgoing)) == added


def test_a_payload_that_fits_is_not_copied_before_its_packet_is_made_up():
    payload = bytes(100_000)
    outgoing = Outgoing(b"head", memoryview(payload))
    assert outgoing.first(4) == b"head"
    outgoing.drop(4 + 32_000)
    assert all(isinstance(piece, memoryview) and piece.obj is payload for piece in outgoing._pieces)
