"""A Remote for protocols with blocking libraries: a few workers with a Store each, and one committing thread.

remote.py     ParallelRemote: what a facade and the spooler call
uploads.py    many uploads over as many connections as needed
downloads.py  many downloads over as many connections as needed
batch.py      what both have in common
workers.py    the workers and the loop of the committing thread
upload.py     one upload: check what is there, send, publish
publish.py    from a complete part to the published file
download.py   one download: check, fetch, verify, publish
removal.py    removes parts of abandoned uploads alongside other transfers
content.py    compares content on the far side with local content
ready.py      running transfers, and the queue that workers take them from
work.py       what a transfer may ask of the committing thread
"""

from iot.transfer.parallel.remote import ParallelRemote

__all__ = ["ParallelRemote"]
