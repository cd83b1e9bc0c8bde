"""Where exposures come from: sensors that see files arrive, and the bench on which transfers are checked."""

from nightglass.sensors.files import FileSensor, SensorState, SensorStatus
from nightglass.sensors.transfer import TransferBench

__all__ = ["FileSensor", "SensorState", "SensorStatus", "TransferBench"]
