"""Which adapter a link has: its settings in, a maker of fresh adapters out."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from itertools import count

from services.link.desk import Adapter, Desk, together
from shared.links import MqttSettings, WebhookSettings
from shared.settings import LineSettings


def make_adapter(settings: LineSettings, owner: str, desk: Desk) -> Callable[[], Adapter]:
    """Called once; what it returns is called for each connection."""
    name = owner.removeprefix("link-")
    link = settings.links[name]
    if link.modbus_server is not None:
        from services.link.modbus_server import ModbusServer  # each link process loads its own protocol only

        return partial(ModbusServer, link.modbus_server, desk)
    if link.modbus_client is not None:
        from services.link.modbus_client import ModbusClient

        return partial(ModbusClient, link.modbus_client, desk)
    if link.opcua is not None:
        from services.link.opcua import opcua_server  # asyncua takes seconds to import

        return opcua_server(link.opcua, desk, settings, name)
    if link.mqtt is not None:
        return make_mqtt(link.mqtt, desk, settings.line, name)
    assert link.webhook is not None, "the settings have exactly one kind"
    return make_webhook(link.webhook, desk)


class Both:
    """Two connections of one link: when one is lost, so is the other."""

    def __init__(self, one: Adapter, other: Adapter) -> None:
        self._one, self._other = one, other

    async def serve(self) -> None:
        """Until cancelled."""
        await together(self._one.serve(), self._other.serve())


def make_mqtt(settings: MqttSettings, desk: Desk, line: str, name: str) -> Callable[[], Adapter]:
    """With a second connection for Sparkplug B: a connection has one last will."""
    from services.link.mqtt import MqttAdapter

    news = desk.listen()
    births = count()

    def make() -> Adapter:
        plain = MqttAdapter(settings, desk, news, line, name)
        if settings.sparkplug_group is None:
            return plain
        from services.link.sparkplug import SparkplugNode

        return Both(plain, SparkplugNode(settings, desk, f"{line}-{name}", next(births)))

    return make


def make_webhook(settings: WebhookSettings, desk: Desk) -> Callable[[], Adapter]:
    """What waits to be told outlives each of them."""
    from services.link.webhook import Webhook, listen

    news = listen(settings, desk)
    return lambda: Webhook(settings, desk, news)
