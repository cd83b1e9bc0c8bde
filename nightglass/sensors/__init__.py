"""Where exposures come from: files that arrive, and streams.

Sensors see files, and the bench checks their transfers; receivers own the sockets of streams, whose bytes the decoders
of `nightglass.streams` read, and put messages into a backlog.
"""

from nightglass.sensors.backlog import Backlog, BacklogCounts, open_backlog
from nightglass.sensors.endpoints import Endpoint, parse_endpoint, parse_source
from nightglass.sensors.files import FileSensor, SensorState, SensorStatus
from nightglass.sensors.received import Received
from nightglass.sensors.receiver import Receiver, ReceiverState, ReceiverStatus
from nightglass.sensors.receivers import make_source, open_receivers
from nightglass.sensors.spill import Spill
from nightglass.sensors.transfer import TransferBench

__all__ = [
    "Backlog",
    "BacklogCounts",
    "Endpoint",
    "FileSensor",
    "Received",
    "Receiver",
    "ReceiverState",
    "ReceiverStatus",
    "SensorState",
    "SensorStatus",
    "Spill",
    "TransferBench",
    "make_source",
    "open_backlog",
    "open_receivers",
    "parse_endpoint",
    "parse_source",
]
