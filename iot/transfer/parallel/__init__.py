"""A Remote for protocols whose libraries block: a few workers with a Store each, and one committing thread.

remote.py     ParallelRemote: what a facade and the spooler call
batch.py      many uploads over as many connections as it takes
workers.py    the workers and the loop of the committing thread
upload.py     one upload: survey, send, publish
publish.py    from a complete part to the published file
download.py   one download: look, fetch, prove, publish
removal.py    parts of abandoned uploads, removed beside others
content.py    comparing what stands there with what is here
ready.py      transfers under way, and the queue from which workers help themselves
work.py       what a transfer may ask of the committing thread
"""

from iot.transfer.parallel.remote import ParallelRemote

__all__ = ["ParallelRemote"]
