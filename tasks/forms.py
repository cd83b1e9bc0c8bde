"""The fields of the forms in which people start flows, and what may be in them.

Prefect makes a form of a flow's signature. It takes bounds and patterns from these types, and descriptions from the
``Args:`` section of the flow's docstring (which must be in Google's style, the only one that it reads).
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

__all__ = [
    "BuilderName",
    "CameraName",
    "CardRule",
    "Compression",
    "ConfigurationPath",
    "CubeMode",
    "CubePath",
    "ExistingRule",
    "ExposureName",
    "ExtraCards",
    "FrameList",
    "GroupName",
    "Hours",
    "JobId",
    "KindList",
    "NightLabel",
    "OrderName",
    "RedoRule",
    "RoleName",
    "Seconds",
    "StreamName",
    "What",
]

ExposureName = Annotated[str, Field(min_length=1)]
GroupName = Annotated[str, Field(min_length=1)]
NightLabel = Annotated[str, Field(pattern=r"^(\d{8})?$")]
CameraName = str
KindList = Annotated[str, Field(pattern=r"^((bias|dark|flat)(, *(bias|dark|flat))*)?$")]
ConfigurationPath = str
JobId = str
Seconds = Annotated[float, Field(ge=0.1, le=600)]
Hours = Annotated[float, Field(ge=0, le=8760)]
BuilderName = Annotated[str, Field(pattern=r"^([a-z0-9][a-z0-9_-]{0,31})?$")]
OrderName = Annotated[str, Field(pattern=r"^(\d{8}T\d{9})?$")]
StreamName = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,31}$")]
What = Annotated[str, Field(pattern=r"^(raw|reduced)?$")]
RedoRule = Annotated[str, Field(pattern=r"^(changed|failed|all)$")]
RoleName = Annotated[str, Field(pattern=r"^([a-z][a-z0-9]*)?$")]
Compression = Annotated[str, Field(pattern=r"^(rice|gzip)?$")]
CardRule = Annotated[str, Field(pattern=r"^(keep|drop)$")]
CubeMode = Annotated[str, Field(pattern=r"^(shared|gather)$")]
ExistingRule = Annotated[str, Field(pattern=r"^(refuse|replace)$")]
CubePath = Annotated[str, Field(min_length=1)]
FrameList = Annotated[list[str], Field(min_length=1)]
ExtraCards = Annotated[str, Field(pattern=r"^([^=;]+=[^;]*;?)*$")]
