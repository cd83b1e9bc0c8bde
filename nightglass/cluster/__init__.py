"""Where pixels are computed: a pool of Dask workers, or this thread.

`start` makes the cluster that a watch owns and publishes its address under ``<root>/run``; `connect` finds it from
another process, and otherwise makes a local one. Both return a `Pool`, whose futures are those of
`concurrent.futures`, so that nothing outside this package needs to know Dask.
"""

from nightglass.cluster.starting import connect, published_address, start
from nightglass.pool import Pool, SerialPool, Worker

__all__ = ["Pool", "SerialPool", "Worker", "connect", "published_address", "start"]
