"""Notices to people: rendered once, kept in an outbox until they are delivered, by mail, Apprise, file or command."""

from nightglass.notices.channels import Channel, channels
from nightglass.notices.message import Notice, mail_message
from nightglass.notices.outbox import Delivery, Outbox, Outcome, send
from nightglass.notices.probing import probe

__all__ = ["Channel", "Delivery", "Notice", "Outbox", "Outcome", "channels", "mail_message", "probe", "send"]
