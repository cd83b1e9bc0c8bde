"""Hooks: whoever wants to know when a frame is built, saved, sent, or an exposure archived.

Any number of subscribers a stage, each in a lane of its own: a slow or broken one delays nobody. Subscriptions and
what was not told yet survive a restart.
"""

from __future__ import annotations

import contextlib
import json
import logging
import threading
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import httpx

from nightglass.builder.authorities import authorities
from nightglass.builder.lanes import Delivered, Lane, Patience
from nightglass.builder.laneset import LaneSet
from nightglass.builder.posting import post
from nightglass.builder.records import HookStage
from nightglass.builder.refusals import Unknown
from nightglass.builder.targets import Target, find_target, kept_target
from nightglass.errors import Misconfigured, Rejected, Retryable
from nightglass.fitsio import write_atomic
from nightglass.model import content_key, sanitize

__all__ = ["Hooks", "Subscription"]

_log = logging.getLogger(__name__)

_ONCE: Final = "once-"
"""How the keys of those begin who are told once."""
_MAX_ARGS: Final = 65_536
"""Characters of the arguments of a subscription, as JSON."""
_MOST: Final = 256
"""Subscribers of a builder, and others that are told at the same time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Subscription:
    """Somebody who is told of a stage.

    Attributes
    ----------
    target : str
        Name of who is told.
    args : tuple
        JSON values that come along.
    source : str
        As `Target.source`; empty: gone with this process.
    """

    subscription_id: str
    stage: HookStage
    target: str
    args: tuple[Any, ...] = ()
    enabled: bool = True
    source: str = ""

    def to_json(self) -> dict[str, Any]:
        """Return it as plain JSON values."""
        return {
            "id": self.subscription_id,
            "stage": self.stage.value,
            "target": self.target,
            "args": list(self.args),
            "enabled": self.enabled,
            "source": self.source,
        }


class Hooks:
    """The subscriptions of one builder.

    Parameters
    ----------
    name : str
        Of the builder.
    directory : Path
        ``<root>/run``: ``hooks-<name>.json``, and below ``hooks-<name>/`` what is still to be told.
    known : mapping of str to str
        Configured names, each with an address or ``module:function``.
    allowed : sequence of str
        Modules and functions that may be named.
    on_alarm : callable, optional
        Told when something could not be told.
    """

    def __init__(
        self,
        name: str,
        directory: Path,
        *,
        known: Mapping[str, str] | None = None,
        allowed: Sequence[str] = (),
        patience: Patience | None = None,
        timeout_s: float = 10.0,
        on_alarm: Callable[[str], None] | None = None,
    ) -> None:
        self._name = name
        self._file = directory / f"hooks-{sanitize(name)}.json"
        self._queues = directory / f"hooks-{sanitize(name)}"
        self._known = dict(known or {})
        self._allowed = tuple(allowed)
        self._patience = patience or Patience()
        self._client = httpx.Client(timeout=timeout_s, follow_redirects=False, verify=authorities())
        self._on_alarm = on_alarm
        self._lock = threading.RLock()
        self._subscriptions: dict[str, Subscription] = {}
        self._targets: dict[str, Target] = {}
        self._lanes = LaneSet(self._make_lane)
        self._told: dict[str, int] = {}
        self._errors: dict[str, str] = {}
        self._load()

    def subscribe(
        self,
        stage: HookStage | str,
        target: str | Callable[..., Any],
        args: Sequence[Any] = (),
        *,
        enabled: bool = True,
    ) -> str:
        """Add a subscriber, and return the id by which it is named from now on.

        An address gets ``{"stage", "expid", "frame", ..., "args"}`` by POST, a function is called with the same
        mapping, then `args`.

        Raises
        ------
        Misconfigured
            If there is no such stage or target, or the arguments are no JSON.
        Rejected
            If there are too many subscribers already.
        """
        found = find_target(target, known=self._known, allowed=self._allowed)
        subscription = Subscription(
            subscription_id=uuid.uuid4().hex[:12],
            stage=_stage(stage),
            target=found.name,
            args=_checked_args(args),
            enabled=enabled,
            source=found.source,
        )
        with self._lock:
            if len(self._subscriptions) >= _MOST:
                message = f"there are {_MOST} subscribers already"
                raise Rejected(message, remedy="take those away that nobody needs")
            self._subscriptions[subscription.subscription_id] = subscription
            self._targets[subscription.subscription_id] = found
            self._save()
        return subscription.subscription_id

    def check(self, target: str) -> None:
        """See that somebody is meant by a name, unless it is empty.

        Raises
        ------
        Misconfigured
            If nobody is.
        """
        if target:
            find_target(target, known=self._known, allowed=self._allowed)

    def unsubscribe(self, subscription_id: str) -> None:
        """Take a subscriber away; what it was not told yet is dropped.

        Raises
        ------
        Rejected
            If there is none of that id.
        """
        with self._lock:
            self._get(subscription_id)
            del self._subscriptions[subscription_id]
            self._targets.pop(subscription_id, None)
            lane = self._lanes.drop(subscription_id)
            self._save()
        if lane is not None:
            lane.close(0)
        for path in (self._queues / subscription_id).glob("*.json"):
            path.unlink(missing_ok=True)

    def enable(self, subscription_id: str, enabled: bool) -> None:  # noqa: FBT001 - it is named after what is set
        """Tell a subscriber from now on, or no more.

        Raises
        ------
        Rejected
            If there is none of that id.
        """
        with self._lock:
            self._subscriptions[subscription_id] = replace(self._get(subscription_id), enabled=enabled)
            self._save()

    def subscriptions(self, stage: HookStage | str | None = None) -> tuple[Subscription, ...]:
        """Return the subscribers, of one stage or of all."""
        wanted = None if stage is None else _stage(stage)
        with self._lock:
            return tuple(item for item in self._subscriptions.values() if wanted in (None, item.stage))

    def listed(self) -> list[dict[str, Any]]:
        """Return the subscribers as JSON values, each with how often it was told, and the last failure.

        Their addresses are without passwords.
        """
        with self._lock:
            listed = [item.to_json() | self._outcome(item.subscription_id) for item in self._subscriptions.values()]
        return [{name: value for name, value in item.items() if name != "source"} for item in listed]

    def fire(self, stage: HookStage | str, expid: int, frame: int | None, **data: Any) -> None:
        """Tell every subscriber of a stage, each in its own time; never raises for what they do."""
        stage = _stage(stage)
        news = {"expid": expid, "frame": frame, **data}
        with self._lock:
            wanted = [item for item in self.subscriptions(stage) if item.enabled]
        for item in wanted:
            told = {**news, "stage": stage.value, "builder": self._name, "args": list(item.args)}
            self._put(item.subscription_id, told)

    def tell(self, stage: HookStage | str, target: str, args: Sequence[Any], news: Mapping[str, Any]) -> None:
        """Tell somebody once, as ``cb_function`` and ``cb_args`` of an exposure ask for.

        Raises
        ------
        Misconfigured
            As `subscribe`.
        Retryable
            If too many are waited for.
        """
        found = find_target(target, known=self._known, allowed=self._allowed)
        key = f"{_ONCE}{content_key(found.source)}"
        checked = list(_checked_args(args))
        item = {**news, "stage": _stage(stage).value, "builder": self._name, "args": checked, "source": found.source}
        with self._lock:
            self._make_room(key)
            self._targets[key] = found
            self._put(key, item)

    def start(self) -> None:
        """Begin to tell, with what was left over from before."""
        with self._lock:
            names = sorted(path.name for path in self._queues.glob("*")) if self._queues.is_dir() else ()
            self._lanes.start(name for name in names if name in self._subscriptions or name.startswith(_ONCE))

    def close(self) -> None:
        """Stop; what was not told yet is told after the next start."""
        self._lanes.close()
        self._client.close()

    def wait_idle(self, timeout_s: float) -> bool:
        """Wait until everybody was told; for an orderly end."""
        return self._lanes.wait_idle(timeout_s)

    def _put(self, key: str, item: Mapping[str, Any]) -> None:
        with contextlib.ExitStack() as held:
            with self._lock:
                if key not in self._targets:  # taken away just now
                    return
                lane = held.enter_context(self._lanes.held(key))
            try:
                lane.put(item)
            except Retryable as error:  # a full disk must not stop the pipeline
                self._alarm(f"{lane.name} is not told: {error}")

    def _make_room(self, key: str) -> None:
        """Forget those who were told once, and have nothing left to be told."""
        if key in self._lanes:
            return
        for gone in self._lanes.make_room(_MOST, prefix=_ONCE):
            self._targets.pop(gone, None)
            self._told.pop(gone, None)
            self._errors.pop(gone, None)
            with contextlib.suppress(OSError):
                (self._queues / gone).rmdir()

    def _outcome(self, key: str) -> dict[str, Any]:
        lane = self._lanes.get(key)
        waiting = 0 if lane is None else lane.pending
        return {"told": self._told.get(key, 0), "waiting": waiting, "error": self._errors.get(key, "")}

    def _get(self, subscription_id: str) -> Subscription:
        found = self._subscriptions.get(subscription_id)
        if found is None:
            message = f"there is no hook {subscription_id!r}"
            raise Unknown(message, remedy="list the hooks to see their ids")
        return found

    def _make_lane(self, key: str) -> Lane:
        name = self._subscriptions[key].target if key in self._subscriptions else key
        return Lane(
            f"hook {name}",
            self._queues / key,
            lambda item: self._deliver(key, item),
            patience=self._patience,
            on_end=lambda ended: self._ended(key, ended),
        )

    def _deliver(self, key: str, item: Mapping[str, Any]) -> None:
        with self._lock:
            target = self._targets.get(key)
        if target is None:  # told once, before a restart
            source = str(item.get("source", ""))
            target = kept_target(source, name=source, allowed=self._allowed)
        args = item.get("args", [])
        news = {name: value for name, value in item.items() if name != "source"}
        if target.function is not None:
            target.function({name: value for name, value in news.items() if name != "args"}, *args)
            return
        post(self._client, target.name, target.url, json=news)

    def _ended(self, key: str, ended: Delivered) -> None:
        with self._lock:
            self._told[key] = self._told.get(key, 0) + (not ended.error)
            self._errors[key] = ended.error
        if ended.error:
            what = f"exposure {ended.item.get('expid')}, frame {ended.item.get('frame')}"
            self._alarm(f"a subscriber of {ended.item.get('stage')} was not told of {what}: {ended.error}")

    def _alarm(self, text: str) -> None:
        _log.warning("%s", text)
        if self._on_alarm is not None:
            self._on_alarm(text)

    def _save(self) -> None:
        kept = [item.to_json() for item in self._subscriptions.values() if item.source]
        with write_atomic(self._file) as part:
            part.write_text(json.dumps({"format": 1, "hooks": kept}, indent=1))

    def _load(self) -> None:
        try:
            values = json.loads(self._file.read_text())["hooks"]
        except FileNotFoundError:
            return
        except (OSError, ValueError, KeyError, TypeError) as error:
            _log.warning("%s cannot be read, its hooks are lost: %s", self._file, error)
            return
        for value in values:
            try:
                item = Subscription(
                    subscription_id=str(value["id"]),
                    stage=HookStage(value["stage"]),
                    target=str(value["target"]),
                    args=tuple(value["args"]),
                    enabled=bool(value["enabled"]),
                    source=str(value["source"]),
                )
                self._targets[item.subscription_id] = kept_target(item.source, name=item.target, allowed=self._allowed)
                self._subscriptions[item.subscription_id] = item
            except (KeyError, ValueError, TypeError, Misconfigured) as error:
                _log.warning("a hook of %s is left out: %s", self._file, error)


def _stage(stage: HookStage | str) -> HookStage:
    try:
        return HookStage(str(stage))
    except ValueError:
        message = f"there is no stage {str(stage)!r}"
        raise Misconfigured(message, remedy=f"stages are {', '.join(item.value for item in HookStage)}") from None


def _checked_args(args: Sequence[Any]) -> tuple[Any, ...]:
    try:
        text = json.dumps(list(args), allow_nan=False)
    except (TypeError, ValueError) as error:
        message = f"the arguments of a hook are no JSON: {error}"
        raise Misconfigured(message, remedy="give texts, numbers, lists and mappings") from error
    if len(text) > _MAX_ARGS:
        message = f"the arguments of a hook have {len(text)} characters, more than {_MAX_ARGS}"
        raise Misconfigured(message, remedy="give less")
    return tuple(json.loads(text))
