"""A Remote for protocols whose libraries block: a few workers with a Store each, and one committing thread.

remote.py     ParallelRemote: what a facade and the spooler call; journal, locks, attempts
workers.py    the workers and the loop of the committing thread
upload.py     one upload: survey, send, publish
download.py   one download: look, fetch, prove, publish
content.py    comparing what stands there with what is here
work.py       what a transfer may ask of the committing thread
"""

from iot.transfer.parallel.remote import ParallelRemote

__all__ = ["ParallelRemote"]
